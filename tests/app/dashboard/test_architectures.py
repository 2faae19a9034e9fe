"""The diagram is the layer table, put together block by block."""

from typing import Any

import pytest

from app.dashboard.architectures import bands, blocks, border, rows_of
from models.registry import ModelSpec, build
from models.summary import layer_table, totals

SPECS = [("resnet20", "lif", "cifar", 3, 9, 3), ("resnet18", "paralif", "imagenet", 4, 8, 3),
         ("resnet50", "default", "imagenet", 4, 16, 4)]  # fmt: skip


def layers(architecture: str, variant: str, stem: str) -> tuple[list[dict[str, Any]], Any]:
    grey = (0.5,) * 3
    table = layer_table(build(ModelSpec(architecture, variant, 10, (3, 32, 32), mean=grey, std=grey, stem=stem)))
    return [vars(layer) for layer in table], totals(table)


@pytest.mark.parametrize(("architecture", "variant", "stem", "groups", "residual", "projections"), SPECS)
def test_every_layer_is_in_one_block(architecture, variant, stem, groups, residual, projections) -> None:
    table, together = layers(architecture, variant, stem)
    found = blocks(table)
    assert sum(block.parameters for block in found) == together.parameters
    assert sum(block.multiply_adds for block in found) == together.multiply_adds
    assert sum(block.residual for block in found) == residual
    # ResNet-20 and -18 widen in all groups but the first; ResNet-50 in all of them
    assert sum(block.projection for block in found) == projections - (architecture == "resnet20")
    assert [band.depth for band in bands(found)] == list(range(1, groups + 1))
    assert sum(row["begins"] for row in rows_of(table)) == len(found)


def test_boxes_stand_below_each_other_and_the_border_before_the_decoder() -> None:
    table, _ = layers("resnet18", "paralif", "imagenet")
    found = blocks(table)
    tops = [block.y for block in found]
    assert tops == sorted(set(tops))
    assert {block.part for block in found if block.y > border(found)} == {"decoder"}
    texts = {block.name: block.text for block in found}
    assert texts["stem"] == "7×7 /2, max pool"
    assert texts["layer2.0"] == "3×3 /2, 3×3"
    assert texts["paralif"] == "ParaLIF neurons"
