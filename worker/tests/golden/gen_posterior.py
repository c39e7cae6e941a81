"""How much labels count that are probably wrong -> posterior.json: 240 labels of ten classes with 15% noise, out-of-sample
probabilities of three repeats, and the probabilities of models of the labels that are not always flagged.

    pip install cleanlab==2.9.0
"""
import json

import numpy as np

from gen_cleanlab import noisy

from cleanlab.count import estimate_joint
from cleanlab.filter import find_label_issues


def repeats(labels, rows, rng, count):
    for _ in range(count):
        logits = np.log(rows) + rng.normal(0, 0.5, rows.shape)
        again = np.exp(logits - logits.max(1, keepdims=True))
        yield np.round(again / again.sum(1, keepdims=True), 6)


def found(flagged, labels, true):
    """Precision and recall of what one repeat flags, and of what all repeats flag, against the labels that are known to be wrong."""
    wrong = labels != true
    both = lambda flags: [wrong[flags].mean(), flags[wrong].mean()]
    return {"one": both(flagged[0]), "all": both(flagged.all(0))}


def weighed():
    rng = np.random.default_rng(11)
    labels, rows, true = noisy(with_truth=True)
    classes = rows.shape[1]
    three = list(repeats(labels, rows, rng, 3))
    clean = next(repeats(labels, rows, rng, 1))
    flagged = np.stack([find_label_issues(labels, again, filter_by="prune_by_noise_rate", n_jobs=1) for again in three])
    always = flagged.sum(0) == 3
    eta = min(max(1 - np.trace(estimate_joint(labels, np.mean(three, 0))), 1e-3), 0.8)
    like = np.full(rows.shape, eta / (classes - 1))
    like[np.arange(len(labels)), labels] = 1 - eta
    # The other classes together have the rest of a probability, whatever was rounded.
    own = clean[np.arange(len(labels)), labels]
    weights = (1 - eta) * own / ((1 - eta) * own + eta * (1 - own) / (classes - 1))
    posterior = like * clean
    assert np.abs(posterior[np.arange(len(labels)), labels] / posterior.sum(1) - weights).max() < 1e-4
    assert min(weights[labels == c].mean() for c in range(classes)) > 0.5, "no class is moved"
    return {
        "labels": labels.tolist(), "true": true.tolist(), "repeats": [again.tolist() for again in three], "clean": clean.tolist(),
        "votes": flagged.sum(0).tolist(), "found": found(flagged, labels, true),
        "always": np.where(always)[0].tolist(), "wrong_share": eta, "weights": weights.tolist(),
    }


if __name__ == "__main__":
    with open("posterior.json", "w") as file:
        json.dump(weighed(), file, separators=(",", ":"))
