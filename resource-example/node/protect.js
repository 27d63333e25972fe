// Access tokens (RFC 9068) verified offline with jose, and whether they were revoked by the issuer's
// Token Status Lists, of which each is fetched once for all tokens that it is about.
import { inflateSync } from "node:zlib";
import { createLocalJWKSet, errors, jwtVerify } from "jose";

const { ISSUER = "http://localhost:8080", AUDIENCE = "http://localhost:8081" } = process.env;
const JWKS_URI = process.env.JWKS_URI || ISSUER + "/.well-known/jwks.json";

export class Refused extends Error {
  constructor(status, code, description, scope) {
    super(description);
    Object.assign(this, { status, code, scope });
  }
}

async function get(url, accept) {
  const response = await fetch(url, { redirect: "error", headers: { accept }, signal: AbortSignal.timeout(5_000) });
  if (!response.ok) throw new Error(`${url} answered ${response.status}`);
  return response;
}

// The keys are fetched every five minutes, and for an unknown kid every 30 seconds at most. A failed
// fetch leaves the known ones in use for a day.
let keys, fetched = 0, tried = 0, fetching;
async function fetchKeys() {
  if (Date.now() - tried < (keys ? 30_000 : 1_000)) return;
  tried = Date.now();
  try {
    [keys, fetched] = [createLocalJWKSet(await (await get(JWKS_URI, "application/json")).json()), Date.now()];
  } catch (error) {
    console.warn("fetching the issuer's keys failed:", error.message);
  }
}
const fetchOnce = () => (fetching ??= fetchKeys().finally(() => (fetching = undefined)));

async function findKey(header, token) {
  if (!keys) await fetchOnce();
  else if (Date.now() - fetched > 300_000) fetchOnce();
  if (!keys || Date.now() - fetched > 86_400_000) throw new Refused(503, "temporarily_unavailable", "the keys of the issuer could not be fetched");
  try {
    return await keys(header, token);
  } catch (error) {
    if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
    await fetchOnce();
    return keys(header, token);
  }
}

const decode = (token, options) => jwtVerify(token, findKey, { clockTolerance: 30, algorithms: ["ES256", "RS256", "EdDSA"], ...options });

// draft-ietf-oauth-status-list section 8.3. A list is good for its ttl, 10 seconds.
const lists = new Map();
async function isRevoked({ uri, idx }) {
  if (!(lists.get(uri)?.until > Date.now())) {
    if (!uri.startsWith(ISSUER + "/")) throw new Error("a status list of somebody else");
    const token = await (await get(uri, "application/statuslist+jwt")).text();
    const { payload } = await decode(token, { typ: "statuslist+jwt", subject: uri, requiredClaims: ["exp", "iat"] });
    const { bits: size, lst } = payload.status_list;
    const bits = inflateSync(Buffer.from(lst, "base64url"), { maxOutputLength: 1 << 22 });
    lists.set(uri, { size, bits, until: Date.now() + 1000 * Math.min(payload.ttl ?? 10, 60) });
  }
  const { size, bits } = lists.get(uri);
  if (!(idx >= 0 && idx * size < bits.length * 8)) throw new Error("no place in the list");
  return ((bits[(idx * size) >> 3] >> (idx * size) % 8) & ((1 << size) - 1)) !== 0;
}

async function verify(token) {
  const { payload } = await decode(token, {
    typ: "at+jwt", issuer: ISSUER, audience: AUDIENCE, requiredClaims: ["exp", "sub", "client_id", "iat", "jti"], // RFC 9068 section 2.2
  }).catch((error) => {
    throw error instanceof errors.JOSEError ? new Refused(401, "invalid_token", error.code) : error;
  });
  if (payload.cnf || typeof (payload.scope ?? "") !== "string" || !Array.isArray(payload.roles ?? [])) throw new Refused(401, "invalid_token", "bound to a key, or malformed");
  const revoked = payload.status && (await isRevoked(payload.status.status_list).catch((error) => {
    console.warn("looking for the token's status failed:", error.message);
    throw new Refused(503, "temporarily_unavailable", "whether the token was revoked is not known; try again");
  }));
  if (revoked) throw new Refused(401, "invalid_token", "the token was revoked");
  return payload;
}

export const requires = ({ scope, role }) => async (request, _response, next) => {
  const [, scheme, token] = /^(\S+) *(.*)$/.exec(request.get("Authorization") ?? "") ?? [];
  if (scheme?.toLowerCase() !== "bearer") throw new Refused(401);
  if (!token) throw new Refused(400, "invalid_request", "there is no token behind Bearer");
  request.claims = await verify(token);
  if (scope && !(request.claims.scope ?? "").split(" ").includes(scope)) throw new Refused(403, "insufficient_scope", "the scope is missing", scope);
  if (role && !(request.claims.roles ?? []).includes(role)) throw new Refused(403, "insufficient_scope", "the role is missing");
  next();
};
