
// The dialogs: one asks for a class, the other one shows a photo in large.

const dialog = document.querySelector("dialog.ask");
const large = document.querySelector("dialog.large");
/** The card that is open in large. */
let enlarged = null;

/** Asks for the class of a photo. `goOn` says whether to move on to the next photo once it is given. */
function ask(card, goOn) {
  const search = dialog.querySelector("input");
  const list = dialog.querySelector("ul");
  const others = data.classes.filter((_, index) => index !== Number(card.dataset.label));
  let isGiven = false;
  const give = (name) => {
    isGiven = true;
    dialog.close();
    decide(card, relabelled(name));
    if (goOn) move(card, 1); else if (!large.open) card.focus();
  };
  const fill = () => {
    const wanted = search.value.toLowerCase();
    list.replaceChildren(...others.filter((name) => name.toLowerCase().includes(wanted)).slice(0, 200).map((name) => choice(name, give)));
  };
  search.value = "";
  search.oninput = fill;
  search.onkeydown = (event) => {
    const first = list.querySelector("button");
    if (event.key === "Enter") { event.preventDefault(); first?.click(); }
    if (event.key === "ArrowDown") { event.preventDefault(); first?.focus(); }
  };
  list.onkeydown = (event) => {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    if (!step) return;
    event.preventDefault();
    (document.activeElement.parentElement[step]?.firstElementChild ?? search).focus();
  };
  dialog.onclose = () => { if (!isGiven && !large.open) card.focus(); };
  fill();
  dialog.showModal();
  search.focus();
}

function choice(name, give) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = name;
  button.onclick = () => give(name);
  const item = document.createElement("li");
  item.append(button);
  return item;
}

function showLarge(card) {
  enlarged = card;
  const [picture, image] = [card.querySelector("img"), large.querySelector("img")];
  image.src = picture?.src ?? "";
  image.alt = picture?.alt ?? "";
  image.hidden = !picture;
  // The copy is a card without a picture: its buttons work like those of the card.
  const facts = card.querySelector(".facts").cloneNode(true);
  const stamp = card.querySelector(".stamp").cloneNode(true);
  facts.prepend(stamp);
  const about = large.querySelector(".about");
  about.replaceChildren(facts);
  if (card.dataset.verdict) about.dataset.verdict = card.dataset.verdict; else delete about.dataset.verdict;
  for (const step of large.querySelectorAll("[data-step]")) step.disabled = neighbour(card, Number(step.dataset.step)) === card;
}

function openLarge(card) {
  showLarge(card);
  large.showModal();
  large.querySelector("form button").focus();
}

large.onclose = () => {
  // A reader who went on goes on from there.
  focusCard(enlarged);
  enlarged = null;
};
for (const step of large.querySelectorAll("[data-step]")) step.onclick = () => move(enlarged, Number(step.dataset.step));
