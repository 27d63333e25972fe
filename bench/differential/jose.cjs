// Verifies the tokens on its input with npm jose, and answers each by its payload.
const { compactVerify, importJWK } = require('jose')
const keys = new Map()
async function verify({ token, jwk, alg }) {
  const name = JSON.stringify(jwk)
  if (!keys.has(name)) keys.set(name, await importJWK(jwk, alg))
  const text = Buffer.from(token, 'base64').toString('latin1')
  const { payload } = await compactVerify(text, keys.get(name), { algorithms: [alg] })
  return { payload: Buffer.from(payload).toString('base64') }
}
let chain = Promise.resolve()
require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
  chain = chain
    .then(() => verify(JSON.parse(line)))
    .catch((error) => ({ error: String(error.code || error.message) }))
    .then((answer) => console.log(JSON.stringify(answer)))
})
