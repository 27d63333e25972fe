"""The sample API in Flask; protect.py verifies the tokens."""
import os
import threading

from flask import Flask, g, jsonify, request

from protect import Refused, requires

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 4096
ordering = threading.Lock()
orders = {1: {"id": 1, "item": "tea"}, 2: {"id": 2, "item": "biscuits"}}


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


@app.get("/healthz")
def health():
    return "ok\n"


@app.get("/")
def explanation():
    return "The sample API in Flask; GET /orders needs the scope orders:read.\n"


if __name__ == "__main__":
    host, _, port = os.environ.get("LISTEN", "localhost:8081").rpartition(":")
    app.run(host=host or "0.0.0.0", port=int(port), threaded=True)
