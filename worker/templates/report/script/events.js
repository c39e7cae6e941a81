
// What clicks and keys do, and how the page begins.

/** What a button or a key does to a card. `goOn` says whether to move on to the next photo afterwards. */
const actions = {
  keep: (card, goOn) => make(card, { verdict: "keep" }, goOn),
  exclude: (card, goOn) => make(card, { verdict: "exclude" }, goOn),
  predicted: (card, goOn) => { const decision = predictedOf(card); if (decision) make(card, decision, goOn); },
  relabel: ask,
  open: openLarge,
};
const KEYS = { k: "keep", x: "exclude", p: "predicted", r: "relabel" };

function make(card, decision, goOn) {
  decide(card, decision);
  if (goOn) move(card, 1);
}

document.addEventListener("click", (event) => {
  const pair = event.target.closest("a[data-predicted]");
  if (pair) { event.preventDefault(); showPair(pair.dataset); return; }
  if (event.target.closest(".doubts a")) { showAll(); return; }
  const card = event.target.closest(".card") ?? (event.target.closest("dialog.large") && enlarged);
  const button = event.target.closest("[data-do]");
  if (!card) return;
  if (!button) { if (!large.open) card.focus(); return; }
  const takesBack = button.getAttribute("aria-pressed") === "true" && button.dataset.do !== "relabel";
  if (takesBack) decide(card, null); else actions[button.dataset.do](card, false);
});

document.addEventListener("keydown", (event) => {
  // A key that closes the dialog is handled there.
  if (event.defaultPrevented || dialog.open || event.ctrlKey || event.metaKey || event.altKey) return;
  const focused = document.activeElement;
  const card = enlarged ?? focused.closest?.(".card");
  const key = event.key.toLowerCase();
  const did = key === "u" ? (undo(), true) : moveByKey(event.key, card, focused) || (card && actByKey(key, card, focused));
  if (did) event.preventDefault();
});

function moveByKey(key, card, focused) {
  const steps = { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (steps && (card || focused === document.body)) { move(card, steps); return true; }
  const rows = { ArrowUp: -1, ArrowDown: 1 }[key];
  if (rows && card && !large.open) { move(card, rows * columns(card)); return true; }
  return false;
}

function actByKey(key, card, focused) {
  if (key === "enter" && focused === card) { openLarge(card); return true; }
  if (!Object.hasOwn(KEYS, key)) return false;
  actions[KEYS[key]](card, true);
  return true;
}

// A browser that remembers nothing asks before the page is closed.
window.addEventListener("beforeunload", (event) => { if (!decisions.remembers && decisions.canUndo()) event.preventDefault(); });

if (pairLine) pairLine.querySelector("button").onclick = showAll;
const notice = document.querySelector(decisions.remembers ? ".remembered" : ".forgetful");
if (notice) notice.hidden = false;
cards.forEach(showCard);
if (cards[0]) cards[0].tabIndex = 0;
tray.hidden = cards.length === 0;
showTally();
