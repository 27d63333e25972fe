// The sample API in Express, verifying access tokens offline with jose.
import express from "express";
import { createLocalJWKSet, errors, jwtVerify } from "jose";

const { LISTEN = "localhost:8081", ISSUER = "http://localhost:8080", AUDIENCE = "http://localhost:8081" } = process.env;
const JWKS_URI = process.env.JWKS_URI || ISSUER + "/.well-known/jwks.json";

class Refused extends Error {
  constructor(status, code, description, scope) {
    super(description);
    Object.assign(this, { status, code, scope });
  }
}

// The keys are fetched every five minutes, and for an unknown kid every 30 seconds at most. A failed
// fetch leaves the known ones in use for a day.
let keys, fetched = 0, tried = 0, fetching;
async function fetchKeys() {
  if (Date.now() - tried < (keys ? 30_000 : 1_000)) return;
  tried = Date.now();
  try {
    const response = await fetch(JWKS_URI, { redirect: "error", signal: AbortSignal.timeout(5_000) });
    if (!response.ok) throw new Error(`${JWKS_URI} answered ${response.status}`);
    [keys, fetched] = [createLocalJWKSet(await response.json()), Date.now()];
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

async function verify(token) {
  try {
    const { payload } = await jwtVerify(token, findKey, {
      typ: "at+jwt", issuer: ISSUER, audience: AUDIENCE, clockTolerance: 30, algorithms: ["ES256", "RS256", "EdDSA"],
      requiredClaims: ["exp", "sub", "client_id", "iat", "jti"], // RFC 9068 section 2.2
    });
    if (payload.cnf || typeof (payload.scope ?? "") !== "string" || !Array.isArray(payload.roles ?? [])) throw new errors.JWTInvalid("bound to a key, or malformed");
    return payload;
  } catch (error) {
    if (error instanceof errors.JOSEError) throw new Refused(401, "invalid_token", error.code);
    throw error;
  }
}

const requires = ({ scope, role }) => async (request, _response, next) => {
  const [, scheme, token] = /^(\S+) *(.*)$/.exec(request.get("Authorization") ?? "") ?? [];
  if (scheme?.toLowerCase() !== "bearer") throw new Refused(401);
  if (!token) throw new Refused(400, "invalid_request", "there is no token behind Bearer");
  request.claims = await verify(token);
  if (scope && !(request.claims.scope ?? "").split(" ").includes(scope)) throw new Refused(403, "insufficient_scope", "the scope is missing", scope);
  if (role && !(request.claims.roles ?? []).includes(role)) throw new Refused(403, "insufficient_scope", "the role is missing");
  next();
};

const orders = new Map([[1, { id: 1, item: "tea" }], [2, { id: 2, item: "biscuits" }]]);
const app = express().disable("x-powered-by");

app.get("/orders", requires({ scope: "orders:read" }), (_request, response) => response.json([...orders.values()]));

app.post("/orders", requires({ scope: "orders:write" }), express.json({ limit: 4096 }), (request, response) => {
  if (typeof request.body?.item !== "string" || !request.body.item) return response.status(400).json({ error: 'send {"item": "..."}' });
  if (orders.size >= 100) return response.status(409).json({ error: "there are 100 orders; delete one first" });
  const order = { id: Math.max(0, ...orders.keys()) + 1, item: request.body.item, by: request.claims.sub };
  orders.set(order.id, order);
  response.status(201).json(order);
});

app.delete("/orders/:id", requires({ role: "admin" }), (request, response) => {
  if (!orders.delete(Number(request.params.id))) return response.status(404).json({ error: "no such order" });
  response.status(204).end();
});

app.get("/healthz", (_request, response) => response.type("text").send("ok\n"));
app.get("/", (_request, response) => response.type("text").send("The sample API in Express; GET /orders needs the scope orders:read.\n"));

app.use((error, _request, response, _next) => {
  const { status = 500, code, scope } = error;
  if (!(error instanceof Refused)) return response.status(status).json({ error: status < 500 ? "invalid_request" : "server_error" });
  const challenge = [code && `error="${code}", error_description="${error.message}"`, scope && `scope="${scope}"`].filter(Boolean).join(", ");
  if (status === 503) response.set("Retry-After", "5");
  else response.set("WWW-Authenticate", `Bearer ${challenge}`.trim());
  response.status(status).json({ error: code ?? "unauthorized", error_description: error.message });
});

const [, host, port] = /^(.*):(\d+)$/.exec(LISTEN);
app.listen(Number(port), host || "0.0.0.0");
