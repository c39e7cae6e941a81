"""fastai's MixUp and CutMix callbacks with fixed draws -> mixing.json."""
import json
from types import SimpleNamespace

import torch
from fastai.callback.mixup import CutMix, MixUp
from fastai.losses import CrossEntropyLossFlat, LabelSmoothingCrossEntropy

from formula import uniform

SHUFFLE, TARGETS, EPS = [2, 0, 1], [0, 3, 1], 0.1
LAMBDA = torch.tensor([0.1, 0.55, 0.7])
images = torch.from_numpy(uniform("images", 3 * 3 * 6 * 8)).float().reshape(3, 3, 6, 8)
logits = torch.from_numpy(uniform("logits", 3 * 4)).float().reshape(3, 4)


def blended(callback, lam, smoothed):
    """What the callback makes of the batch, and its loss."""
    callback.distrib = SimpleNamespace(sample=lambda shape: lam)
    learn = SimpleNamespace(xb=(images.clone(),), yb=(torch.tensor(TARGETS),), training=True)
    learn.loss_func = LabelSmoothingCrossEntropy(EPS) if smoothed else CrossEntropyLossFlat()
    learn.x, learn.y = learn.xb[0], learn.yb[0]
    callback.learn = learn
    callback.before_train()
    permutation, torch.randperm = torch.randperm, lambda count: torch.tensor(SHUFFLE)
    callback.before_batch()
    torch.randperm = permutation
    loss = callback.lf(logits, *learn.yb)
    kept = callback.lam.expand(3) if callback.lam.dim() else callback.lam.repeat(3)
    return {"images": learn.xb[0].flatten().tolist(), "loss": loss.item(), "kept": kept.tolist()}


def boxes():
    """Where CutMix pastes, by lambda and centre."""
    for seed in range(12):
        lam = torch.tensor([(seed + 0.5) / 12])
        torch.manual_seed(seed)
        column, row = torch.randint(0, 8, (1,)).item(), torch.randint(0, 6, (1,)).item()
        torch.manual_seed(seed)
        cutmix = CutMix()
        cutmix.learn = SimpleNamespace(x=images)
        left, top, right, bottom = (edge.item() for edge in cutmix.rand_bbox(8, 6, lam))
        yield {"lambda": lam.item(), "column": column, "row": row, "left": left, "top": top, "right": right,
               "bottom": bottom}


def cutmix(smoothed):
    torch.manual_seed(7)
    box = CutMix()
    box.learn = SimpleNamespace(x=images)
    edges = [edge.item() for edge in box.rand_bbox(8, 6, torch.tensor([0.6]))]
    torch.manual_seed(7)
    return blended(CutMix(), torch.tensor([0.6]), smoothed) | {"box": edges}


out = {"shuffle": SHUFFLE, "targets": TARGETS, "eps": EPS, "boxes": list(boxes()),
       "mixup": blended(MixUp(), LAMBDA, False), "mixup_smoothed": blended(MixUp(), LAMBDA, True),
       "cutmix": cutmix(False), "cutmix_smoothed": cutmix(True)}
json.dump(out, open("mixing.json", "w"), indent=None, separators=(",", ":"))
