"""The regression on features, solved by Newton's method -> regression.json.

Rows are the views of all photos, one view after the other. What is minimised is the mean cross entropy plus half of lambda times the
sum of the squared weights. The bias is free up to a constant for all classes; its mean is 0 here.
"""
import json

import numpy as np

from formula import uniform

CASES = [
    {"photos": 30, "features": 6, "views": 2, "classes": 3, "lambda": 1e-1},
    {"photos": 30, "features": 6, "views": 2, "classes": 3, "lambda": 1e-3},
    {"photos": 30, "features": 6, "views": 1, "classes": 3, "lambda": 1e-5},
    {"photos": 5, "features": 14, "views": 2, "classes": 2, "lambda": 1e-4},
    {"photos": 30, "features": 6, "views": 2, "classes": 3, "lambda": 1e-3, "weighted": True},
]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def softmax(logits):
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


def solve(rows, labels, classes, penalty, weights=None):
    """Weight [classes, features] and bias [classes] at the minimum, to the last digit."""
    count, features = rows.shape
    shares = np.full(count, 1 / count) if weights is None else weights / weights.sum()
    inputs = np.hstack([rows, np.ones((count, 1))])
    targets = np.eye(classes)[labels]
    point = np.zeros((classes, features + 1))
    shrink = np.append(np.full(features, penalty), 0.0)
    for _ in range(200):
        probabilities = softmax(inputs @ point.T)
        gradient = ((probabilities - targets) * shares[:, None]).T @ inputs + shrink * point
        hessian = np.einsum("n,nc,cd,ni,nj->cidj", shares, probabilities, np.eye(classes), inputs, inputs)
        hessian -= np.einsum("n,nc,nd,ni,nj->cidj", shares, probabilities, probabilities, inputs, inputs)
        hessian = hessian.reshape(point.size, point.size) + np.diag(np.tile(shrink, classes))
        step = np.linalg.lstsq(hessian, -gradient.ravel(), rcond=1e-12)[0].reshape(point.shape)
        loss = lambda at: -(shares * np.log(softmax(inputs @ at.T)[np.arange(count), labels])).sum() + (shrink * at * at).sum() / 2
        length = 1.0
        while loss(point + length * step) > loss(point) and length > 1e-6:
            length /= 2
        point = point + length * step
        if np.abs(gradient).max() < 1e-13:
            break
    assert np.abs(gradient).max() < 1e-11, gradient
    return point[:, :-1], point[:, -1] - point[:, -1].mean()


def solved(case):
    photos, features, views, classes = (case[name] for name in ("photos", "features", "views", "classes"))
    pooled = np.abs(uniform(f"pooled {views}", views * photos * features)).astype(np.float32).astype(np.float64).reshape(views * photos, features)
    chance = uniform("labels", photos)
    labels = [int((photo + (chance[photo] > 0.4)) % classes) for photo in range(photos)]
    directions = unit(np.sqrt(pooled))
    mean = directions.mean(axis=0)
    weights = np.abs(uniform("weights", photos)) if case.get("weighted") else None
    of_rows = None if weights is None else np.tile(weights, views)
    weight, bias = solve(unit(directions - mean), np.tile(labels, views), classes, case["lambda"], of_rows)
    return {**case, "labels": labels, "mean": mean.tolist(), "weight": weight.tolist(), "bias": bias.tolist()}


if __name__ == "__main__":
    with open("regression.json", "w") as file:
        json.dump([solved(case) for case in CASES], file, separators=(",", ":"))
