#!/usr/bin/env python3
"""Times what `make bench` and `hat finetune` do, in Python, on a GPU: fastai's fine_tune(5), and steps of plain PyTorch.

    time_on_gpu.py --folds folds.csv --photos DIR --weights efficientnet_lite0.safetensors

fastai reads the photos from their files with its own number of workers, in f32 as it comes and in bf16; fold 0 is held out.
PyTorch's batches are 64 photos of 224 pixels, as it starts (NCHW, f32) and tuned (NHWC, bf16 autocast, fused AdamW).
Runs in the environment of compare_fastai.py.
"""

import argparse
import statistics
import time
from pathlib import Path

import timm
import torch
import torchvision
from fastai.vision.all import (
    CategoryBlock,
    DataBlock,
    ImageBlock,
    IndexSplitter,
    Normalize,
    Resize,
    accuracy,
    aug_transforms,
    vision_learner,
)

from compare_fastai import BACKBONE, load_backbone, read_folds

BATCH, SIDE, STEPS, ROUNDS = 64, 224, 100, 3


def build_learner(rows, photos, weights):
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_x=lambda row: photos / row["path"],
        get_y=lambda row: row["class"],
        splitter=IndexSplitter([index for index, row in enumerate(rows) if row["fold"] == "0"]),
        item_tfms=Resize(SIDE),
        batch_tfms=[*aug_transforms(), Normalize.from_stats([0.5] * 3, [0.5] * 3)],
    )
    learner = vision_learner(block.dataloaders(rows, bs=BATCH), BACKBONE, pretrained=False, metrics=accuracy)
    load_backbone(learner.model[0].model, weights)
    return learner


def time_fastai(options):
    rows = read_folds(options.folds, None)
    for precision in ("f32", "bf16"):
        learner = build_learner(rows, Path(options.photos), options.weights)
        if precision == "bf16":
            learner.to_bf16()
        started = time.monotonic()
        with learner.no_bar():
            learner.fine_tune(5)
        print(f"fastai {precision}: fine_tune(5) took {time.monotonic() - started:.1f} s", flush=True)


def rate(work, name, tuned):
    """Photos a second; the pixels are copied to the GPU as bytes in every step."""
    network = timm.create_model(name, num_classes=2) if name == BACKBONE else torchvision.models.resnet34(num_classes=2)
    network = network.cuda().train(work == "train")
    if tuned:
        network = network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), fused=tuned)
    pixels = torch.randint(0, 255, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8)
    labels = torch.zeros(BATCH, dtype=torch.long).cuda()

    def step():
        images = pixels.cuda().float().div_(255)
        if tuned:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(work == "train"), torch.autocast("cuda", torch.bfloat16, enabled=tuned):
            logits = network(images).float()
        if work == "predict":
            return logits.softmax(-1).cpu()
        loss = torch.nn.functional.cross_entropy(logits, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    for _ in range(3):
        step()
    started = time.monotonic()
    for _ in range(STEPS):
        step()
    return STEPS * BATCH / (time.monotonic() - started)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folds", required=True, help="CSV: path,class,digest,group,fold")
    parser.add_argument("--photos", required=True, help="folder that the paths are relative to")
    parser.add_argument("--weights", required=True, help="EfficientNet-Lite0 as safetensors")
    options = parser.parse_args()
    time_fastai(options)
    for work, name in (("train", BACKBONE), ("predict", BACKBONE), ("predict", "resnet34")):
        for tuned in (False, True):
            median = statistics.median(rate(work, name, tuned) for _ in range(ROUNDS))
            print(f"PyTorch {'tuned' if tuned else 'stock'}: {work} {name} {median:.0f} photos/s", flush=True)


if __name__ == "__main__":
    main()
