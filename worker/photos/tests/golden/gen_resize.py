"""Writes what Pillow's resampling gives for small synthetic pictures.

    python gen_resize.py ../data/resize.csv

The picture of `w` x `h` has the value (x * 7 + y * 13 + c * 50 + x * y % 31) % 256 in column x, row y, channel c. `fastai` is the
centre square, bilinear to s x s; `imagenet` is the short side to s with bicubic, then the centre t x t.
"""

import csv
import sys

import numpy as np
from PIL import Image


def picture(width, height):
    x, y, c = np.meshgrid(np.arange(width), np.arange(height), np.arange(3), indexing="xy")
    return Image.fromarray(((x * 7 + y * 13 + c * 50 + x * y % 31) % 256).astype(np.uint8))


def fastai(image, size):
    width, height = image.size
    scale = min(width / size, height / size)
    side = int(scale * size)
    left, top = int(0.5 * (width - side)), int(0.5 * (height - side))
    return image.crop((left, top, left + side, top + side)).resize((size, size), Image.BILINEAR)


def imagenet(image, short, crop):
    width, height = image.size
    size = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    image = image.resize(size, Image.BICUBIC)
    left, top = (int(round((side - crop) / 2.0)) for side in image.size)
    return image.crop((left, top, left + crop, top + crop))


with open(sys.argv[1], "w", newline="") as out:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["kind", "width", "height", "size", "crop", "pixels"])
    for width, height in [(101, 57), (40, 90), (13, 12)]:
        image = picture(width, height)
        writer.writerow(["fastai", width, height, 24, 24, fastai(image, 24).tobytes().hex()])
        writer.writerow(["imagenet", width, height, 24, 21, imagenet(image, 24, 21).tobytes().hex()])
