#!/usr/bin/env python3
"""Makes photos for tests, with nothing but Python itself.

photos.py FOLDER PER_CLASS     FOLDER/CLASS/NUMBER.png of three classes
"""

import pathlib
import random
import struct
import sys
import zlib

# Which channel of red, green and blue is bright.
TINTS = {"blue": 2, "green": 1, "red": 0}


def write_photos(folder, per_class, side=64):
    """Writes photos whose class is the colour of their tint: random blocks, so that no two are near-duplicates."""
    for tint, channel in TINTS.items():
        (folder / tint).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            (folder / tint / f"{number:03}.png").write_bytes(png(f"{tint}/{number}", channel, side))
    return folder


def png(seed, channel, side):
    """A PNG of random blocks in which one channel is bright."""
    dice, block = random.Random(seed), side // 4
    cells = [[[dice.randrange(120) + 135 * (each == channel) for each in range(3)] for _ in range(4)] for _ in range(4)]
    row = lambda y: b"\0" + bytes(value for x in range(side) for value in cells[y // block][x // block])
    pixels = zlib.compress(b"".join(row(y) for y in range(side)))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


if __name__ == "__main__":
    write_photos(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
