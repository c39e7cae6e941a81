"""fastai's MixUp and CutMix with fixed draws -> mixing.json."""
import json

import torch
import torch.nn.functional as F
from fastai.callback.mixup import CutMix

from formula import uniform

images = torch.from_numpy(uniform("images", 3 * 3 * 6 * 8)).float().reshape(3, 3, 6, 8)
logits = torch.from_numpy(uniform("logits", 3 * 4)).float().reshape(3, 4)
targets, shuffle = torch.tensor([0, 3, 1]), torch.tensor([2, 0, 1])
lam = torch.tensor([0.9, 0.55, 0.7])
each = lambda y: F.cross_entropy(logits, y, reduction="none")
blend = {"shuffle": shuffle.tolist(), "targets": targets.tolist(), "lambda": lam.tolist()}
blend["images"] = torch.lerp(images[shuffle], images, lam.view(-1, 1, 1, 1)).flatten().tolist()
blend["loss"] = torch.lerp(each(targets[shuffle]), each(targets), lam).mean().item()


class Fixed(CutMix):
    x = images


boxes = []
for seed in range(12):
    lam = torch.tensor([(seed + 0.5) / 12])
    torch.manual_seed(seed)
    column, row = torch.randint(0, 8, (1,)).item(), torch.randint(0, 6, (1,)).item()
    torch.manual_seed(seed)
    left, top, right, bottom = (edge.item() for edge in Fixed().rand_bbox(8, 6, lam))
    boxes.append({"lambda": lam.item(), "column": column, "row": row, "left": left, "top": top, "right": right,
                  "bottom": bottom})
json.dump({"mixup": blend, "cutmix": boxes}, open("mixing.json", "w"), indent=None, separators=(",", ":"))
