"""The sample API in Flask, verifying access tokens offline with PyJWT."""
import os
import threading
import time
from functools import wraps

import jwt
from flask import Flask, g, jsonify, request

LISTEN = os.environ.get("LISTEN", "localhost:8081")
ISSUER = os.environ.get("ISSUER", "http://localhost:8080")
AUDIENCE = os.environ.get("AUDIENCE", "http://localhost:8081")
JWKS_URI = os.environ.get("JWKS_URI", ISSUER + "/.well-known/jwks.json")
REQUIRED = ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"]  # RFC 9068 section 2.2

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 4096
fetching, ordering = threading.Lock(), threading.Lock()
keys, fetched, tried = {}, float("-inf"), float("-inf")
orders = {1: {"id": 1, "item": "tea"}, 2: {"id": 2, "item": "biscuits"}}


class Refused(Exception):
    pass  # its arguments: status, error, description, scope


def find_key(kid):
    """The issuer's key of a kid. A failed fetch leaves the known keys in use for a day, and
    made-up kids do not become requests: there is one fetch in 30 seconds at most."""
    global keys, fetched, tried
    due = lambda: (kid not in keys or time.monotonic() - fetched > 300) and time.monotonic() - tried > (30 if keys else 1)
    if due() and fetching.acquire(blocking=kid not in keys):  # others go on with the key they have
        try:
            if due():
                tried = time.monotonic()
                found = jwt.PyJWKClient(JWKS_URI, cache_jwk_set=False, timeout=5).get_signing_keys()
                keys, fetched = {key.key_id: key for key in found}, tried
        except (jwt.PyJWTError, OSError, ValueError) as error:
            app.logger.warning("fetching the issuer's keys failed: %s", error)
        finally:
            fetching.release()
    if not keys or time.monotonic() - fetched > 24 * 3600:
        raise Refused(503, "temporarily_unavailable", "the keys of the issuer could not be fetched")
    return keys.get(kid)


def verify(token):
    try:
        header = jwt.get_unverified_header(token)
        if str(header.get("typ", "")).lower().removeprefix("application/") != "at+jwt":
            raise jwt.InvalidTokenError("not an access token")
        key = find_key(header.get("kid"))
        if key is None or key.algorithm_name not in ("ES256", "RS256", "EdDSA"):
            raise jwt.InvalidTokenError("no such key")
        # The algorithm is the key's, whatever the token says (RFC 8725 section 3.1).
        claims = jwt.decode(token, key, algorithms=[key.algorithm_name], issuer=ISSUER, audience=AUDIENCE,
                            leeway=30, options={"require": REQUIRED})
        if "cnf" in claims or not isinstance(claims.get("scope", ""), str) or not isinstance(claims.get("roles", []), list):
            raise jwt.InvalidTokenError("bound to a key, or malformed")
        return claims
    except jwt.PyJWTError as error:
        raise Refused(401, "invalid_token", type(error).__name__)


def requires(scope=None, role=None):
    def decorate(handler):
        @wraps(handler)
        def checked(*args, **kwargs):
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            if scheme.lower() != "bearer":
                raise Refused(401)
            if not token:
                raise Refused(400, "invalid_request", "there is no token behind Bearer")
            g.claims = verify(token)
            if scope and scope not in g.claims.get("scope", "").split() or role and role not in g.claims.get("roles", []):
                raise Refused(403, "insufficient_scope", "the scope or the role is missing", scope or "")
            return handler(*args, **kwargs)
        return checked
    return decorate


@app.errorhandler(Refused)
def refused(refusal):
    status, error, description, scope = (*refusal.args, "", "", "")[:4]
    challenge = "Bearer" + (f' error="{error}", error_description="{description}"' if error else "") + (f', scope="{scope}"' if scope else "")
    header = {"Retry-After": "5"} if status == 503 else {"WWW-Authenticate": challenge}
    return jsonify(error=error or "unauthorized", error_description=description), status, header


@app.get("/orders")
@requires(scope="orders:read")
def list_orders():
    return jsonify(list(orders.values()))


@app.post("/orders")
@requires(scope="orders:write")
def add_order():
    body = request.get_json(silent=True)
    if not isinstance(body, dict) or not body.get("item"):
        return jsonify(error='send {"item": "..."}'), 400
    with ordering:
        if len(orders) >= 100:
            return jsonify(error="there are 100 orders; delete one first"), 409
        order = {"id": max(orders, default=0) + 1, "item": body["item"], "by": g.claims["sub"]}
        orders[order["id"]] = order
    return jsonify(order), 201


@app.delete("/orders/<int:number>")
@requires(role="admin")
def delete_order(number):
    return ("", 204) if orders.pop(number, None) else (jsonify(error="no such order"), 404)


app.add_url_rule("/healthz", "health", lambda: "ok\n")
app.add_url_rule("/", "explanation", lambda: "The sample API in Flask; GET /orders needs the scope orders:read.\n")

if __name__ == "__main__":
    host, _, port = LISTEN.rpartition(":")
    app.run(host=host or "0.0.0.0", port=int(port), threaded=True)
