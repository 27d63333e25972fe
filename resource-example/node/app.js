// The sample API in Express; protect.js verifies the tokens.
import express from "express";
import { Refused, requires } from "./protect.js";

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

const [, host, port] = /^(.*):(\d+)$/.exec(process.env.LISTEN || "localhost:8081");
app.listen(Number(port), host || "0.0.0.0");
