// A verdict closes its buttons at the click, before the server knows. It takes the row away, and draws a new one.
document.addEventListener("click", (event) => {
  const row = event.target.closest?.("#verdicts button")?.closest("#verdicts");
  if (row?.inert) event.stopImmediatePropagation();
  else if (row) row.inert = true;
}, true);

// Keeps a column at its end while an answer streams in, unless the reader has scrolled up.
document.addEventListener("DOMContentLoaded", () => {
  const follows = new WeakMap();
  document.addEventListener("scroll", (event) => {
    const pane = event.target;
    if (pane.classList?.contains("pane")) follows.set(pane, pane.scrollHeight - pane.scrollTop - pane.clientHeight < 60);
  }, true);
  new MutationObserver((changes) => {
    const panes = new Set(changes.map((change) => change.target.parentElement?.closest(".block.pane")));
    for (const pane of panes) if (pane && follows.get(pane) !== false) pane.scrollTop = pane.scrollHeight;
  }).observe(document.body, { childList: true, subtree: true, characterData: true });
});
