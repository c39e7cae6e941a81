"""What fastai's own Resize and RandomResizedCrop make of a synthetic picture -> crops.json.

The picture is that of gen_resize.py. fastai's draws are replaced by the uniform numbers that are stored beside the result:
`random.uniform(a, b)` becomes a + (b - a) * u, `random.randint(a, b)` a + floor(u * (b - a + 1)).
"""
import json
import random

import numpy as np
from fastai.vision.all import PILImage, RandomResizedCrop, Resize
from PIL import Image

from formula import uniform

SIZE = 24


def picture(width, height):
    x, y, c = np.meshgrid(np.arange(width), np.arange(height), np.arange(3), indexing="xy")
    pixels = ((x * 7 + y * 13 + c * 50 + x * y % 31) % 256).astype(np.uint8)
    return PILImage(Image.fromarray(pixels))


class Draws:
    """Stands in for the module `random`."""

    def __init__(self, name):
        self.all, self.used = [(float(u) + 1) / 2 for u in uniform(name, 64)], 0

    def next(self):
        self.used += 1
        return self.all[self.used - 1]

    def uniform(self, a, b):
        return a + (b - a) * self.next()

    def randint(self, a, b):
        return a + int(self.next() * (b - a + 1))


def case(kind, width, height, split, min_scale=None, number=0):
    transform = Resize(SIZE) if kind == "resize" else RandomResizedCrop(SIZE, min_scale=min_scale)
    draws = Draws(f"{kind} {width} {height} {number}")
    original = random.uniform, random.randint
    random.uniform, random.randint = draws.uniform, draws.randint
    image = transform(picture(width, height), split_idx=split)
    random.uniform, random.randint = original
    box = [int(v) for v in (*transform.tl, *transform.cp_size)] if kind != "resize" and split == 0 else None
    return {"kind": kind, "width": width, "height": height, "valid": split == 1, "min_scale": min_scale,
            "draws": draws.all[: draws.used], "box": box, "pixels": np.asarray(image).tobytes().hex()}


# 101 x 57 and 40 x 90 leave their aspect to chance; 200 x 20 never fits within ten tries at a scale of 1.
cases = [case("resize", w, h, 1) for w, h in [(101, 57), (40, 90), (13, 12)]]
cases += [case("random_resized", w, h, 1, 0.08) for w, h in [(101, 57), (40, 90), (13, 12)]]
cases += [case("random_resized", w, h, 0, scale, number) for number, (w, h, scale) in enumerate(
    [(101, 57, 0.08), (101, 57, 0.35), (40, 90, 0.08), (40, 90, 0.5), (13, 12, 0.08), (200, 20, 1.0), (20, 200, 1.0)])]
json.dump({"size": SIZE, "cases": cases}, open("crops.json", "w"), indent=None, separators=(",", ":"))
