#!/usr/bin/env python3
"""Compare two classifiers photo by photo.

    paired_difference.py fastai.csv sortinghat.csv [--margin POINTS] [--first-column predicted_tta]

Both files hold a photo a row with the columns digest,class,predicted (further ones are ignored; several seeds are
averaged photo by photo). Printed are both accuracies with 95% Wilson intervals, the paired difference (second minus
first) with a 95% interval by the percentile bootstrap over photos, and the exact McNemar p-value. Where --folds names a
CSV of digest,group, whole groups of near-duplicates are drawn instead of photos, because they are right or wrong
together. With --margin, the exit code is 1 if the lower bound lies
below -POINTS. Needs only Python's standard library.
"""

import argparse
import collections
import csv
import math
import random
import statistics
import sys

Z_95 = 1.959963984540054
DRAWS = 10_000


def read_predictions(path, column="predicted"):
    """digest -> ((class, fold), [right or wrong for each seed]); the fold is None where the file has none."""
    with open(path, newline="") as file:
        photos = {}
        for row in csv.DictReader(file):
            place = (row["class"], row.get("fold"))
            known, right = photos.setdefault(row["digest"], (place, []))
            if known != place:
                sys.exit(f"{path}: {row['digest']} has class and fold {known} and {place}")
            right.append(row[column] == row["class"])
    return photos


def check_places(first, second):
    """Two classifiers can be compared only if each photo was held out from the same others."""
    moved = [digest for digest in first if first[digest][0] != second[digest][0]]
    if moved:
        sys.exit(f"{len(moved)} photos have another class or fold in the second file, such as {moved[0]}")


def read_groups(path, digests):
    """digest -> group; every photo its own group without a file."""
    if path is None:
        return {digest: digest for digest in digests}
    with open(path, newline="") as file:
        return {row["digest"]: row["group"] for row in csv.DictReader(file)}


def wilson(successes, trials):
    """The 95% Wilson score interval of a proportion."""
    share, z2 = successes / trials, Z_95 * Z_95
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z_95 / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    return centre - half, centre + half


def mcnemar_exact(only_first, only_second):
    """Two-sided exact McNemar p-value from the photos that only one of the two gets right."""
    discordant = only_first + only_second
    tail = sum(math.comb(discordant, count) for count in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**discordant)


def bootstrap_interval(differences, groups):
    """95% percentile interval of the mean difference over resampled groups, with a fixed seed."""
    sums = collections.defaultdict(lambda: [0.0, 0])
    for digest, difference in differences.items():
        sums[groups[digest]][0] += difference
        sums[groups[digest]][1] += 1
    clusters, generator, means = list(sums.values()), random.Random(0), []
    for _ in range(DRAWS):
        drawn = generator.choices(clusters, k=len(clusters))
        means.append(sum(total for total, _ in drawn) / sum(count for _, count in drawn))
    means.sort()
    return means[round(0.025 * DRAWS)], means[round(0.975 * DRAWS) - 1]


def accuracy_line(name, photos):
    """One line; with several seeds the interval is of the mean over seeds, with one trial a photo."""
    right = sum(statistics.fmean(outcomes) for _, outcomes in photos.values())
    low, high = wilson(right, len(photos))
    return f"{name:<24} {100 * right / len(photos):5.1f}%  [{100 * low:.1f}, {100 * high:.1f}]  {right:.0f} of {len(photos)}"


def compare(first, second, groups):
    """Prints the paired comparison and returns the interval's lower bound in points."""
    differences = {
        digest: statistics.fmean(second[digest][1]) - statistics.fmean(first[digest][1]) for digest in first
    }
    mean = statistics.fmean(differences.values())
    low, high = bootstrap_interval(differences, groups)
    print(f"{'paired difference':<24} {100 * mean:+5.1f} points  [{100 * low:+.1f}, {100 * high:+.1f}]"
          f"  (95%, percentile bootstrap, {len(set(groups[d] for d in first))} groups)")
    if all(len(outcomes) == 1 for photos in (first, second) for _, outcomes in photos.values()):
        only_first = sum(difference < 0 for difference in differences.values())
        only_second = sum(difference > 0 for difference in differences.values())
        print(f"{'exact McNemar p':<24} {mcnemar_exact(only_first, only_second):.3f}"
              f"  ({only_first} right only in the first, {only_second} only in the second)")
    return 100 * low


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--first-column", default="predicted", help="where the first file's predictions stand")
    parser.add_argument("--folds", help="CSV with digest,group: near-duplicates are resampled together")
    parser.add_argument("--margin", type=float, help="exit with 1 if the lower bound is below -MARGIN points")
    options = parser.parse_args()
    first, second = read_predictions(options.first, options.first_column), read_predictions(options.second)
    if first.keys() != second.keys():
        sys.exit(f"the files are about different photos: {len(first.keys() - second.keys())} are only in the first, "
                 f"{len(second.keys() - first.keys())} only in the second")
    check_places(first, second)
    print(accuracy_line(options.first, first))
    print(accuracy_line(options.second, second))
    low = compare(first, second, read_groups(options.folds, first))
    if options.margin is not None and low < -options.margin:
        sys.exit(1)


if __name__ == "__main__":
    main()
