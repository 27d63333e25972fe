// A relying party made with oauth4webapi: a public client, as in a browser.
import http from 'node:http'
import * as oauth from 'oauth4webapi'

const { ISSUER, CLIENT_ID } = process.env
const client = { client_id: CLIENT_ID }
const none = oauth.None()
const insecure = { [oauth.allowInsecureRequests]: true } // the test's issuer is on loopback
const issuer = new URL(ISSUER)
const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, insecure))
let began

const server = http.createServer(async (request, response) => {
  const here = new URL(request.url, `http://127.0.0.1:${server.address().port}`)
  const callback = new URL('/callback', here).href
  try {
    if (here.pathname === '/login') {
      began = { verifier: oauth.generateRandomCodeVerifier(), state: oauth.generateRandomState(), nonce: oauth.generateRandomNonce() }
      const to = new URL(as.authorization_endpoint)
      to.search = new URLSearchParams({
        client_id: CLIENT_ID, redirect_uri: callback, response_type: 'code', scope: 'openid profile email offline_access orders:read',
        code_challenge: await oauth.calculatePKCECodeChallenge(began.verifier), code_challenge_method: 'S256',
        state: began.state, nonce: began.nonce,
      })
      response.writeHead(302, { location: to.href }).end()
      return
    }
    const params = oauth.validateAuthResponse(as, client, here, began.state) // and with it iss
    const answer = await oauth.authorizationCodeGrantRequest(as, client, none, params, callback, began.verifier, insecure)
    const tokens = await oauth.processAuthorizationCodeResponse(as, client, answer, { expectedNonce: began.nonce, requireIdToken: true })
    await oauth.validateApplicationLevelSignature(as, answer, insecure)
    const claims = oauth.getValidatedIdTokenClaims(tokens)
    const userinfo = await oauth.processUserInfoResponse(as, client, claims.sub, await oauth.userInfoRequest(as, client, tokens.access_token, insecure))
    const again = await oauth.refreshTokenGrantRequest(as, client, none, tokens.refresh_token, insecure)
    const next = await oauth.processRefreshTokenResponse(as, client, again)
    response.end(JSON.stringify({ claims, userinfo, refreshed: next.refresh_token !== tokens.refresh_token }))
  } catch (error) {
    response.writeHead(500).end(`${error.stack}\n${JSON.stringify(error.cause)}`)
  }
})
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`))
