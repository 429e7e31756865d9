// A verdict closes its buttons at the click, before the server knows. It takes the row away, and draws a new one.
document.addEventListener("click", (event) => {
  const row = event.target.closest?.("#verdicts button")?.closest("#verdicts");
  if (row?.inert) event.stopImmediatePropagation();
  else if (row) row.inert = true;
}, true);

// Verdicts by key, where nobody is typing: left, right, = tie, b both bad, s skip.
const VERDICT_OF = { ArrowLeft: "best-0", ArrowRight: "best-1", "=": "tie", b: "bad", s: "skip" };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, textarea, [contenteditable]")) return;
  const button = document.getElementById(VERDICT_OF[event.key]);
  const row = button?.closest("#verdicts");
  if (!row || row.inert || !button.offsetParent) return;
  event.preventDefault();
  button.click();
});

// Keeps a column at its end while an answer streams in, unless the reader has scrolled up. A column that becomes smaller
// (the verdicts appear below it) scrolls too, without a reader: only what moves up by a reader's hand lets go of the end.
const followAnswers = () => {
  const left = new WeakSet();
  const atEnd = (pane) => pane.scrollHeight - pane.scrollTop - pane.clientHeight < 60;
  const paneOf = (event) => event.target.closest?.(".block.pane");
  for (const moved of ["wheel", "touchmove", "keydown", "pointerdown"]) document.addEventListener(moved, (event) => {
    const pane = paneOf(event);
    if (pane) setTimeout(() => atEnd(pane) ? left.delete(pane) : left.add(pane), 100);
  }, { capture: true, passive: true });
  document.addEventListener("scroll", (event) => {
    if (event.target.classList?.contains("pane") && atEnd(event.target)) left.delete(event.target);
  }, true);
  const follow = (pane) => { if (!left.has(pane)) pane.scrollTop = pane.scrollHeight; };
  const resized = new ResizeObserver((entries) => entries.forEach((entry) => follow(entry.target)));
  new MutationObserver((changes) => {
    const panes = new Set(changes.map((change) => change.target.parentElement?.closest(".block.pane")));
    for (const pane of panes) if (pane) { resized.observe(pane); follow(pane); }
  }).observe(document.body, { childList: true, subtree: true, characterData: true });
};

// Gradio may add this script before the page has a body, or when it is loaded already.
if (document.body) followAnswers();
else document.addEventListener("DOMContentLoaded", followAnswers);
