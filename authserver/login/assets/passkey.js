// Shows the forms that need passkeys where the browser has them, asks the browser
// for one when such a form is submitted, and submits the answer.
(() => {
  if (!window.PublicKeyCredential) return;
  const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const descriptors = (list) => (list || []).map((d) => ({ ...d, id: bytes(d.id) }));
  const parse = (json) => {
    const options = JSON.parse(json);
    options.challenge = bytes(options.challenge);
    if (options.user) options.user.id = bytes(options.user.id);
    options.excludeCredentials = descriptors(options.excludeCredentials);
    options.allowCredentials = descriptors(options.allowCredentials);
    return options;
  };
  const answer = (credential) => {
    const response = {};
    for (const name of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"])
      if (credential.response[name]) response[name] = text(credential.response[name]);
    if (credential.response.getTransports) response.transports = credential.response.getTransports();
    return JSON.stringify({ id: credential.id, rawId: text(credential.rawId), type: credential.type, response, clientExtensionResults: credential.getClientExtensionResults() });
  };
  for (const form of document.querySelectorAll("form[data-passkey]")) {
    const failed = form.querySelector(".notice");
    form.hidden = false;
    form.addEventListener("submit", async (event) => {
      if (form.elements.passkey.value) return;
      event.preventDefault();
      failed.hidden = true;
      try {
        const publicKey = parse(form.dataset.options);
        const credential = await navigator.credentials[form.dataset.passkey]({ publicKey });
        form.elements.passkey.value = answer(credential);
        form.submit();
      } catch {
        failed.hidden = false;
      }
    });
  }
  for (const hint of document.querySelectorAll("[data-without-passkeys]")) hint.hidden = true;
})();
