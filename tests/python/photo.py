"""Reads a photo the way ingest does: first frame, upright, composited over white, RGB of 8 bits."""

from PIL import Image, ImageOps


def open_over_white(path):
    """The photo at `path` as an upright RGB `PIL.Image.Image` whose transparency shows white."""
    with Image.open(path) as opened:
        opened.seek(0)
        image = ImageOps.exif_transpose(opened)
        image.load()
    if image.mode.startswith("I"):
        image = image.point(lambda value: value / 257).convert("L")
    if "A" in image.getbands() or "transparency" in image.info:
        pixels = image.convert("RGBA")
        white = Image.new("RGBA", pixels.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, pixels).convert("RGB")
    return image.convert("RGB")
