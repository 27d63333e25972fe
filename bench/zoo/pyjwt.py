"""Verifies the tokens on its input with PyJWT, as its documentation has it."""
import sys

import jwt

issuer, audience, key_set = sys.argv[1:4]
keys = jwt.PyJWKClient(key_set)
for line in sys.stdin:
    token = line.strip()
    try:
        key = keys.get_signing_key_from_jwt(token)
        jwt.decode(token, key, algorithms=["ES256"], issuer=issuer, audience=audience)
        print("ok", flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}".replace("\n", " ")[:100], flush=True)
