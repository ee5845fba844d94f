"""Reads images that nobody vouches for: known formats only, bounded in bytes, pixels and memory, the right way up, in RGB."""

import ctypes
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
from PIL import Image, ImageOps
from problems import Problem

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
MIB = 1024 * 1024
MOST_BYTES = 20 * MIB
MOST_PIXELS = 40_000_000
MOST_SIDE = 30_000
MOST_MEMORY = 192 * MIB
"""Of all images that are decoded at the same time; one that needs more than this is refused."""
BIG_JPEG_PIXELS = 4_000_000
"""Above this a JPEG is decoded at a half, a quarter or an eighth of its size: the network sees 224 pixels of it."""
BIG_JPEG_SIDE = 1024

# Bytes for each pixel while it is decoded, the picture in memory (4) and its copy in RGB (4) among them: measured, rounded up.
_COST = {"JPEG": 8, "PNG": 9, "GIF": 9, "WEBP": 17}
_COEFFICIENTS = 6
"""Bytes for each pixel of a progressive JPEG, at whatever size it is decoded."""
_MMAP_THRESHOLD, _GIVEN_BACK_BYTES = -3, 1 << 20
"""Memory of this size and above goes back to the system as soon as it is free (mallopt(3), M_MMAP_THRESHOLD)."""

_ORIENTATION, _TURNED = 0x0112, range(5, 9)
"""The EXIF tag, and those of its values that exchange width and height."""

with suppress(AttributeError, OSError):  # another C library gives back by rules of its own
    ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _GIVEN_BACK_BYTES)

Image.MAX_IMAGE_PIXELS = None  # pixels are counted below, before anything is decoded


class Budget:
    """Lets so much be in use at once; who asks for more waits."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._changed = threading.Condition()

    @contextmanager
    def spent(self, amount: int) -> Iterator[None]:
        """Hold this much of it for the length of the block."""
        with self._changed:
            self._changed.wait_for(lambda: self._left >= amount)
            self._left -= amount
        try:
            yield
        finally:
            with self._changed:
                self._left += amount
                self._changed.notify_all()


_memory = Budget(MOST_MEMORY)


def read_picture(content: bytes) -> tuple[Image.Image, tuple[int, int]]:
    """The image in RGB, the right way up, and its width and height as it is looked at; of an animation the first frame.

    What is transparent lies on white. Sixteen bits a channel become eight.

    Raises:
        Problem: It is no image of a known format, is broken, or too large.
    """
    if not content:
        raise Problem(422, "image_empty", "The image has no bytes.", "Send the bytes of a JPEG, PNG, WEBP or GIF file.")
    if len(content) > MOST_BYTES:
        raise Problem(413, "image_too_large", f"The image has more than {MOST_BYTES // MIB} MiB.", "Send a smaller one.")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            full = image.size
            with _memory.spent(_checked(image)):
                return _upright_rgb(image, full)
    except Problem:
        raise
    except Exception as error:
        raise _unreadable(error) from error


def _checked(image: Image.Image) -> int:
    """The bytes of memory that decoding will take."""
    pixels = image.width * image.height
    if pixels > MOST_PIXELS or max(image.size) > MOST_SIDE:
        detail = f"The image has {image.width} x {image.height} pixels; the most is {MOST_PIXELS // 1_000_000} megapixels."
        raise Problem(413, "too_many_pixels", detail, "Send it scaled down.")
    kind = image.format or ""
    if kind == "JPEG" and pixels > BIG_JPEG_PIXELS:
        image.draft("RGB", (BIG_JPEG_SIDE, BIG_JPEG_SIDE))
        needed = image.width * image.height * _COST[kind] + (pixels * _COEFFICIENTS if image.info.get("progressive") else 0)
    else:
        needed = pixels * _COST.get(kind, max(_COST.values()))
    if needed > MOST_MEMORY:
        detail = (
            f"Decoding {pixels / 1e6:.0f} megapixels of {kind} takes {needed // MIB} MiB of memory; the most is {MOST_MEMORY // MIB} MiB."
        )
        raise Problem(413, "too_many_pixels", detail, "Send it scaled down, or as JPEG.")
    return needed


def _upright_rgb(image: Image.Image, full: tuple[int, int]) -> tuple[Image.Image, tuple[int, int]]:
    image.load()
    try:
        lies_down = image.getexif().get(_ORIENTATION, 1) in _TURNED
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # noqa: BLE001 - what cannot be read of EXIF says nothing, and the picture is good
        lies_down = False
    return _rgb(image), full[::-1] if lies_down else full


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image  # `convert` would copy every pixel
    if image.mode.startswith(("I;16", "I")):
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        ground = Image.new("RGB", seen.size, "white")
        ground.paste(seen, mask=seen.getchannel("A"))
        return ground
    return image.convert("RGB")


def _unreadable(error: Exception) -> Problem:
    why = "it is no JPEG, PNG, WEBP or GIF" if "cannot identify" in str(error) else "its bytes are broken or cut off"
    return Problem(422, "image_unreadable", f"The image cannot be read: {why}.", "Send the whole bytes of a JPEG, PNG, WEBP or GIF file.")
