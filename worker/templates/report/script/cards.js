
// The cards, one for each photo on the page.

const STAMPS = { keep: () => "keep", exclude: () => "exclude", relabel: (decision) => "→ " + decision.class };

const decisionOf = (card) => decisions.current(card.dataset.digest);
const relabelled = (name) => ({ verdict: "relabel", class: name });
const predictedOf = (card) => card.dataset.label === card.dataset.predicted ? null : relabelled(data.classes[card.dataset.predicted]);
const isShown = (card) => card.offsetParent !== null;

/** Whether a button of the card stands for what was decided. */
function isPressed(action, card, decision) {
  const isPredicted = decision?.verdict === "relabel" && decision.class === predictedOf(card)?.class;
  if (action === "predicted") return isPredicted;
  return decision?.verdict === action && !(action === "relabel" && isPredicted);
}

function showCard(card) {
  const decision = decisionOf(card);
  if (decision) card.dataset.verdict = decision.verdict; else delete card.dataset.verdict;
  card.querySelector(".stamp").textContent = decision ? STAMPS[decision.verdict](decision) : "";
  for (const button of card.querySelectorAll("[aria-pressed]")) {
    button.setAttribute("aria-pressed", String(isPressed(button.dataset.do, card, decision)));
  }
}

/** Shows what is decided now about these photos. A photo with two labels has two cards. */
function refresh(digests) {
  cards.filter((card) => digests.includes(card.dataset.digest)).forEach(showCard);
  showTally();
  if (large.open) showLarge(enlarged);
}

function decide(card, decision) {
  decisions.decide([[card.dataset.digest, decision]]);
  refresh([card.dataset.digest]);
}

/** The card that is so many steps further among those that are shown; the first one without a start. */
function neighbour(from, steps) {
  const shown = cards.filter((card) => card === from || isShown(card));
  return shown[Math.min(shown.length - 1, Math.max(0, from ? shown.indexOf(from) + steps : 0))];
}

function focusCard(card) {
  if (!card) return;
  for (const other of cards) other.tabIndex = other === card ? 0 : -1;
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "nearest" });
}

/** Goes on to a neighbour, in large if the card is open in large. */
function move(card, steps) {
  const next = neighbour(card, steps);
  if (large.open) showLarge(next); else focusCard(next);
}

/** How many cards a row has, so that the keys for up and down go to the card above and below. */
function columns(card) {
  return [...card.parentElement.children].filter((other) => other.offsetTop === card.offsetTop).length || 1;
}

/** Undoes the last action, wherever the reader is, and goes to the photo. */
function undo() {
  const digests = decisions.undo();
  refresh(digests);
  const card = cards.find((other) => digests.includes(other.dataset.digest));
  if (!card) return;
  if (!isShown(card)) showAll();
  if (large.open) showLarge(card); else focusCard(card);
}
