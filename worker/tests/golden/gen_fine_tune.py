"""fastai's own fine_tune over fixed batches, without augmentation and dropout -> fine_tune.json.

80 photos, batches of 16, one frozen and three unfrozen epochs: 20 steps. Orders are the trainer's own (formula.order).
The reference is in f64. `drift` is how far fastai itself ends from it in f32, by the layout of memory: batch statistics
and Adam, which divides small gradients by their own size, amplify rounding. What is asked of our f32 rests on it.
"""
import json
import sys
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from fastai.vision.all import Adam, AvgLoss, Callback, DataLoader, DataLoaders, L, Learner, params

from formula import order, summary, uniform
from networks import build, convert

warnings.filterwarnings("ignore")
SEED, CLASSES, TRAIN, VALID, BATCH, SIZE, EPOCHS, RATE = 7, 4, 80, 8, 16, 64, 3, 5e-4
MEAN = {"efficientnet_lite0": [0.5] * 3, "resnet18": [0.485, 0.456, 0.406]}
STD = {"efficientnet_lite0": [0.5] * 3, "resnet18": [0.229, 0.224, 0.225]}


def photo(name):
    """8-bit `[3, size, size]`."""
    values = (uniform(name, SIZE * SIZE * 3) + 1.0) * 127.5
    return torch.from_numpy(np.floor(values)).float().reshape(SIZE, SIZE, 3).permute(2, 0, 1) / 255


class Batches:
    """Makes batches of normalised photos of one kind and layout."""

    def __init__(self, backbone, kind, layout):
        self.kind, self.layout = kind, layout
        self.mean, self.std = (torch.tensor(table[backbone]).to(kind).view(3, 1, 1) for table in (MEAN, STD))

    def __call__(self, purpose, indices):
        images = torch.stack([(photo(f"{purpose} {i}").to(self.kind) - self.mean) / self.std for i in indices])
        return images.to(memory_format=self.layout), torch.tensor([i % CLASSES for i in indices])


class Orders(Callback):
    """Hands out the trainer's batches: phase 0 is frozen, 1 unfrozen."""

    def __init__(self, batches):
        self.batches, self.phase, self.losses = batches, -1, []

    def before_fit(self):
        self.phase += 1

    def before_epoch(self):
        indices = order(SEED, self.phase, self.epoch, TRAIN)
        chunks = [indices[i:i + BATCH] for i in range(0, TRAIN, BATCH)]
        self.dls.train.dataset[:] = [self.batches("train", chunk) for chunk in chunks]

    def after_batch(self):
        if self.training:
            self.losses.append(self.loss.item())


def run(backbone, kind=torch.float64, layout=torch.contiguous_format):
    model, tensors = build(backbone, CLASSES)
    convert(tensors, kind, layout)
    batches = Batches(backbone, kind, layout)
    train = [batches("train", [0] * BATCH)] * (TRAIN // BATCH)
    valid = [batches("valid", list(range(VALID)))]
    loader = lambda batches: DataLoader(list(batches), bs=None, shuffle=False, num_workers=0)
    if backbone == "efficientnet_lite0":
        splitter = lambda m: L(m[0], m[1]).map(params)
    else:
        splitter = lambda m: L(m[0][:6], m[0][6:], m[1:]).map(params)
    orders = Orders(batches)
    # fastai's own CrossEntropyLossFlat casts f64 logits to f32, and is this otherwise.
    learner = Learner(DataLoaders(loader(train), loader(valid)), model, loss_func=F.cross_entropy, opt_func=Adam,
                      splitter=splitter, cbs=[orders])
    # The smoothed loss that is shown cannot average f64; it decides nothing.
    learner.recorder.smooth_loss = AvgLoss()
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(EPOCHS, base_lr=RATE)
        valid_loss = learner.validate()[0]
    return {"losses": orders.losses, "valid_loss": valid_loss, "final": {n: summary(n, t) for n, t in tensors}}


def drift(found, reference):
    """Largest deviation of a loss, and of a final tensor relative to its norm."""
    losses = zip(found["losses"] + [found["valid_loss"]], reference["losses"] + [reference["valid_loss"]])
    finals = [max(abs(a - b) for a, b in zip(found["final"][n], stored)) / max(stored[0], 1e-6)
              for n, stored in reference["final"].items()]
    return {"loss": max(abs(a - b) for a, b in losses), "final": max(finals)}


def reference(backbone):
    exact = run(backbone)
    single = {name: drift(run(backbone, torch.float32, layout), exact) for name, layout in
              {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}.items()}
    print(backbone, exact["losses"], exact["valid_loss"], single, file=sys.stderr)
    return exact | {"drift": single}


out = {"seed": SEED, "classes": CLASSES, "train": TRAIN, "valid": VALID, "batch": BATCH, "size": SIZE,
       "epochs": EPOCHS, "rate": RATE, "backbones": {backbone: reference(backbone) for backbone in MEAN}}
json.dump(out, open("fine_tune.json", "w"), indent=None, separators=(",", ":"))
