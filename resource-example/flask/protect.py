"""Access tokens (RFC 9068) verified offline with PyJWT, and whether they were revoked by Token Status Lists."""
import logging
import os
import threading
import time
import urllib.request
import zlib
from functools import wraps

import jwt
from flask import g, request
from jwt.utils import base64url_decode

ISSUER = os.environ.get("ISSUER", "http://localhost:8080")
AUDIENCE = os.environ.get("AUDIENCE", "http://localhost:8081")
JWKS_URI = os.environ.get("JWKS_URI", ISSUER + "/.well-known/jwks.json")
fetching = threading.Lock()
keys, fetched, tried = {}, float("-inf"), float("-inf")
lists = {}  # by URI: the bits of each status, all of them, until when


class Refused(Exception): ...  # its arguments: status, error, description, scope


def find_key(kid):
    """The issuer's key of a kid: fetched keys are good for a day, made-up kids cost a fetch in 30 seconds at most."""
    global keys, fetched, tried
    due = lambda: (kid not in keys or time.monotonic() - fetched > 300) and time.monotonic() - tried > (30 if keys else 1)
    if due() and fetching.acquire(blocking=kid not in keys):  # others go on with the key they have
        try:
            if due():
                tried = time.monotonic()
                found = jwt.PyJWKClient(JWKS_URI, cache_jwk_set=False, timeout=5).get_signing_keys()
                keys, fetched = {key.key_id: key for key in found}, tried
        except (jwt.PyJWTError, OSError, ValueError) as error:
            logging.warning("fetching the issuer's keys failed: %s", error)
        finally:
            fetching.release()
    if not keys or time.monotonic() - fetched > 24 * 3600:
        raise Refused(503, "temporarily_unavailable", "the keys of the issuer could not be fetched")
    return keys.get(kid)


def decode(token, typ, **options):
    header = jwt.get_unverified_header(token)
    if str(header.get("typ", "")).lower().removeprefix("application/") != typ:
        raise jwt.InvalidTokenError("not of type " + typ)
    key = find_key(header.get("kid"))
    if key is None or key.algorithm_name not in ("ES256", "RS256", "EdDSA"):  # the key's, whatever the token says (RFC 8725 section 3.1)
        raise jwt.InvalidTokenError("no such key")
    return jwt.decode(token, key, algorithms=[key.algorithm_name], leeway=30, **options)


def is_revoked(place):
    """draft-ietf-oauth-status-list section 8.3. A list is good for its ttl, 10 seconds."""
    uri, index = place["uri"], place["idx"]
    if uri not in lists or time.monotonic() > lists[uri][2]:
        if not uri.startswith(ISSUER + "/"):
            raise jwt.InvalidTokenError("a status list of somebody else")
        with urllib.request.urlopen(urllib.request.Request(uri, headers={"Accept": "application/statuslist+jwt"}), timeout=5) as answer:
            claims = decode(answer.read(1 << 20).decode(), "statuslist+jwt", options={"require": ["exp", "sub", "iat"]})
        if claims["sub"] != uri:
            raise jwt.InvalidTokenError("another status list")
        bits = zlib.decompressobj().decompress(base64url_decode(claims["status_list"]["lst"]), 1 << 22)
        lists[uri] = claims["status_list"]["bits"], bits, time.monotonic() + min(claims.get("ttl", 10), 60)
    size, bits, _ = lists[uri]
    return bits[index * size // 8] >> index * size % 8 & (1 << size) - 1 != 0


def verify(token):
    try:
        required = ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"]  # RFC 9068 section 2.2
        claims = decode(token, "at+jwt", issuer=ISSUER, audience=AUDIENCE, options={"require": required})
    except jwt.PyJWTError as error:
        raise Refused(401, "invalid_token", type(error).__name__)
    if "cnf" in claims or not isinstance(claims.get("scope", ""), str) or not isinstance(claims.get("roles", []), list):
        raise Refused(401, "invalid_token", "the token is bound to a key, or malformed")
    try:
        if "status" in claims and is_revoked(claims["status"]["status_list"]):
            raise Refused(401, "invalid_token", "the token was revoked")
    except (jwt.PyJWTError, OSError, ValueError, TypeError, LookupError, zlib.error) as error:
        logging.warning("looking for the token's status failed: %s", error)
        raise Refused(503, "temporarily_unavailable", "whether the token was revoked is not known; try again")
    return claims


def requires(scope=None, role=None):
    def decorate(handler):
        @wraps(handler)
        def checked(*args, **kwargs):
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not token:
                raise Refused(400, "invalid_request", "there is no token behind Bearer") if scheme.lower() == "bearer" else Refused(401)
            g.claims = verify(token)
            if scope and scope not in g.claims.get("scope", "").split() or role and role not in g.claims.get("roles", []):
                raise Refused(403, "insufficient_scope", "the scope or the role is missing", scope or "")
            return handler(*args, **kwargs)
        return checked
    return decorate
