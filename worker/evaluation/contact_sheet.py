"""The contact sheet of an evaluation: clean image, adversarial image, amplified change, and who says what."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from worker.evaluation.block import Array
from worker.evaluation.gallery import Example

_TILE = 112  # pixels, at most, a side
_GAP, _MARGIN, _BETWEEN, _CAPTION, _HEAD = 4, 28, 28, 52, 96
_COLUMNS = 3
_INK, _QUIET, _EDGE = "#1a1a1a", "#6b6b6b", "#d0d0d0"
_RIGHT, _WRONG = "#0072B2", "#D55E00"  # blue and vermilion, which colour-blind readers can tell apart
_NORMS = {"linf": "L∞", "l2": "L2"}


@dataclass(frozen=True)
class Heading:
    """What the sheet says above the images."""

    title: str
    subtitle: str


def contact_sheet(shown: Sequence[Example], classes: Sequence[str], norm: str, heading: Heading) -> Image.Image:
    """An RGB picture with a card for each example. Changes are amplified by one factor, the same for all: the largest
    of them goes from black or to white."""
    tile = _tile_side(shown[0].clean) if shown else _TILE
    card = (3 * tile + 2 * _GAP, tile + _CAPTION)
    rows = max(1, -(-len(shown) // _COLUMNS))
    size = (
        2 * _MARGIN + _COLUMNS * card[0] + (_COLUMNS - 1) * _BETWEEN,
        _HEAD + rows * card[1] + (rows - 1) * _GAP * 4 + _MARGIN,
    )
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 22), _fit(heading.title, size[0] - 2 * _MARGIN, 19, bold=True), _INK, _font(19, bold=True))
    draw.text((_MARGIN, 50), _fit(heading.subtitle, size[0] - 2 * _MARGIN, 12), _QUIET, _font(12))
    if not shown:
        draw.text((_MARGIN, _HEAD), "no image is right unattacked: there is nothing to show", _INK, _font(13))
    gain = _gain(shown)
    for number, example in enumerate(shown):
        x = _MARGIN + number % _COLUMNS * (card[0] + _BETWEEN)
        y = _HEAD + number // _COLUMNS * (card[1] + _GAP * 4)
        if number < _COLUMNS:
            for place, name in enumerate(("clean", "adversarial", f"change × {gain:.3g}")):
                draw.text((x + place * (tile + _GAP), y - 18), name, _QUIET, _font(11))
        _card(sheet, draw, example, (x, y), tile, gain)
        _caption(draw, example, classes, norm, (x, y + tile + 6), card[0])
    return sheet


def _card(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, example: Example, corner: tuple[int, int], tile: int, gain: float
) -> None:
    change = 0.5 + gain * (example.adversarial.astype(np.float64) - example.clean)
    for place, pixels in enumerate((example.clean, example.adversarial, change)):
        left = corner[0] + place * (tile + _GAP)
        sheet.paste(_picture(pixels, tile), (left, corner[1]))
        draw.rectangle((left - 1, corner[1] - 1, left + tile, corner[1] + tile), outline=_EDGE)
    if example.answer != example.label:
        left = corner[0] + tile + _GAP
        draw.rectangle((left - 2, corner[1] - 2, left + tile + 1, corner[1] + tile + 1), outline=_WRONG, width=2)


def _caption(
    draw: ImageDraw.ImageDraw, example: Example, classes: Sequence[str], norm: str, corner: tuple[int, int], width: int
) -> None:
    x, y = corner
    before, after = classes[example.clean_answer], classes[example.answer]
    fooled = example.answer != example.label
    label = f"{before} → " if fooled else f"{before}, stands"
    draw.text((x, y), label := _fit(label, width // 2, 13), _INK if fooled else _RIGHT, _font(13))
    if fooled:
        start = x + int(_font(13).getlength(label))
        draw.text((start, y), _fit(after, width - (start - x), 13, bold=True), _WRONG, _font(13, bold=True))
    draw.text((x, y + 20), _fit(_facts(example, norm), width, 11), _QUIET, _font(11))


def _facts(example: Example, norm: str) -> str:
    row = example.verdict
    if row["attack"] is None:
        return "no attack did harm"
    size = f"{255 * row['linf']:.3g}/255" if norm == "linf" else f"{row['l2']:.3g}"
    similar = "" if row["ssim"] is None else f", SSIM {row['ssim']:.3f}"
    return f"{row['attack']}, {_NORMS[norm]} {size}{similar}, {row['correct_share']:.0%} right"


def _tile_side(image: Array) -> int:
    """A whole multiple of the image's longer side, so that its pixels stay square and equal."""
    side = max(image.shape[1:])
    return int(_TILE // side * side) if side <= _TILE else _TILE


def _picture(pixels: Array, tile: int) -> Image.Image:
    """(C, H, W) in [0, 1] -> a square of that side, the image in its middle."""
    values = (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
    array = np.repeat(values, 3, axis=0) if len(values) == 1 else values[:3]
    picture = Image.fromarray(np.ascontiguousarray(array.transpose(1, 2, 0)))
    factor = tile / max(picture.size)
    side = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    picture = picture.resize(side, Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX)
    square = Image.new("RGB", (tile, tile), "#f2f2f2")
    square.paste(picture, ((tile - side[0]) // 2, (tile - side[1]) // 2))
    return square


def _gain(shown: Sequence[Example]) -> float:
    largest = max((float(np.abs(e.adversarial - e.clean).max()) for e in shown), default=0.0)
    return 0.5 / largest if largest > 0 else 1.0


def _fit(text: str, width: float, size: int, *, bold: bool = False) -> str:
    """The text, cut short where it is wider."""
    font = _font(size, bold=bold)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


@lru_cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: Pillow's own font has few signs."""
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", f"DejaVuSans{'-Bold' if bold else ''}.ttf"), size)
