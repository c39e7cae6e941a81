"""Writes what Pillow makes of its own test images, for the formats that this project reads.

    python gen_pillow_images.py ~/.cache/sortinghat/pillow-images ../data/pillow.csv

Columns: file; outcome (`decoded` or `refused`, with animation and pages reduced to the first); width and height of the
upright picture; `thumb`, the means of a 4 x 4 grid of cells over it, red green blue each, in hexadecimal; and `samples`, the
same of single pixels: for k from 0 to 31 the one with index (k * 2654435761 + 12345) % (width * height), row by row.

16-bit grey is scaled to 8 bits before anything else, because Pillow's own conversion clips it at 255.
"""

import csv
import sys
import warnings
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps

FORMATS = {"JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF"}
GRID = 4
SAMPLES = 32


def upright_rgb(image):
    """The first frame, upright, opaque over white, 8 bits a channel."""
    image.load()
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        grey = ((wide + 128) // 257).astype(np.uint8)
        opaque = np.where(wide == image.info.get("transparency", -1), 0, 255).astype(np.uint8)
        image = Image.fromarray(np.dstack([grey, opaque]), "LA")
    image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        ground.alpha_composite(image)
        image = ground
    return image.convert("RGB")


def thumb(image):
    """Means of the cells of the grid, cell borders at floor(side * k / GRID); a cell is at least one pixel."""
    pixels = np.asarray(image).astype(np.float64)
    height, width = pixels.shape[:2]
    values = []
    for row in range(GRID):
        for column in range(GRID):
            top, left = height * row // GRID, width * column // GRID
            bottom, right = max(height * (row + 1) // GRID, top + 1), max(width * (column + 1) // GRID, left + 1)
            values += list(pixels[top:bottom, left:right].mean((0, 1)))
    return "".join(f"{round(value):02x}" for value in values)


def samples(image):
    """Single pixels, spread over the picture."""
    pixels = np.asarray(image).reshape(-1, 3)
    return "".join(pixels[(k * 2654435761 + 12345) % len(pixels)].tobytes().hex() for k in range(SAMPLES))


def rows(folder):
    """A row for each file that Pillow takes for one of our formats."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        try:
            with Image.open(path) as image:
                if image.format not in FORMATS:
                    continue
                mode = image.mode
                upright = upright_rgb(image)
            yield name, "decoded", mode, upright.width, upright.height, thumb(upright), samples(upright)
        except PIL.UnidentifiedImageError:
            continue
        except Exception as error:  # Pillow's plugins raise nearly everything
            yield name, "refused", type(error).__name__, "", "", "", ""


def main():
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = 20_000_000  # above twice that it refuses, as some of the files ask for
    with target.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["file", "outcome", "mode", "width", "height", "thumb", "samples"])
        writer.writerows(rows(folder))


if __name__ == "__main__":
    main()
