# A relying party made with Authlib's client for Flask.
import os
import socket

from authlib.integrations.flask_client import OAuth
from flask import Flask, jsonify
from werkzeug.serving import make_server

issuer = os.environ["ISSUER"]
app = Flask(__name__)
app.secret_key = os.urandom(32)
server = OAuth(app).register(
    "authserver",
    client_id=os.environ["CLIENT_ID"],
    client_secret=os.environ["CLIENT_SECRET"],
    server_metadata_url=issuer + "/.well-known/openid-configuration",
    client_kwargs={"scope": "openid profile email offline_access orders:read", "code_challenge_method": "S256"},
)


@app.get("/login")
def login():
    return server.authorize_redirect(f"http://127.0.0.1:{port}/callback")


@app.get("/callback")
def callback():
    token = server.authorize_access_token()  # checks state, nonce and the ID token
    userinfo = server.userinfo(token=token)
    following = server.fetch_access_token(grant_type="refresh_token", refresh_token=token["refresh_token"])
    refreshed = following["refresh_token"] != token["refresh_token"]
    return jsonify(claims=token["userinfo"], userinfo=userinfo, refreshed=refreshed)


listener = socket.create_server(("127.0.0.1", 0))
port = listener.getsockname()[1]
print(f"http://127.0.0.1:{port}", flush=True)
make_server("127.0.0.1", port, app, fd=listener.fileno()).serve_forever()
