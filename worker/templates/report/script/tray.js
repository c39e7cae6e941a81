
// The tray at the bottom of the window, and which photos are shown.

const tray = document.querySelector(".tray");
const pairLine = document.querySelector(".pair");

function showTally() {
  const here = cards.map((card) => decisionOf(card)?.verdict).filter(Boolean);
  const count = (verdict) => here.filter((other) => other === verdict).length;
  const elsewhere = decisions.count() - new Set(cards.filter(decisionOf).map((card) => card.dataset.digest)).size;
  tray.querySelector(".tally").textContent = `${here.length} of ${cards.length} decided: ${count("keep")} kept, `
    + `${count("relabel")} relabelled, ${count("exclude")} excluded`
    + (elsewhere > 0 ? `; ${elsewhere} more about what is not on this page` : "");
  tray.querySelector(".meter i").style.width = `${100 * here.length / Math.max(1, cards.length)}%`;
  tray.querySelector(".save").disabled = tray.querySelector(".forget").disabled = decisions.count() === 0;
  tray.querySelector(".undo").disabled = !decisions.canUndo();
}

function tell(message) {
  tray.querySelector(".told").textContent = message;
}

/** "1 photo", "1,124 photos". */
const counted = (number, one, many) => `${Number(number).toLocaleString("en")} ${Number(number) === 1 ? one : many}`;

tray.querySelector(".save").onclick = () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([decisions.file()], { type: "application/json" }));
  link.download = "decisions.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};

const chosenFile = tray.querySelector("[type=file]");
tray.querySelector(".open").onclick = () => chosenFile.click();
chosenFile.onchange = async () => {
  const [file] = chosenFile.files;
  chosenFile.value = "";
  if (!file) return;
  try {
    const { opened, leftOut } = decisions.open(await file.text());
    refresh(decisions.digests());
    const why = `${leftOut === 1 ? "it names" : "they name"} a class that this model does not have, or cannot be read`;
    tell(`${counted(opened, "decision", "decisions")} of ${file.name} ${opened === 1 ? "was" : "were"} opened.`
      + (leftOut > 0 ? ` ${counted(leftOut, "decision was", "decisions were")} left out: ${why}.` : ""));
  } catch {
    tell(`${file.name} holds no decisions: choose a file that a report has saved.`);
  }
};

tray.querySelector(".forget").onclick = () => {
  if (!confirm("Forget every decision about these photos?")) return;
  decisions.decide(decisions.digests().map((digest) => [digest, null]));
  refresh(decisions.digests());
};
tray.querySelector(".undo").onclick = undo;

tray.querySelector(".fold").onclick = (event) => {
  const isOpen = tray.classList.toggle("unfolded");
  event.currentTarget.setAttribute("aria-expanded", String(isOpen));
  event.currentTarget.textContent = isOpen ? "Less" : "More";
};

const filters = [...tray.querySelectorAll("[data-only]")];
const filter = (box) => document.body.classList.toggle("only-" + box.dataset.only, box.checked);
for (const box of filters) box.onchange = () => filter(box);

/** Shows only the photos with this label and this prediction, and goes to the first of them. */
function showPair({ label, predicted, photos }) {
  showAll();
  const isOfPair = (card) => card.dataset.label === label && card.dataset.predicted === predicted;
  for (const card of cards) card.classList.toggle("other", !isOfPair(card));
  document.body.classList.add("only-pair");
  const [from, to] = [data.classes[label], data.classes[predicted]];
  const what = label === predicted ? `of ${to} predicted right` : `of ${from} taken for ${to}`;
  const all = counted(photos, "photo", "photos");
  pairLine.querySelector("span").textContent = `Shown: ${cards.filter(isOfPair).length} of ${all} ${what}.`;
  pairLine.hidden = false;
  focusCard(cards.find(isOfPair));
  pairLine.scrollIntoView({ block: "start" });
}

function showAll() {
  for (const card of cards) card.classList.remove("other");
  document.body.classList.remove("only-pair");
  if (pairLine) pairLine.hidden = true;
  for (const box of filters) {
    box.checked = false;
    filter(box);
  }
}
