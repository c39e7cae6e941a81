"""Compares our decoding with Pillow's, for every file in a folder, and prints counts.

    make compare-decoding DIR=photos

same: both decode the file, and no sample differs by more than rounding explains. differs: both decode it, to other pixels. only we, only
they: one decodes it and the other does not. neither: none does, or Pillow takes it for a format that sortinghat does not read. Each file
that is not the same is named. The stored picture of each photo that we decode, as a dataset would keep it, is opened in Pillow, too.
"""

import io
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from gen_pillow_images import FORMATS, upright_rgb

LOSSY = {"JPEG", "MPO", "TIFF"}
# Inverse transforms and interpolation round differently; elsewhere samples of more than 8 bits do.
LOSSY_TOLERANCE, EXACT_TOLERANCE = 4, 1


class Decoder:
    """Our decoder, in a process that answers path after path."""

    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def decode(self, path):
        """Pixels and the stored picture, or None and the reason of the refusal."""
        self.process.stdin.write(f"{path}\n".encode())
        self.process.stdin.flush()
        outcome, _, rest = self.process.stdout.readline().decode().strip().partition(" ")
        if outcome != "photo":
            return None, f"{outcome}: {rest}"
        width, height, stored = map(int, rest.split())
        pixels = np.frombuffer(self.process.stdout.read(width * height * 3), np.uint8).reshape(height, width, 3)
        return pixels, self.process.stdout.read(stored)


def pillows(path):
    """Pixels and the format, or None and the reason of the refusal."""
    try:
        with Image.open(path) as image:
            if image.format not in FORMATS:
                return None, f"a format that is not read here: {image.format}"
            return np.asarray(upright_rgb(image)), image.format
    except Exception as error:  # Pillow's plugins raise nearly everything
        return None, type(error).__name__


def opens(stored):
    """Whether Pillow opens and loads a picture."""
    try:
        Image.open(io.BytesIO(stored)).load()
        return True
    except Exception:  # as above
        return False


def verdict(ours, theirs, kind):
    """The count to which a file belongs, and what is to be said about it; `kind` is Pillow's name of the format."""
    if ours is None or theirs is None:
        return {(True, True): "neither", (True, False): "only they", (False, True): "only we"}[ours is None, theirs is None], ""
    if ours.shape != theirs.shape:
        return "differs", f"{ours.shape[1]} x {ours.shape[0]} here, {theirs.shape[1]} x {theirs.shape[0]} in Pillow"
    worst = int(np.abs(ours.astype(np.int16) - theirs).max())
    if worst > (LOSSY_TOLERANCE if kind in LOSSY else EXACT_TOLERANCE):
        return "differs", f"a sample by {worst} of 255"
    return "same", ""


def main():
    program, folder = sys.argv[1], Path(sys.argv[2])
    warnings.simplefilter("ignore")
    decoder, counts, unopened = Decoder(program), Counter(), 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and "\n" not in str(path)):
        (ours, said), (theirs, kind) = decoder.decode(path), pillows(path)
        count, detail = verdict(ours, theirs, kind)
        counts[count] += 1
        if count == "only they":
            detail = said
        elif count == "only we":
            detail = kind
        if count in ("differs", "only we", "only they"):
            print(f"{count}: {path.relative_to(folder)} ({detail})")
        if ours is not None and not opens(said):
            unopened += 1
            print(f"stored picture that Pillow does not open: {path.relative_to(folder)}")
    print(", ".join(f"{count} {counts[count]}" for count in ("same", "differs", "only we", "only they", "neither")))
    print(f"stored pictures that Pillow does not open: {unopened}")


if __name__ == "__main__":
    main()
