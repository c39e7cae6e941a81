"""Which candidate is taken, by losses that `formula.uniform` gives -> comparison.json.

The standard error of a mean difference has the groups as clusters, with the factor groups / (groups - 1).
"""
import json

import numpy as np

from formula import uniform

CASES = [
    {"photos": 60, "groups": 23, "shifts": [0.02, 0.0]},
    {"photos": 60, "groups": 23, "shifts": [0.4, 0.0, 0.3]},
    {"photos": 120, "groups": 200, "shifts": [0.05, 0.03, 0.0]},
    {"photos": 120, "groups": 200, "shifts": [0.0, 0.3]},
]


def compared(case):
    photos = np.arange(case["photos"])
    groups = photos**2 % case["groups"]
    losses = np.stack([np.abs(uniform(f"losses {c}", len(photos))) + shift for c, shift in enumerate(case["shifts"])])
    means = losses.mean(axis=1)
    best = int(means.argmin())
    rows, taken = [], None
    for candidate, own in enumerate(losses):
        difference = own - losses[best]
        behind = difference.mean()
        sums = np.array([(difference - behind)[groups == group].sum() for group in np.unique(groups)])
        error = np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / len(photos)
        rows.append([means[candidate], behind, error])
        if taken is None and (candidate == best or behind < error):
            taken = candidate
    return {**case, "compared": rows, "taken": taken}


if __name__ == "__main__":
    with open("comparison.json", "w") as file:
        json.dump([compared(case) for case in CASES], file, separators=(",", ":"))
