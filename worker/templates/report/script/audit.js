
// How many wrong labels are left, by what was decided about the random sample.

const estimate = document.querySelector(".estimate");
const unknown = estimate.textContent;
const sample = cards.filter((card) => card.closest("#sample"));

/** The 95% Wilson score interval of so many of all. */
function wilson(some, all) {
  const z = 1.959963984540054, share = some / all, scale = 1 + z * z / all;
  const centre = (share + z * z / (2 * all)) / scale;
  const half = z / scale * Math.sqrt(share * (1 - share) / all + z * z / (4 * all * all));
  return [Math.max(0, centre - half), Math.min(1, centre + half)];
}

function showEstimate() {
  const verdicts = sample.map((card) => card.dataset.verdict).filter(Boolean);
  if (verdicts.length === 0) { estimate.textContent = unknown; return; }
  const wrong = verdicts.filter((verdict) => verdict !== "keep").length;
  const undoubted = Number(estimate.dataset.undoubted);
  const [low, high] = wilson(wrong, verdicts.length).map((share) => Math.round(share * undoubted).toLocaleString("en"));
  estimate.textContent = `You found ${wrong} of ${counted(verdicts.length, "label", "labels")} of the random sample wrong. Of the `
    + `${undoubted.toLocaleString("en")} labels that no repeat doubts, about ${Math.round(undoubted * wrong / verdicts.length).toLocaleString("en")} are wrong `
    + `(95% interval ${low} to ${high}).`;
}

new MutationObserver(showEstimate).observe(document.body, { subtree: true, attributes: true, attributeFilter: ["data-verdict"] });
showEstimate();
