// Verifies the tokens on its input with npm jose, as its documentation has it.
const { createRemoteJWKSet, jwtVerify } = require('jose')
const [issuer, audience] = process.argv.slice(2)
const jwks = createRemoteJWKSet(new URL(issuer + '/.well-known/jwks.json'))
let chain = Promise.resolve()
require('readline').createInterface({ input: process.stdin }).on('line', (token) => {
  chain = chain
    .then(() => jwtVerify(token, jwks, { issuer, audience }))
    .then(() => console.log('ok'), (error) => console.log(String(error.code ?? error.message)))
})
