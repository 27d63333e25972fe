// Goes on when every iframe has loaded, or after four seconds.
(() => {
  const next = document.getElementById("next").href;
  const frames = [...document.querySelectorAll("iframe")];
  let waiting = frames.length;
  const go = () => location.replace(next);
  if (waiting === 0) return go();
  for (const frame of frames) frame.addEventListener("load", () => { if (--waiting === 0) go(); }, { once: true });
  setTimeout(go, 4000);
})();
