// Verifies the tokens on its input with npm jose, as its documentation has it.
const { createRemoteJWKSet, jwtVerify } = require('jose')
const [issuer, audience, keySet] = process.argv.slice(2)
const jwks = createRemoteJWKSet(new URL(keySet))
let chain = Promise.resolve()
require('readline').createInterface({ input: process.stdin }).on('line', (token) => {
  chain = chain
    .then(() => jwtVerify(token, jwks, { issuer, audience }))
    .then(() => console.log('ok'), (error) => console.log(String(error.code ?? error.message)))
})
