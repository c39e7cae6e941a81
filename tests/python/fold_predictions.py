#!/usr/bin/env python3
"""The bookkeeping of a comparison over folds.

    fold_predictions.py paths folds.csv FOLD                   path and digest of each photo of a fold, tab-separated
    fold_predictions.py collect folds.csv SEED PREDICTIONS...  hat's predictions of all folds as one CSV with labels

`folds.csv` has the columns path,class,digest,group,fold; predictions have digest,predicted,probability,error as
`hat classify --out` writes them. Collecting fails unless every photo of folds.csv is predicted exactly once.
"""

import csv
import sys


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def print_paths(folds, fold):
    for row in read(folds):
        if row["fold"] == fold:
            print(row["path"], row["digest"], sep="\t")


def collect(folds, seed, files):
    labels = {row["digest"]: row for row in read(folds)}
    predictions = {}
    for row in (row for path in files for row in read(path)):
        if row["digest"] in predictions or row["digest"] not in labels or row.get("error"):
            sys.exit(f"{row['path']}: predicted twice, not in {folds}, or failed: {row.get('error')}")
        predictions[row["digest"]] = row
    if labels.keys() - predictions.keys():
        sys.exit(f"{len(labels.keys() - predictions.keys())} photos of {folds} are not predicted")
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["digest", "path", "class", "fold", "seed", "predicted", "probability"])
    for digest, row in labels.items():
        prediction = predictions[digest]
        place = [digest, row["path"], row["class"], row["fold"], seed]
        writer.writerow([*place, prediction["predicted"], prediction["probability"]])


def main(arguments):
    if len(arguments) == 3 and arguments[0] == "paths":
        print_paths(arguments[1], arguments[2])
    elif len(arguments) >= 4 and arguments[0] == "collect":
        collect(arguments[1], arguments[2], arguments[3:])
    else:
        sys.exit(__doc__.strip())


if __name__ == "__main__":
    main(sys.argv[1:])
