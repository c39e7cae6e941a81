"use strict";
// Names and paths go into the page as text only, never as markup.
(() => {
  const classes = JSON.parse(document.getElementById("class-names").textContent);
  const cards = [...document.querySelectorAll(".card")];
  const tray = document.querySelector(".tray");
  const dialog = document.querySelector("dialog");
  const storageKey = "sortinghat.decisions:" + document.body.dataset.report;
  const decided = new Map();

  // A browser may forbid storage to pages from files. Decisions then last as long as the page is open.
  const load = () => { try { return JSON.parse(localStorage.getItem(storageKey)) || []; } catch { return []; } };
  const store = () => { try { localStorage.setItem(storageKey, JSON.stringify([...decided])); } catch { /* see above */ } };

  const words = { keep: () => "keep", exclude: () => "exclude", relabel: (decision) => "→ " + decision.class };

  function show(card) {
    const decision = decided.get(card.dataset.digest);
    if (decision) card.dataset.verdict = decision.verdict; else delete card.dataset.verdict;
    card.querySelector(".stamp").textContent = decision ? words[decision.verdict](decision) : "";
    const isPredicted = decision?.verdict === "relabel" && decision.class === classes[card.dataset.predicted]
      && card.dataset.label !== card.dataset.predicted;
    for (const button of card.querySelectorAll("[data-do]")) {
      const action = button.dataset.do;
      const pressed = action === "predicted" ? isPredicted : decision?.verdict === action && !(action === "relabel" && isPredicted);
      button.setAttribute("aria-pressed", String(pressed));
    }
  }

  function tally() {
    const here = cards.map((card) => decided.get(card.dataset.digest)?.verdict).filter(Boolean);
    const count = (verdict) => here.filter((other) => other === verdict).length;
    tray.querySelector(".tally").textContent = `${here.length} of ${cards.length} decided: ${count("keep")} kept, `
      + `${count("relabel")} relabelled, ${count("exclude")} excluded`;
    tray.querySelector(".meter i").style.width = `${100 * here.length / Math.max(1, cards.length)}%`;
    tray.querySelector(".save").disabled = tray.querySelector(".forget").disabled = here.length === 0;
  }

  function decide(card, decision) {
    if (decision) decided.set(card.dataset.digest, decision); else decided.delete(card.dataset.digest);
    show(card);
    tally();
    store();
  }

  const relabel = (name) => ({ verdict: "relabel", class: name });

  function ask(card) {
    const search = dialog.querySelector("input");
    const list = dialog.querySelector("ul");
    const fill = () => {
      const wanted = search.value.toLowerCase();
      const others = classes.filter((_, index) => index !== Number(card.dataset.label));
      list.replaceChildren(...others.filter((name) => name.toLowerCase().includes(wanted)).slice(0, 200).map((name) => {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = name;
        button.onclick = () => { dialog.close(); decide(card, relabel(name)); card.focus(); };
        const item = document.createElement("li");
        item.append(button);
        return item;
      }));
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
    dialog.onclose = () => card.focus();
    fill();
    dialog.showModal();
    search.focus();
  }

  const actions = {
    keep: (card) => decide(card, { verdict: "keep" }),
    exclude: (card) => decide(card, { verdict: "exclude" }),
    predicted: (card) => card.dataset.label !== card.dataset.predicted && decide(card, relabel(classes[card.dataset.predicted])),
    relabel: ask,
    undo: (card) => decide(card, null),
  };
  const keys = { k: "keep", x: "exclude", p: "predicted", r: "relabel", u: "undo" };

  function move(from, steps) {
    const shown = cards.filter((card) => card === from || card.offsetParent !== null);
    const next = shown[Math.min(shown.length - 1, Math.max(0, from ? shown.indexOf(from) + steps : 0))];
    if (!next) return;
    for (const card of cards) card.tabIndex = card === next ? 0 : -1;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  }

  /** How many cards a row has, so that the keys for up and down go to the card above and below. */
  function columns(card) {
    const row = [...card.parentElement.children].filter((other) => other.offsetTop === card.offsetTop);
    return Math.max(1, row.length);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]");
    const card = event.target.closest(".card");
    if (!card) return;
    if (!button) { card.focus(); return; }
    const pressed = button.getAttribute("aria-pressed") === "true" && button.dataset.do !== "relabel";
    actions[pressed ? "undo" : button.dataset.do](card);
  });

  document.addEventListener("keydown", (event) => {
    if (dialog.open || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input")) return;
    const card = document.activeElement.closest?.(".card");
    const steps = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (steps && (card || document.activeElement === document.body)) { event.preventDefault(); move(card, steps); return; }
    if (!card) return;
    const rows = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (rows) { event.preventDefault(); move(card, rows * columns(card)); return; }
    const action = keys[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    actions[action](card);
    if (action !== "relabel" && action !== "undo") move(card, 1);
  });

  tray.querySelector(".save").onclick = () => {
    const decisions = [...decided].map(([digest, decision]) => ({ digest, ...decision }));
    const text = JSON.stringify({ format: "sortinghat.decisions/1", decisions }, null, 2) + "\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "decisions.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  tray.querySelector(".forget").onclick = () => {
    if (!confirm("Forget every decision made on this page?")) return;
    decided.clear();
    cards.forEach(show);
    tally();
    store();
  };
  for (const box of tray.querySelectorAll("[data-only]")) {
    box.onchange = () => document.body.classList.toggle("only-" + box.dataset.only, box.checked);
  }

  const known = new Set(cards.map((card) => card.dataset.digest));
  const sound = (decision) => Object.hasOwn(words, decision?.verdict)
    && (decision.verdict !== "relabel" || classes.includes(decision.class));
  for (const [digest, decision] of load()) if (known.has(digest) && sound(decision)) decided.set(digest, decision);
  cards.forEach(show);
  if (cards[0]) cards[0].tabIndex = 0;
  tray.hidden = cards.length === 0;
  tally();
})();
