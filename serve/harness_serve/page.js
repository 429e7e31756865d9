// A verdict closes its buttons at the click, before the server knows, until it draws them under another class.
let closed = null;
document.addEventListener("click", (event) => {
  const row = event.target.closest?.("#verdicts button")?.closest("#verdicts");
  const name = row && [...row.classList].find((one) => one.startsWith("of-"));
  if (row && name === closed) event.stopImmediatePropagation();
  else if (row) closed = name;
}, true);

// By key, where nobody is typing: left, right, = tie, b both bad, s skip; then r for the names, and n for the next prompt
// or round. The first of a key's buttons that is shown is clicked.
const BUTTONS_OF = {
  ArrowLeft: ["best-0"], ArrowRight: ["best-1"], "=": ["tie"], b: ["bad"], s: ["skip", "following"], r: ["reveal"],
  n: ["following", "clear"],
};
const isShown = (id) => Boolean(document.getElementById(id)?.offsetParent);
const inArena = () => document.querySelector("#mode .selected")?.textContent.trim() === "Arena";
document.addEventListener("keydown", (event) => {
  const key = event.key, buttons = BUTTONS_OF[key];
  if (!buttons || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest?.("input:not([type=checkbox]), textarea, [contenteditable]")) return;
  if (key === "n" && !inArena()) return;  // there it would throw a conversation away
  if (key.startsWith("Arrow") && !document.querySelector("#verdicts.pair") && isShown("verdicts")) return;
  const id = key === "s" && isShown("after") ? undefined : buttons.find(isShown);
  if (!id && (!inArena() || !isShown("dock"))) return;
  event.preventDefault();
  if (id) document.getElementById(id).click();
  else hint(whyNot());
});

// Says why a key of the arena does nothing now, for a moment or until the next key or click.
const whyNot = () => isShown("stop") ? "Wait until both answers are there."
  : isShown("after") ? "Your verdict is kept. Press n to go on."
  : isShown("verdicts") ? "Judge first, then see the names."
  : isShown("confirmed") ? "This round is over. Press n to go on."
  : "There is nothing to judge yet.";
const hint = (text) => {
  const line = Object.assign(document.createElement("p"), { id: "hint", role: "status", textContent: text });
  const end = () => line.remove();
  for (const acted of ["keydown", "pointerdown"]) document.addEventListener(acted, end, { capture: true, once: true });
  setTimeout(end, 4000);
  document.body.append(line);
};

// A tab that was clicked would take the arrow keys, and a question that was sent all keys: in the arena they are to judge.
document.addEventListener("pointerup", (event) => {
  if (event.target.closest?.("#mode")) setTimeout(() => document.querySelector("#mode :focus")?.blur());
});
document.addEventListener("keydown", (event) => {
  const isSent = event.key === "Enter" && !event.shiftKey && event.target.closest?.("#prompt") && event.target.value.trim();
  if (isSent && inArena()) setTimeout(() => event.target.blur());
});

