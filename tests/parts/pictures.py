"""Pictures of every sort that a model app may be sent: honest ones, odd ones, and bombs."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def scene(width: int = 96, height: int = 64) -> Image.Image:
    """A picture in which no two corners are alike."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([across, down, 255 - across], axis=-1).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The bytes of a file of this kind."""
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def turned(image: Image.Image, orientation: int) -> bytes:
    """A JPEG whose EXIF says how it must be turned to be looked at as `image` is."""
    back = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image if back is None else image.transpose(back), "JPEG", quality=95, exif=exif)


def png(width: int, height: int, kind: int = 2, depth: int = 8, content: bytes = b"", more: bytes = b"") -> bytes:
    """A PNG that says it has this size, over whatever content."""
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + more + _chunk(b"IDAT", zlib.compress(content)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bombs() -> dict[str, bytes]:
    """Forty files that would cost much more than they weigh, or that no decoder should believe."""
    small = encoded(scene())
    jpeg, gif, webp = encoded(scene(), "JPEG"), encoded(scene(), "GIF"), encoded(scene(), "WEBP")
    found = {f"png of {side} pixels a side": png(side, side) for side in (8_000, 20_000, 30_001, 65_535, 1 << 20, (1 << 31) - 1)}
    found |= {f"png as wide as {width}": png(width, 1) for width in (30_001, 1 << 24, (1 << 31) - 1)}
    found |= {f"real png of {w} x {h}, kind {k}": png(w, h, k, d, bytes(_row(w, k, d) * h)) for w, h, k, d in _REAL}
    found["no pixels"] = png(0, 0)
    found["palette without colours"] = png(64, 64, 3, 8, bytes(65 * 64))
    text = zlib.compress(bytes(64 * 1024 * 1024))
    found["text that swells"] = png(8, 8, 2, 8, bytes(25 * 8), _chunk(b"zTXt", b"Comment\0\0" + text))
    found["international text that swells"] = png(8, 8, 2, 8, bytes(25 * 8), _chunk(b"iTXt", b"k\0\1\0\0\0" + text))
    found["profile that swells"] = png(8, 8, 2, 8, bytes(25 * 8), _chunk(b"iCCP", b"icc\0\0" + text))
    found["too many chunks"] = png(8, 8, 2, 8, bytes(25 * 8), _chunk(b"tEXt", b"k\0v") * 200_000)
    found |= {f"jpeg of {w} x {h}": _sized_jpeg(jpeg, w, h) for w, h in ((65_500, 65_500), (65_500, 8), (20_000, 20_000), (6_000, 6_000))}
    found |= {f"gif of {w} x {h}": gif[:6] + struct.pack("<HH", w, h) + gif[10:] for w, h in ((65_535, 65_535), (30_000, 1_000))}
    found["gif of many frames"] = _many_frames("GIF")
    found["webp of many frames"] = _many_frames("WEBP")
    found["webp of a large canvas"] = _large_webp()
    found["webp cut off"] = webp[: len(webp) // 2]
    found |= {f"cut off after {part} of 8": jpeg[: len(jpeg) * part // 8] for part in (1, 3, 5, 7)}
    found["png cut off"] = small[: len(small) // 2]
    found["svg"] = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="file:///etc/passwd"/></svg>'
    found["postscript"] = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"
    found["tiff"] = encoded(scene(), "TIFF")
    found["bmp"] = encoded(scene(), "BMP")
    found["pickle"] = b"cos\nsystem\n(S'touch /tmp/modelyard-canary'\ntR."
    found["zip"] = b"PK\x03\x04" + bytes(64)
    return found


_REAL = ((6_000, 6_000, 2, 8), (5_000, 4_000, 6, 8), (6_000, 6_000, 0, 16), (4_000, 4_000, 6, 16), (9_000, 9_000, 0, 1))


def _row(width: int, kind: int, depth: int) -> bytearray:
    channels = {0: 1, 2: 3, 3: 1, 6: 4}[kind]
    return bytearray(1 + (width * channels * depth + 7) // 8)


def _sized_jpeg(jpeg: bytes, width: int, height: int) -> bytes:
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def _many_frames(kind: str) -> bytes:
    frames = [Image.new("RGB", (64, 64), (number % 256, 0, 0)) for number in range(300)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def _large_webp() -> bytes:
    return encoded(Image.new("RGB", (6_000, 4_000), "red"), "WEBP", lossless=True, quality=0)
