"""Writes the checksum of what Pillow decodes from the files of the JPEG matrix.

    mkdir matrix
    SORTINGHAT_WRITE_MATRIX=matrix cargo nextest run -p sortinghat-photos --test jpeg_matrix --no-fail-fast
    python gen_jpeg_matrix.py matrix ../data/jpeg_matrix.csv

Columns: picture, and the CRC-32 of its RGB pixels in hexadecimal. All files of a picture must give the same pixels, whatever their
layout. The script needs Pillow with libjpeg-turbo.
"""

import csv
import sys
import zlib
from pathlib import Path

from PIL import Image, ImageChops, features


def main():
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    assert features.check("libjpeg_turbo"), "this Pillow has another JPEG library"
    checksums = {}
    for path in sorted(folder.glob("*.jpg")):
        color, sampling, size, layout, _ = path.stem.split("_")
        picture = f"{color}_{sampling}_{size}" + ("_incomplete" if layout.endswith("incomplete") else "")
        with Image.open(path) as image:
            if image.mode == "CMYK" and "adobe" not in image.info:
                # Pillow takes all inks for inverted, though only Adobe's applications store them so.
                image = ImageChops.invert(image)
            checksum = zlib.crc32(image.convert("RGB").tobytes())
        known = checksums.setdefault(picture, checksum)
        assert known == checksum, f"{path} shows another picture than the files before it"
    with target.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["picture", "crc32"])
        writer.writerows((picture, f"{checksum:08x}") for picture, checksum in checksums.items())


main()