// Gradio ends its stream of answers when it owes none. The answer to a click that comes while the end is on its way would
// never be read: the browser takes the old stream for an open one. For the browser it lasts, then: it is fetched again
// once there is an answer to wait for. Between two clicks an open page keeps no connection. The end of an answer that was
// streamed repeats its last drawing, which may be older than what another click has drawn meanwhile: that is left out.
const fetched = window.fetch, owed = new Set(), streamed = new Set();
let wake = () => {};
window.fetch = async (what, options) => {
  const path = new URL(what.url ?? what, location.href).pathname;
  if (path.endsWith("/queue/data")) return new Response(lasting(what), { headers: { "Content-Type": "text/event-stream" } });
  if (!path.endsWith("/queue/join")) return fetched(what, options);
  let reply;
  try { reply = await fetched(what, options); } finally {
    if (!reply?.ok) closed = null;  // what did not arrive can be clicked again
  }
  if (reply.ok) {
    owed.add((await reply.clone().json()).event_id);
    wake();
  }
  return reply;
};
const lasting = (request) => new ReadableStream({
  async start(answers) {
    const text = new TextEncoder();
    for (;;) {
      while (!owed.size) await new Promise((resolve) => { wake = resolve; });
      try {
        const reply = await fetched(request.clone());
        if (!reply.ok) throw new Error(`the stream of answers is refused: ${reply.status}`);
        for await (const line of linesOf(reply.body)) {
          const message = line.startsWith("data:") ? JSON.parse(line.slice(5)) : {}, id = message.event_id;
          if (message.msg === "process_generating") streamed.add(id);
          if (message.msg === "process_completed") owed.delete(id);
          if (message.msg === "process_completed" && streamed.delete(id) && message.output?.data) {
            message.output.data = message.output.data.map(() => ({ __type__: "update" }));
            answers.enqueue(text.encode(`data: ${JSON.stringify(message)}\n`));
          } else if (message.msg !== "close_stream") answers.enqueue(text.encode(`${line}\n`));
        }
      } catch (error) { return answers.error(error); }
    }
  },
});
async function* linesOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let part; !(part = await reader.read()).done;) {
    const lines = (rest + part.value).split("\n");
    rest = lines.pop();
    yield* lines;
  }
}

// Copies an answer as it was written, or a block of code. Browsers give the clipboard to encrypted pages and this machine only.
const copied = async (text) => {
  try { return await navigator.clipboard.writeText(text); } catch { /* the old way below */ }
  const box = Object.assign(document.createElement("textarea"), { value: text });
  document.body.append(box);
  box.select();
  document.execCommand("copy");
  box.remove();
};
document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("button.copy");
  if (!button) return;
  const source = button.dataset.of === "answer" ? button.closest("article").querySelector(".source") : button.parentElement.querySelector("code");
  await copied(source.textContent);
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
});

// Asks now and then whether the server is there and knows this page, and whether the variants have changed or the engine
// has ended; the server then draws what it offers now.
let shown, begun, problem = "";
const warn = (text, isOver) => {
  if (text === problem) return;
  problem = text;
  document.getElementById("lost")?.remove();
  if (!text) return;
  const line = Object.assign(document.createElement("p"), { id: "lost", role: "alert", textContent: `${text} What is not shown as kept is not kept. ` });
  if (isOver) line.append(Object.assign(document.createElement("a"), { href: "", textContent: "Load it again" }));
  document.body.prepend(line);
};
const look = async () => {
  if (document.hidden) return;
  const reply = await fetch("served").catch(() => null);
  const now = reply?.ok ? await reply.text() : shown, server = now?.split(" ")[0];
  begun ??= server;
  if (reply?.status === 401) warn("You are not signed in any more, and this page is closed.", true);
  else if (server !== begun) warn("The server was started again, and does not know this page.", true);
  else warn(reply ? "" : "The server of this page does not answer.", false);
  if (shown !== undefined && now !== shown && server === begun) document.getElementById("refresh")?.click();
  shown = now;
};
look();
setInterval(look, 3000);

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
  // Blind answers are written out faster than they can be read: there the question stays on top.
  const endOf = (pane) => {
    const chat = pane.querySelector(".chat.blind");
    if (!chat) return pane.scrollHeight;
    const asked = chat.lastElementChild.querySelector(".said");
    return asked ? asked.offsetTop - 1.4 * chat.firstElementChild.offsetHeight : 0;
  };
  const follow = (pane) => { if (!left.has(pane)) pane.scrollTop = endOf(pane); };
  const resized = new ResizeObserver((entries) => entries.forEach((entry) => follow(entry.target)));
  new MutationObserver((changes) => {
    const panes = new Set(changes.map((change) => change.target.parentElement?.closest(".block.pane")));
    for (const pane of panes) if (pane) { resized.observe(pane); follow(pane); }
  }).observe(document.body, { childList: true, subtree: true, characterData: true });
};

// Gradio may add this script before the page has a body, or when it is loaded already.
if (document.body) followAnswers();
else document.addEventListener("DOMContentLoaded", followAnswers);
