"""Weights from elsewhere: nothing but what fits exactly gets into a network."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from models.foreign import LARGEST_HEADER, ForeignWeightsError, check_finite, fill, match, open_tensors
from models.registry import build


@pytest.fixture
def state(spec):
    return build(spec()).state_dict()


def faults(spec, state, path) -> list[str]:
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    try:
        with open_tensors(path) as tensors:
            check_finite(tensors, match(spec, tensors))
    except ForeignWeightsError as error:
        return error.faults
    return []


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_torchvision_s_layout_gives_torchvision_s_logits(spec, tmp_path, architecture, stem):
    published = models.get_model(architecture, weights=None, num_classes=10)
    if stem == "cifar":
        published.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
        published.maxpool = torch.nn.Identity()
    save_file(published.state_dict(), tmp_path / "file")
    model = build(spec(architecture, stem=stem, mean=(0.0,) * 3, std=(1.0,) * 3)).eval()
    with open_tensors(tmp_path / "file") as tensors:
        assert tensors.stem_convolution == tuple(published.conv1.weight.shape)
        fill(model, tensors, match(model.spec, tensors))
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model(x), published.eval()(x))


@pytest.mark.parametrize("variant", ["default", "lif", "paralif"])
def test_our_own_names_fit_every_variant(spec, tmp_path, variant):
    assert faults(spec(variant=variant), build(spec(variant=variant)).state_dict(), tmp_path / "file") == []


def test_each_fault_is_told_with_the_first_tensors_it_is_about(spec, state, tmp_path):
    last = state.pop("encoder.layer3.2.bn2.weight")
    state["encoder.layer9.weight"] = last
    state["encoder.stem.conv1.weight"] = torch.zeros(16, 3, 5, 5)
    state["encoder.stem.bn1.weight"] = torch.zeros(16, dtype=torch.int32)
    assert faults(spec(), state, tmp_path / "file") == [
        "1 tensor missing: encoder.layer3.2.bn2.weight",
        "1 tensor not of a resnet20 default: encoder.layer9.weight",
        "1 tensor of another shape: encoder.stem.conv1.weight is (16, 3, 5, 5), not (16, 3, 3, 3)",
        "1 tensor of another type: encoder.stem.bn1.weight is I32",
    ]


def test_missing_tensors_are_named_as_the_file_would_name_them(spec, tmp_path):
    published = models.resnet18(weights=None, num_classes=10).state_dict()
    for name in ("fc.bias", "bn1.weight", "layer1.0.conv1.weight", "layer2.0.conv1.weight"):
        del published[name]
    [fault] = faults(spec("resnet18", stem="imagenet"), published, tmp_path / "file")
    assert fault == "4 tensors missing: bn1.weight, layer1.0.conv1.weight, layer2.0.conv1.weight, ..."


@pytest.mark.parametrize("variant", ["default", "lif", "paralif"])
def test_another_number_of_classes_is_told_as_such(spec, tmp_path, variant):
    found = faults(spec(variant=variant, classes=7), build(spec(variant=variant)).state_dict(), tmp_path / "file")
    assert "the weights are for 10 classes, not 7" in found


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_numbers_that_are_not_finite_as_float32_are_refused(spec, state, tmp_path, value):
    state["decoder.linear.bias"] = torch.tensor([0.0] * 9 + [value], dtype=torch.float64)
    assert faults(spec(), state, tmp_path / "file") == ["1 tensor not finite: decoder.linear.bias"]


def test_the_counters_of_batch_norm_may_be_missing_but_nothing_else(spec, state, tmp_path):
    kept = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    assert len(kept) < len(state)
    assert faults(spec(), kept, tmp_path / "file") == []


def test_a_specification_that_claims_a_huge_network_costs_no_memory(spec, state, tmp_path):
    huge = spec("resnet50", classes=100_000)
    found = faults(huge, state, tmp_path / "file")
    assert any("missing" in fault for fault in found)


@pytest.mark.parametrize(
    "content", [b"", b"text", b"{}", b"\x80\x02}q\x00.", b"PK\x03\x04zip", struct.pack("<Q", 5) + b"{"]
)
def test_what_is_no_safetensors_is_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ForeignWeightsError, match="safetensors"), open_tensors(tmp_path / "file"):
        pass


def test_a_pickle_is_named_and_the_way_round_it(tmp_path):
    torch.save({}, tmp_path / "file")
    with pytest.raises(ForeignWeightsError, match="spikeproof import"), open_tensors(tmp_path / "file"):
        pass


def test_an_endless_header_is_not_read(tmp_path):
    content = b"{" + b" " * LARGEST_HEADER
    (tmp_path / "file").write_bytes(struct.pack("<Q", len(content)) + content)
    with pytest.raises(ForeignWeightsError, match="at most 1048576"), open_tensors(tmp_path / "file"):
        pass


def test_safetensors_that_begin_like_a_pickle_are_safetensors(tmp_path):
    header = json.dumps({"x": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}).encode().ljust(640)
    (tmp_path / "file").write_bytes(struct.pack("<Q", 640) + header + bytes(4))
    with open_tensors(tmp_path / "file") as tensors:
        assert tensors.shapes == {"x": ()}
    assert (tmp_path / "file").read_bytes()[:2] == b"\x80\x02"


def test_a_truncated_file_is_damaged(spec, state, tmp_path):
    save_file(state, tmp_path / "file")
    (tmp_path / "file").write_bytes((tmp_path / "file").read_bytes()[:-1])
    with pytest.raises(ForeignWeightsError, match="damaged"), open_tensors(tmp_path / "file"):
        pass


@pytest.mark.parametrize("wrapped", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_state_dicts_are_found_where_people_put_them(spec, state, tmp_path, wrapped, prefix):
    torch.save(wrapped({prefix + name: value for name, value in state.items()}), tmp_path / "file")
    with open_tensors(tmp_path / "file", pickled=True) as tensors:
        model = build(spec())
        fill(model, tensors, match(spec(), tensors))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path):
    torch.save({"conv1.weight": Harmful(tmp_path / "touched")}, tmp_path / "file")
    with (
        pytest.raises(ForeignWeightsError, match="which could run code") as refused,
        open_tensors(tmp_path / "file", pickled=True),
    ):
        pass
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3, "w": torch.zeros(1)}, "text"])
def test_a_pickle_without_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "file")
    with (
        pytest.raises(ForeignWeightsError, match=r"state.dict"),
        open_tensors(tmp_path / "file", pickled=True),
    ):
        pass
