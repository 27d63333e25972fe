// A browser-only client: authorization code with PKCE (OAuth 2.1 §4.1), tokens in memory.
const { issuer, client } = document.getElementById("spa").dataset;
const redirect = location.origin + "/spa";
const element = (id) => document.getElementById(id);
const base64url = (bytes) => btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));
let tokens = null; // nowhere else

function problem(text) {
  element("problem").textContent = text;
  element("problem").hidden = false;
}

async function login() {
  const verifier = random(), state = random();
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  // What must survive the way to the issuer and back is worth nothing without the code.
  sessionStorage.setItem("pending", JSON.stringify({ verifier, state }));
  location.assign(`${issuer}/authorize?` + new URLSearchParams({
    response_type: "code", client_id: client, redirect_uri: redirect, scope: "openid profile orders:read orders:write",
    state, code_challenge: base64url(new Uint8Array(hash)), code_challenge_method: "S256",
  }));
}

async function askForTokens(parameters) {
  const response = await fetch(`${issuer}/token`, { method: "POST", body: new URLSearchParams({ client_id: client, ...parameters }) });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error_description || answer.error);
  tokens = { ...tokens, ...answer, until: Date.now() + (answer.expires_in - 10) * 1000 };
}

async function callback(query) {
  const pending = JSON.parse(sessionStorage.getItem("pending") || "{}");
  sessionStorage.removeItem("pending");
  history.replaceState(null, "", "/spa"); // the code is not left in the history
  if (query.get("state") !== pending.state || query.get("iss") !== issuer) throw new Error("This answer belongs to no sign-in that began here.");
  if (query.has("error")) throw new Error("The sign-in was not completed: " + query.get("error"));
  await askForTokens({ grant_type: "authorization_code", code: query.get("code"), redirect_uri: redirect, code_verifier: pending.verifier });
}

async function call(path, options = {}) {
  if (Date.now() > tokens.until) await askForTokens({ grant_type: "refresh_token", refresh_token: tokens.refresh_token });
  const response = await fetch(path, { ...options, headers: { Authorization: `Bearer ${tokens.access_token}` } });
  if (!response.ok) throw new Error(`The API answers ${response.status}.`);
  return response.json();
}

async function show() {
  const orders = await call("/orders");
  element("orders").replaceChildren(...orders.map((order) => Object.assign(document.createElement("li"), { textContent: order.item })));
  element("login").hidden = true;
  element("logout").hidden = element("add").hidden = false;
}

element("login").addEventListener("click", login);
element("logout").addEventListener("click", () => {
  const hint = tokens.id_token ? { id_token_hint: tokens.id_token } : {};
  location.assign(`${issuer}/logout?` + new URLSearchParams({ client_id: client, post_logout_redirect_uri: redirect, ...hint }));
});
element("add").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await call("/orders", { method: "POST", body: JSON.stringify({ item: element("item").value }) });
    await show();
  } catch (error) { problem(error.message); }
});

try {
  const query = new URLSearchParams(location.search);
  if (query.has("state")) {
    await callback(query);
    await show();
  }
} catch (error) { problem(error.message); }
