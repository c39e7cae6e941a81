"""fastai's own fine_tune over fixed batches, without augmentation and dropout -> fine_tune.json.

80 photos, batches of 16, one frozen and three unfrozen epochs: 20 steps. The learning rate is a quarter of the default:
at the full rate two f32 programs drift apart by rounding alone within ten steps. Orders are the trainer's own (formula.order).
"""
import json
import sys
import warnings

import numpy as np
import torch
from fastai.vision.all import (Adam, Callback, CrossEntropyLossFlat, DataLoader, DataLoaders, L, Learner, params)

from formula import order, summary, uniform
from networks import build

warnings.filterwarnings("ignore")
SEED, CLASSES, TRAIN, VALID, BATCH, SIZE, EPOCHS, RATE = 7, 4, 80, 8, 16, 64, 3, 5e-4
MEAN = {"efficientnet_lite0": [0.5] * 3, "resnet18": [0.485, 0.456, 0.406]}
STD = {"efficientnet_lite0": [0.5] * 3, "resnet18": [0.229, 0.224, 0.225]}


def photo(name):
    """8-bit `[3, size, size]`."""
    values = (uniform(name, SIZE * SIZE * 3) + 1.0) * 127.5
    return torch.from_numpy(np.floor(values)).float().reshape(SIZE, SIZE, 3).permute(2, 0, 1) / 255


def batch(backbone, kind, indices):
    mean, std = (torch.tensor(table[backbone]).view(3, 1, 1) for table in (MEAN, STD))
    images = torch.stack([(photo(f"{kind} {i}") - mean) / std for i in indices])
    return images, torch.tensor([i % CLASSES for i in indices])


class Orders(Callback):
    """Hands out the trainer's batches: phase 0 is frozen, 1 unfrozen."""

    def __init__(self, backbone):
        self.backbone, self.phase, self.losses = backbone, -1, []

    def before_fit(self):
        self.phase += 1

    def before_epoch(self):
        indices = order(SEED, self.phase, self.epoch, TRAIN)
        chunks = [indices[i:i + BATCH] for i in range(0, TRAIN, BATCH)]
        self.dls.train.dataset[:] = [batch(self.backbone, "train", chunk) for chunk in chunks]

    def after_batch(self):
        if self.training:
            self.losses.append(self.loss.item())


def run(backbone):
    model, tensors = build(backbone, CLASSES)
    train = [batch(backbone, "train", [0] * BATCH)] * (TRAIN // BATCH)
    valid = [batch(backbone, "valid", list(range(VALID)))]
    loader = lambda batches: DataLoader(list(batches), bs=None, shuffle=False, num_workers=0)
    if backbone == "efficientnet_lite0":
        splitter = lambda m: L(m[0], m[1]).map(params)
    else:
        splitter = lambda m: L(m[0][:6], m[0][6:], m[1:]).map(params)
    orders = Orders(backbone)
    learner = Learner(DataLoaders(loader(train), loader(valid)), model, loss_func=CrossEntropyLossFlat(),
                      opt_func=Adam, splitter=splitter, cbs=[orders])
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(EPOCHS, base_lr=RATE)
        valid_loss = learner.validate()[0]
    return {"losses": orders.losses, "valid_loss": valid_loss, "final": {n: summary(n, t) for n, t in tensors}}


out = {"seed": SEED, "classes": CLASSES, "train": TRAIN, "valid": VALID, "batch": BATCH, "size": SIZE,
       "epochs": EPOCHS, "rate": RATE, "backbones": {backbone: run(backbone) for backbone in MEAN}}
for backbone, result in out["backbones"].items():
    print(backbone, result["losses"], result["valid_loss"], file=sys.stderr)
json.dump(out, open("fine_tune.json", "w"), indent=None, separators=(",", ":"))
