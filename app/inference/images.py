"""Images from outside, decoded safely: PNG and JPEG only, bounded pixels, as the network's native shape."""

import io
import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from app.domain.errors import InvalidInput, Problem, UnsupportedMedia

MAX_PIXELS = 16_000_000
FORMATS = ("PNG", "JPEG")
_BIT_DEPTH = 24  # of a PNG's header, which comes first, the byte with the bits a channel
# What Pillow raises for files that are broken, and for those that would be far too large.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def decode_image(content: bytes, shape: tuple[int, int, int], name: str = "the image") -> np.ndarray:
    """PNG or JPEG bytes -> float32 (C, H, W) in [0, 1], the way up that its EXIF orientation says, resized (bilinear)
    where its size differs; `name` for errors.

    Raises UnsupportedMedia for another format, a broken file, or what has no one answer: more than 8 bits a channel,
    which Pillow clips or cuts off, and transparent pixels, whose colour nobody sees. InvalidInput for too many pixels.
    """
    channels, height, width = shape
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(f"{name} has {image.width}x{image.height} pixels")
            _refuse_ambiguous(image, content, name)
            upright = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
            if upright.size != (width, height):
                upright = upright.resize((width, height), Image.Resampling.BILINEAR)
    except _BOMBS as error:
        raise _too_large(f"{name} has too many pixels") from error
    except UnidentifiedImageError as error:
        raise UnsupportedMedia(f"{name} is of another format; send PNG or JPEG") from error
    except _UNREADABLE as error:
        raise UnsupportedMedia(f"{name} cannot be read: it is broken or cut short; send a whole PNG or JPEG") from error
    pixels = np.asarray(upright, np.float32).reshape(height, width, channels) / 255
    return pixels.transpose(2, 0, 1)


def _refuse_ambiguous(image: Image.Image, content: bytes, name: str) -> None:
    if image.format == "PNG" and content[_BIT_DEPTH] > 8:
        raise UnsupportedMedia(f"{name} has more than 8 bits a channel; save it with 8")
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise UnsupportedMedia(f"{name} has transparent pixels; save it on an opaque background")


def _too_large(what: str) -> InvalidInput:
    return InvalidInput([Problem("/images", f"{what}; at most {MAX_PIXELS:,} are allowed")])


def read_pixels(pixels: Any, shape: tuple[int, int, int], index: int) -> np.ndarray:
    """JSON numbers (C, H, W), or (H, W) for one channel, in [0, 1] -> float32 (C, H, W). Raises InvalidInput."""
    pointer = f"/images/{index}"
    found = _nested_shape(pixels)
    allowed = [shape] + ([shape[1:]] if shape[0] == 1 else [])
    if found not in allowed:
        detail = f"must be nested lists of shape {' or '.join(map(str, allowed))}, not {found}"
        raise InvalidInput([Problem(pointer, detail)])
    try:
        array = np.asarray(pixels)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidInput([Problem(pointer, "must hold numbers in 0..1, in lists of equal length")]) from error
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise InvalidInput([Problem(pointer, "must hold numbers in 0..1")])
    return array.astype(np.float32).reshape(shape)


def _nested_shape(value: Any) -> tuple[int, ...]:
    shape: list[int] = []
    while isinstance(value, Sequence) and not isinstance(value, str) and len(shape) < 4:
        shape.append(len(value))
        value = value[0] if len(value) else None
    return tuple(shape) if math.prod(shape) else (0,)
