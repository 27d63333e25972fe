// A relying party made with openid-client.
import http from 'node:http'
import * as client from 'openid-client'

const { ISSUER, CLIENT_ID, CLIENT_SECRET } = process.env
const config = await client.discovery(new URL(ISSUER), CLIENT_ID, undefined, client.ClientSecretBasic(CLIENT_SECRET), {
  execute: [client.allowInsecureRequests], // the test's issuer is on loopback
})
let began

const server = http.createServer(async (request, response) => {
  const here = new URL(request.url, `http://127.0.0.1:${server.address().port}`)
  try {
    if (here.pathname === '/login') {
      began = { verifier: client.randomPKCECodeVerifier(), state: client.randomState(), nonce: client.randomNonce() }
      const to = client.buildAuthorizationUrl(config, {
        redirect_uri: new URL('/callback', here).href,
        scope: 'openid profile email offline_access orders:read',
        code_challenge: await client.calculatePKCECodeChallenge(began.verifier),
        code_challenge_method: 'S256',
        state: began.state,
        nonce: began.nonce,
        max_age: '3600',
      })
      response.writeHead(302, { location: to.href }).end()
      return
    }
    const tokens = await client.authorizationCodeGrant(config, here, {
      pkceCodeVerifier: began.verifier, expectedState: began.state, expectedNonce: began.nonce, idTokenExpected: true, maxAge: 3600,
    })
    const claims = tokens.claims()
    const userinfo = await client.fetchUserInfo(config, tokens.access_token, claims.sub)
    const next = await client.refreshTokenGrant(config, tokens.refresh_token)
    const refreshed = next.claims().sub === claims.sub && next.refresh_token !== tokens.refresh_token
    response.end(JSON.stringify({ claims, userinfo, refreshed }))
  } catch (error) {
    response.writeHead(500).end(`${error.stack}\n${JSON.stringify(error.cause)}`)
  }
})
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`))
