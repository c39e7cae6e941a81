#!/usr/bin/env python3
"""Fine-tune EfficientNet-Lite0 with fastai on given folds and keep what it predicts for every photo.

    compare_fastai.py --folds folds.csv --photos DIR --weights efficientnet_lite0.safetensors --out predictions.csv

`folds.csv` has the columns path,class,digest,group,fold (paths relative to DIR). Each fold is predicted by a model
that trained on the other folds, so every photo is predicted once by a model that has not seen it. The recipe is
fastai's own: Resize(224), aug_transforms(), batch 64, vision_learner, fine_tune(5), its defaults untouched.

The output has one row a photo: digest,path,class,fold,seed,predicted,predicted_tta,p_<class>...; a fold that it
already holds is not trained again, so an interrupted run goes on where it stopped.

Needs fastai 2.8.12, timm and safetensors. On a CPU, MALLOC_MMAP_THRESHOLD_=8589934592,
MALLOC_TRIM_THRESHOLD_=8589934592 and MALLOC_TOP_PAD_=268435456 in the environment halve its time.
"""

import argparse
import csv
import os
import sys
import time
from pathlib import Path

import numpy as np
import timm
import torch
from fastai.vision.all import (
    CategoryBlock,
    DataBlock,
    ImageBlock,
    IndexSplitter,
    L,
    Normalize,
    PILImage,
    Resize,
    accuracy,
    aug_transforms,
    set_seed,
    vision_learner,
)
from safetensors.torch import load_file

from photo import open_over_white

BACKBONE = "tf_efficientnet_lite0"


def load_backbone(body, weights):
    """Copies the original implementation's tensors into timm's network: both list the same layers in the same
    order, under other names. The stem, blocks and head are matched by order of depth, checked by shape."""
    source = load_file(weights)
    ours = [name for name in body.state_dict() if not name.endswith("num_batches_tracked")]
    theirs = [name for name in original_order(source) if not name.startswith("_fc.")]
    if len(ours) != len(theirs):
        raise SystemExit(f"{weights} has {len(theirs)} tensors where {BACKBONE} has {len(ours)}")
    state = {}
    for mine, original in zip(ours, theirs):
        if body.state_dict()[mine].shape != source[original].shape:
            raise SystemExit(f"{original} does not fit {mine}: {source[original].shape}")
        state[mine] = source[original]
    missing = body.load_state_dict(state, strict=False)
    if any(not name.endswith("num_batches_tracked") for name in missing.missing_keys) or missing.unexpected_keys:
        raise SystemExit(f"weights do not fit: {missing}")


def original_order(source):
    """The tensor names in the order in which the network runs through them."""
    layers = ["_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
    tensors = ["weight", "bias", "running_mean", "running_var"]

    def present(prefix):
        return [f"{prefix}.{tensor}" for tensor in tensors if f"{prefix}.{tensor}" in source]

    blocks = 1 + max(int(name.split(".")[1]) for name in source if name.startswith("_blocks."))
    prefixes = ["_conv_stem", "_bn0"]
    prefixes += [f"_blocks.{block}.{layer}" for block in range(blocks) for layer in layers]
    prefixes += ["_conv_head", "_bn1", "_fc"]
    return [name for prefix in prefixes for name in present(prefix)]


def read_folds(path, limit):
    """The rows of folds.csv; with `limit`, only that many of each class and fold."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    if limit is None:
        return rows
    seen, kept = {}, []
    for row in rows:
        key = (row["class"], row["fold"])
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= limit:
            kept.append(row)
    return kept


def build_learner(rows, photos, weights, fold, batch):
    """A fastai learner that trains on every fold but `fold` and validates on it."""
    decoded = {row["path"]: np.asarray(open_over_white(photos / row["path"])) for row in rows}
    image = ImageBlock()
    image.type_tfms = L(lambda row: PILImage.create(decoded[row["path"]]))
    block = DataBlock(
        blocks=(image, CategoryBlock),
        get_y=lambda row: row["class"],
        splitter=IndexSplitter([index for index, row in enumerate(rows) if row["fold"] == fold]),
        item_tfms=Resize(224),
        # What vision_learner adds for pretrained timm networks; here the weights come from a file instead of the hub.
        batch_tfms=[*aug_transforms(), Normalize.from_stats([0.5] * 3, [0.5] * 3)],
    )
    loaders = block.dataloaders(rows, bs=batch, num_workers=0)
    learner = vision_learner(loaders, BACKBONE, pretrained=False, metrics=accuracy)
    load_backbone(learner.model[0].model, weights)
    # Another order of the same numbers in memory: 1.7 times as fast on a CPU, still f32.
    return learner.to_channelslast(use_amp=False)


def predict_fold(rows, options, fold, seed):
    """Trains without `fold` and predicts it: the output rows."""
    set_seed(seed, reproducible=True)
    learner = build_learner(rows, Path(options.photos), options.weights, fold, options.batch)
    with learner.no_bar():
        learner.fine_tune(options.epochs)
        plain, _ = learner.get_preds()
        averaged, _ = learner.tta()
    names = list(learner.dls.vocab)
    held_out = [row for row in rows if row["fold"] == fold]
    for row, probabilities, tta in zip(held_out, plain, averaged, strict=True):
        yield {
            **{column: row[column] for column in ("digest", "path", "class", "fold")},
            "seed": seed,
            "predicted": names[int(probabilities.argmax())],
            "predicted_tta": names[int(tta.argmax())],
            **{f"p_{name}": f"{value:.6f}" for name, value in zip(names, probabilities.tolist())},
        }


def append(path, rows):
    """Appends one finished fold; a crash before this keeps the earlier folds and loses only this one."""
    fresh = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        if fresh:
            writer.writeheader()
        writer.writerows(rows)
        file.flush()
        os.fsync(file.fileno())


def finished(path):
    """The (fold, seed) pairs that the output already holds."""
    if not path.exists():
        return set()
    with open(path, newline="") as file:
        return {(row["fold"], row["seed"]) for row in csv.DictReader(file)}


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folds", required=True, help="CSV: path,class,digest,group,fold")
    parser.add_argument("--photos", required=True, help="folder that the paths are relative to")
    parser.add_argument("--weights", required=True, help="EfficientNet-Lite0 as safetensors")
    parser.add_argument("--out", required=True, type=Path, help="CSV of predictions, appended fold by fold")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seeds", default="1", help="comma-separated; each repeats all folds")
    parser.add_argument("--limit", type=int, help="photos of each class and fold, for a quick try")
    return parser.parse_args()


def main():
    options = parse_options()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rows = read_folds(options.folds, options.limit)
    done = finished(options.out)
    for seed in options.seeds.split(","):
        for fold in sorted({row["fold"] for row in rows}, key=int):
            if (fold, seed) in done:
                continue
            started = time.monotonic()
            predicted = list(predict_fold(rows, options, fold, int(seed)))
            append(options.out, predicted)
            right = sum(row["predicted"] == row["class"] for row in predicted)
            seconds = time.monotonic() - started
            print(f"seed {seed} fold {fold}: {right} of {len(predicted)} right, {seconds:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
