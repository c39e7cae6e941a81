"""cleanlab on synthetic labels -> cleanlab.json: 240 labels of ten classes with 15% noise, and 28 of four classes where
photos pass the thresholds of two classes at once.

    pip install cleanlab==2.9.0
"""
import functools
import json

import numpy as np

# cleanlab rounds rows of counts by numpy's default sort, which leaves the order of equal remainders to the processor.
np.argsort = functools.partial(np.argsort, kind="stable")

import cleanlab
from cleanlab.count import compute_confident_joint, estimate_joint, get_confident_thresholds
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores


def measured(labels, rows):
    issues = lambda by: np.where(find_label_issues(labels, rows, filter_by=by, n_jobs=1))[0].tolist()
    ranked = find_label_issues(labels, rows, return_indices_ranked_by="self_confidence", n_jobs=1)
    return {
        "labels": labels.tolist(), "rows": rows.tolist(),
        "thresholds": get_confident_thresholds(labels, rows).tolist(),
        "counted": compute_confident_joint(labels, rows, calibrate=False).tolist(),
        "calibrated": compute_confident_joint(labels, rows, calibrate=True).tolist(),
        "joint": estimate_joint(labels, rows).tolist(),
        "by_noise_rate": issues("prune_by_noise_rate"), "by_both": issues("both"),
        "ranked": ranked.tolist(),
        "self_confidence": get_label_quality_scores(labels, rows, method="self_confidence").tolist(),
        "normalized_margin": get_label_quality_scores(labels, rows, method="normalized_margin").tolist(),
    }


def noisy(with_truth=False):
    rng = np.random.default_rng(7)
    count, classes = 240, 10
    true = rng.integers(0, classes, count)
    labels = true.copy()
    flip = rng.random(count) < 0.15
    labels[flip] = rng.integers(0, classes, flip.sum())
    logits = rng.normal(0, 1, (count, classes))
    logits[np.arange(count), true] += rng.normal(3, 1.2, count)
    rows = np.exp(logits)
    rows = np.round(rows / rows.sum(1, keepdims=True), 6)
    rows = rows / rows.sum(1, keepdims=True)
    return (labels, rows, true) if with_truth else (labels, rows)


def two_pass():
    """Photos of classes 0 and 1 are never sure, those of 2 and 3 are: many rows pass 0 and 1 with 2 as the most probable."""
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1, 2, 3], 7)
    base = {0: [0.28, 0.26, 0.34, 0.12], 1: [0.26, 0.28, 0.34, 0.12], 2: [0.1, 0.1, 0.75, 0.05], 3: [0.05, 0.1, 0.1, 0.75]}
    rows = np.array([base[label] for label in labels]) + rng.uniform(-0.04, 0.04, (len(labels), 4))
    # Mislabelled ones: they lower the thresholds of 0 and 1, and one of 3 looks like both.
    rows[[0, 1]], rows[[7, 8]] = rows[[14, 21]] + 0.001, rows[[22, 15]] + 0.002
    rows[23] = rows[9] + 0.003
    rows = np.round(rows / rows.sum(1, keepdims=True), 6)
    passed = rows >= get_confident_thresholds(labels, rows) - 1e-6
    several = passed.sum(1) > 1
    assert several.sum() >= 3 and (~passed[several, rows[several].argmax(1)]).any(), passed
    return labels, rows


if __name__ == "__main__":
    out = {"cleanlab": cleanlab.__version__, "noisy": measured(*noisy()), "two_pass": measured(*two_pass())}
    json.dump(out, open("cleanlab.json", "w"), indent=None, separators=(",", ":"))
