"""The pages of architectures: the list, and one as a diagram and a table of its layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import Any

from app.dashboard.rendering import render
from app.domain.architectures import VARIANTS

SIZES = (8, 28, 32, 64, 96, 224)
ROW, GAP, TOP = 30, 12, 24  # of the diagram, in its units
_SHORTCUTS = ("shortcut", "downsample")
_STEPS = {"relu": "ReLU", "normalise": "normalise", "gain": "gain", "linear": "linear", "max pool": "max pool",
          "average pool": "average pool", "lif neurons": "LIF neurons", "paralif neurons": "ParaLIF neurons"}


@dataclass(frozen=True)
class Block:
    """What the diagram has a box for: a residual block, the stem, a layer of the decoder."""

    name: str
    part: str  # "layer2" for one of its blocks, else "stem", "pool", "decoder", "input"
    text: str
    output: str
    parameters: int
    multiply_adds: int
    residual: bool
    projection: bool  # the arc has a convolution of its own
    y: int = 0

    @property
    def middle(self) -> float:
        """Of its box."""
        return self.y + ROW / 2


@dataclass(frozen=True)
class Band:
    """Blocks of one part side by side: `depth` counts residual groups, 0 for what is none."""

    name: str
    depth: int
    top: int
    bottom: int


def list_page(items: Sequence[Mapping[str, Any]]) -> str:
    """All architectures with the weights on offer."""
    return render("architectures.html", items=items, variants=VARIANTS)


def architecture_page(shown: Mapping[str, Any], names: Sequence[str]) -> str:
    """One architecture in one variant at one size."""
    found = blocks(shown["layers"])
    return render(
        "architecture.html", a=shown, names=names, variants=VARIANTS, blocks=found, bands=bands(found),
        rows=rows_of(shown["layers"]), height=found[-1].y + ROW + TOP, row=ROW, gap=GAP, border=border(found),
        most=max(block.multiply_adds for block in found), sizes=sorted({*SIZES, shown["image_size"]}),
    )


def blocks(layers: Sequence[Mapping[str, Any]]) -> list[Block]:
    """The layer table put together block by block, from top to bottom."""
    grouped = [(name, list(rows)) for name, rows in groupby(layers, key=lambda layer: block_of(layer["name"]))]
    found: list[Block] = []
    y = TOP
    for number, (name, rows) in enumerate(grouped):
        part = part_of(name)
        if number and part != found[-1].part:
            y += GAP
        found.append(_block(name, part, rows, y))
        y += ROW + GAP
    return found


def block_of(name: str) -> str:
    """`"encoder.layer1.0.conv2"` -> `"layer1.0"`; a layer of the decoder stands for itself."""
    steps = name.split(".")
    if steps[0] == "decoder":
        return name
    return ".".join(steps[1:3]) if steps[1].startswith("layer") else steps[1]


def part_of(block: str) -> str:
    """`"layer1.0"` -> `"layer1"`."""
    return "input" if block == "normalize" else block.split(".")[0]


def _block(name: str, part: str, rows: Sequence[Mapping[str, Any]], y: int) -> Block:
    main = [row for row in rows if not _is_shortcut(row)]
    residual = part.startswith("layer")
    return Block(
        name=name.removeprefix("decoder."), part=part, text=_text(main), output=times(main[-1]["output_shape"]),
        parameters=sum(row["parameters"] for row in rows), multiply_adds=sum(row["multiply_adds"] for row in rows),
        residual=residual, projection=residual and len(main) < len(rows), y=y,
    )


def _is_shortcut(row: Mapping[str, Any]) -> bool:
    return any(f".{name}" in row["name"] for name in _SHORTCUTS)


def _text(rows: Sequence[Mapping[str, Any]]) -> str:
    """`"3×3, 3×3 /2"`: the convolutions with their stride; else what the layer is."""
    convolutions = [row for row in rows if row["kind"] == "convolution"]
    if not convolutions:
        return ", ".join(_STEPS.get(row["kind"], row["kind"]) for row in rows)
    pools = ["max pool" for row in rows if row["kind"] == "max pool"]
    return ", ".join([*map(_convolution, convolutions), *pools])


def _convolution(row: Mapping[str, Any]) -> str:
    stride = prod(row["stride"]) > 1
    return times(row["kernel"]) + (f" /{row['stride'][0]}" if stride else "")


def times(numbers: Sequence[int] | None) -> str:
    """`(16, 32, 32)` -> `"16×32×32"`, a dash for None."""
    return "–" if numbers is None else "×".join(map(str, numbers))


def bands(found: Sequence[Block]) -> list[Band]:
    """The residual groups, with how deep one freezes to keep each as it is."""
    grouped = [(part, list(of)) for part, of in groupby(found, key=lambda block: block.part)]
    return [
        Band(part, int(part.removeprefix("layer")), of[0].y, of[-1].y + ROW)
        for part, of in grouped if part.startswith("layer")
    ]


def border(found: Sequence[Block]) -> int:
    """Between encoder and decoder."""
    first = next(block for block in found if block.part == "decoder")
    return first.y - GAP


def rows_of(layers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The table's rows; `begins`: the first of its block."""
    found = []
    for number, layer in enumerate(layers):
        begins = number == 0 or block_of(layers[number - 1]["name"]) != block_of(layer["name"])
        shapes = {name: times(layer[name]) for name in ("kernel", "stride", "padding", "output_shape")}
        found.append({**layer, **shapes, "begins": begins, "decoder": layer["name"].startswith("decoder.")})
    return found
