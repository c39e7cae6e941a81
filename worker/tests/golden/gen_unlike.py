"""What tells photos that resemble none of the classes, in f64 -> unlike.json.

Fold `f` of the inner folds holds out the photos whose number leaves the remainder `f`. What is minimised is that of gen_regression.py.
The energy is that of the mean logits of the views, and the distance is the least squared Mahalanobis distance of the mean vector of the
views, scaled to length 1, with one covariance that is shrunk as scikit-learn's `ledoit_wolf` does it.
"""
import json

import numpy as np

from formula import uniform
from gen_regression import solve, unit

CASES = [
    {"photos": 45, "strangers": 6, "features": 6, "views": 2, "classes": 3, "folds": 5, "lambda": 1e-3},
    {"photos": 24, "strangers": 4, "features": 40, "views": 1, "classes": 2, "folds": 3, "lambda": 1e-2},
]


def ledoit_wolf(rows):
    count, features = rows.shape
    squares = rows**2
    trace = squares.sum(axis=0) / count
    mu = trace.sum() / features
    beta_ = (squares.T @ squares).sum()
    delta_ = ((rows.T @ rows) ** 2).sum() / count**2
    beta = (beta_ / count - delta_) / (features * count)
    delta = (delta_ - 2.0 * mu * trace.sum() + features * mu**2) / features
    shrinkage = 0.0 if beta == 0 else min(beta, delta) / delta
    return (1.0 - shrinkage) * (rows.T @ rows / count) + shrinkage * mu * np.eye(features)


class Model:
    """Fitted on the photos `seen`; pooled features are [views, photos, features]."""

    def __init__(self, pooled, labels, seen, case):
        views, classes = case["views"], case["classes"]
        directions = unit(np.sqrt(pooled[:, seen].reshape(views * len(seen), -1)))
        self.mean = directions.mean(axis=0)
        self.weight, self.bias = solve(unit(directions - self.mean), np.tile(labels[seen], views), classes, case["lambda"])
        vectors = self.vectors(pooled, seen)
        self.means = np.stack([vectors[labels[seen] == label].mean(axis=0) for label in range(classes)])
        covariance = ledoit_wolf(vectors - self.means[labels[seen]]) + 1e-8 * np.eye(vectors.shape[1])
        self.precision = np.linalg.inv(covariance)

    def centred(self, pooled, photos):
        return np.stack([unit(unit(np.sqrt(view[photos])) - self.mean) for view in pooled])

    def vectors(self, pooled, photos):
        return unit(self.centred(pooled, photos).mean(axis=0))

    def energies(self, pooled, photos):
        logits = (self.centred(pooled, photos) @ self.weight.T + self.bias).mean(axis=0)
        return np.log(np.exp(logits).sum(axis=1))

    def distances(self, pooled, photos):
        off = self.vectors(pooled, photos)[:, None] - self.means
        return np.einsum("ncf,fg,ncg->nc", off, self.precision, off).min(axis=1)


def told(case):
    photos, strangers, features, views = (case[name] for name in ("photos", "strangers", "features", "views"))
    every = photos + strangers
    pooled = np.abs(uniform(f"pooled {views}", views * every * features)).astype(np.float32).astype(np.float64)
    pooled = pooled.reshape(views, every, features)
    labels = np.arange(photos) % case["classes"]
    # A photo has more of the feature of its class. Strangers have no class.
    for photo, label in enumerate(labels):
        pooled[:, photo, label] += 2.0
    train, new = np.arange(photos), np.arange(photos, every)
    energies, distances = [], []
    for fold in range(case["folds"]):
        model = Model(pooled, labels, train[train % case["folds"] != fold], case)
        held_out = train[train % case["folds"] == fold]
        energies.append(model.energies(pooled, held_out))
        distances.append(model.distances(pooled, held_out))
    energies, distances = np.concatenate(energies), np.concatenate(distances)
    standard = lambda values, of: (values - of.mean()) / of.std()
    familiar = standard(energies, energies) - standard(distances, distances)
    threshold = np.percentile(familiar, 5)
    model = Model(pooled, labels, train, case)
    of_new = model.energies(pooled, new), model.distances(pooled, new)
    scores = threshold - standard(of_new[0], energies) + standard(of_new[1], distances)
    return {
        **case,
        "energy": [energies.mean(), energies.std()],
        "distance": [distances.mean(), distances.std()],
        "threshold": threshold,
        "distances": of_new[1].tolist(),
        "scores": scores.tolist(),
    }


if __name__ == "__main__":
    with open("unlike.json", "w") as file:
        json.dump([told(case) for case in CASES], file, separators=(",", ":"))
