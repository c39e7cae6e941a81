"use strict";
// Names and paths go into the page as text only, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const cards = [...document.querySelectorAll(".card")];

/**
 * What was decided about each photo, by the photo's digest: in this report, in an earlier one that the browser remembers, and in the file
 * that the evaluation was given. Of two decisions about a photo the newer one counts.
 */
const decisions = (() => {
  const KEY = "sortinghat.decisions/1";
  const FORMAT = "sortinghat.decisions/1";
  const here = new Set(cards.map((card) => card.dataset.digest));
  /** Digest to { verdict, class, path, collection, at }. The verdict of a decision that was taken back is null. */
  const known = new Map();
  /** For each action the photos that it changed, each with what was known before. */
  const history = [];

  const isSound = (decision) => ["keep", "exclude"].includes(decision?.verdict)
    || (decision?.verdict === "relabel" && data.classes.includes(decision.class));

  function read() {
    try { return new Map(JSON.parse(localStorage.getItem(KEY)) ?? []); } catch { return new Map(); }
  }

  /** Returns whether the browser remembers the changes. What another open report has stored meanwhile stays. */
  function remember(changed) {
    try {
      localStorage.setItem(KEY, JSON.stringify([...read(), ...changed]));
      return true;
    } catch {
      return false;
    }
  }

  function apply(changes) {
    for (const [digest, decision] of changes) if (decision) known.set(digest, decision); else known.delete(digest);
    remember(changes.map(([digest, decision]) => [digest, decision ?? takenBack(digest)]));
  }

  const stamped = (decision, path) => ({ ...decision, path, collection: data.collection, at: Date.now() });
  const takenBack = (digest) => stamped({ verdict: null }, pathOf(digest));
  const pathOf = (digest) => cards.find((card) => card.dataset.digest === digest)?.dataset.path ?? known.get(digest)?.path;

  /** Makes decisions, [digest, decision or null] each, as one action that can be undone. */
  function decide(changes) {
    history.push(changes.map(([digest]) => [digest, known.get(digest)]));
    apply(changes.map(([digest, decision]) => [digest, decision ? stamped(decision, decision.path ?? pathOf(digest)) : takenBack(digest)]));
  }

  /** Undoes the last action; returns the digests of the photos that it had changed. */
  function undo() {
    const before = history.pop() ?? [];
    // What is restored is newer than what it replaces, in every report.
    apply(before.map(([digest, decision]) => [digest, decision && { ...decision, at: Date.now() }]));
    return before.map(([digest]) => digest);
  }

  function current(digest) {
    const decision = known.get(digest);
    return decision?.verdict ? decision : undefined;
  }

  function begin() {
    for (const { digest, path, ...decision } of data.decisions) {
      if (isSound(decision)) known.set(digest, { ...decision, path, collection: data.collection, at: data.submitted_unix_ms });
    }
    for (const [digest, decision] of read()) {
      const belongs = here.has(digest) || known.has(digest) || decision?.collection === data.collection;
      const isNewer = (decision?.at ?? 0) > (known.get(digest)?.at ?? -1);
      if (belongs && isNewer && (decision.verdict === null || isSound(decision))) known.set(digest, decision);
    }
    return remember([...known]);
  }

  /** Makes the decisions of a file; returns how many were made, and how many were left out: they name a class that the model does
      not have, or cannot be read. */
  function open(text) {
    const file = JSON.parse(text);
    if (file?.format !== FORMAT || !Array.isArray(file.decisions)) throw new Error("another format");
    const sound = file.decisions.filter((decision) => typeof decision?.digest === "string" && isSound(decision));
    decide(sound.map(({ digest, ...decision }) => [digest, decision]));
    return { opened: sound.length, leftOut: file.decisions.length - sound.length };
  }

  /** The file that `hat evaluate --decisions` takes. */
  function file() {
    const made = [...known].filter(([, decision]) => decision.verdict);
    const list = made.map(([digest, { path, verdict, class: name }]) => ({ digest, path, verdict, class: name }));
    return JSON.stringify({ format: FORMAT, decisions: list }, null, 2) + "\n";
  }

  const count = () => [...known.values()].filter((decision) => decision.verdict).length;
  const digests = () => [...known.keys()];
  const remembers = begin();
  return { decide, undo, current, open, file, count, digests, canUndo: () => history.length > 0, remembers };
})();
