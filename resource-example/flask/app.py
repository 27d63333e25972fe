"""The sample API in Flask, verifying access tokens offline with PyJWT."""
import os
import threading
import time
from functools import wraps

import jwt
from flask import Flask, g, jsonify, request

ISSUER = os.environ.get("ISSUER", "http://localhost:8080")
AUDIENCE = os.environ.get("AUDIENCE", "http://localhost:8081")
JWKS_URI = os.environ.get("JWKS_URI", ISSUER + "/.well-known/jwks.json")
ALGORITHMS = {"ES256", "RS256", "EdDSA"}
REQUIRED = ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"]  # RFC 9068 section 2.2
REFETCH = 30  # seconds between fetches of the keys, whatever asks for them
LIFESPAN = 300  # seconds until the keys are fetched anew
KEEP = 24 * 3600  # seconds that keys are used while the issuer cannot be reached

app = Flask(__name__)
# Its own cache is off: it would empty itself when a fetch fails.
client = jwt.PyJWKClient(JWKS_URI, cache_jwk_set=False, timeout=5)
fetching = threading.Lock()
keys, fetched, tried = {}, float("-inf"), float("-inf")


class Refused(Exception):
    def __init__(self, status, error=None, description="", scope=""):
        self.status, self.error, self.description, self.scope = status, error, description, scope


def find_key(kid):
    """The issuer's key of a kid. A bad answer leaves the known keys in use, and made-up
    kids do not become requests: there is one fetch in 30 seconds at most."""
    if kid not in keys or time.monotonic() - fetched > LIFESPAN:
        if fetching.acquire(blocking=kid not in keys):  # others go on with the key they have
            try:
                fetch_keys(kid)
            finally:
                fetching.release()
    if not keys or time.monotonic() - fetched > KEEP:
        raise Refused(503, "temporarily_unavailable", "the keys of the issuer could not be fetched")
    if kid not in keys:
        raise Refused(401, "invalid_token", "the token is signed by an unknown key")
    return keys[kid]


def fetch_keys(kid):
    global keys, fetched, tried
    now = time.monotonic()
    if kid in keys and now - fetched <= LIFESPAN or now - tried < (REFETCH if keys else 1):
        return
    tried = now
    try:
        keys, fetched = {key.key_id: key for key in client.get_signing_keys()}, now
    except (jwt.PyJWTError, OSError, ValueError) as error:
        app.logger.warning("fetching the issuer's keys failed; those known stay in use: %s", error)


def verify(token):
    try:
        header = jwt.get_unverified_header(token)
        if str(header.get("typ", "")).lower().removeprefix("application/") != "at+jwt":
            raise Refused(401, "invalid_token", "the token is not an access token")
        key = find_key(header.get("kid"))
        if key.algorithm_name not in ALGORITHMS:
            raise Refused(401, "invalid_token", "the algorithm is not accepted")
        # The algorithm is the key's, whatever the token says (RFC 8725 section 3.1).
        claims = jwt.decode(token, key, algorithms=[key.algorithm_name], issuer=ISSUER, audience=AUDIENCE,
                            leeway=30, options={"require": REQUIRED})
    except jwt.PyJWTError as error:
        raise Refused(401, "invalid_token", type(error).__name__)
    if "cnf" in claims:
        raise Refused(401, "invalid_token", "the token is bound to a key")
    if not isinstance(claims.get("scope", ""), str) or not isinstance(claims.get("roles", []), list):
        raise Refused(401, "invalid_token", "scope or roles is malformed")
    return claims


def requires(scope=None, role=None):
    def decorate(handler):
        @wraps(handler)
        def checked(*args, **kwargs):
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            if scheme.lower() != "bearer":
                raise Refused(401)
            g.claims = verify(token)
            if scope and scope not in g.claims.get("scope", "").split():
                raise Refused(403, "insufficient_scope", "the scope is missing", scope)
            if role and role not in g.claims.get("roles", []):
                raise Refused(403, "insufficient_scope", "the role is missing")
            return handler(*args, **kwargs)
        return checked
    return decorate


@app.errorhandler(Refused)
def refused(error):
    response = jsonify(error=error.error or "unauthorized", error_description=error.description)
    if error.status == 503:
        response.headers["Retry-After"] = "5"
    else:
        challenge = "Bearer"
        if error.error:
            challenge += f' error="{error.error}", error_description="{error.description}"'
        if error.scope:
            challenge += f', scope="{error.scope}"'
        response.headers["WWW-Authenticate"] = challenge
    return response, error.status


orders = {1: {"id": 1, "item": "tea"}, 2: {"id": 2, "item": "biscuits"}}
orders_lock = threading.Lock()


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
    with orders_lock:
        if len(orders) >= 100:
            return jsonify(error="there are 100 orders; delete one first"), 409
        order = {"id": max(orders, default=0) + 1, "item": body["item"], "by": g.claims["sub"]}
        orders[order["id"]] = order
    return jsonify(order), 201


@app.delete("/orders/<int:number>")
@requires(role="admin")
def delete_order(number):
    with orders_lock:
        if orders.pop(number, None) is None:
            return jsonify(error="no such order"), 404
    return "", 204


@app.get("/")
def explain():
    return "The sample API in Flask; GET /orders needs the scope orders:read.\n", {"Content-Type": "text/plain"}


app.config["MAX_CONTENT_LENGTH"] = 4096

if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ.get("PORT", "8082")), threaded=True)
