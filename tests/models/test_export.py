"""Exported files answer as the network does, or are refused with the reason."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import export as exporting
from models.decoder import DecoderConfig
from models.export import ExportError, compare, export
from models.registry import Classifier, ModelSpec, build


def network(variant: str = "default", **decoder: str) -> Classifier:
    torch.manual_seed(0)
    config = DecoderConfig.from_dict(decoder) if decoder else None
    return build(ModelSpec("resnet20", variant, 10, (1, 8, 8), mean=(0.3,), std=(0.4,), decoder=config)).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_torch_file_answers_as_the_network_for_any_number_of_images(images: Tensor, tmp_path: Path) -> None:
    model, path = network(), tmp_path / "net.pt2"
    assert export(model, path, format="torch", part="network", images=images).same_first == 5
    program = torch.export.load(path).module()
    with torch.inference_mode():
        torch.testing.assert_close(program(images[:1]), model(images[:1]))
        torch.testing.assert_close(program(images.repeat(3, 1, 1, 1)), model(images.repeat(3, 1, 1, 1)))


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "part"), [("default", "network"), ("paralif", "expected"), ("lif", "encoder")])
def test_an_onnx_file_answers_as_the_part_for_any_number_of_images(
    variant: str, part: str, images: Tensor, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model, path = network(variant), tmp_path / "net.onnx"
    assert export(model, path, format="onnx", part=part, images=images).difference < 1e-4
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        wanted = exporting.part_of(model, part)(images[:1])
    torch.testing.assert_close(torch.from_numpy(session.run(None, {"images": images[:1].numpy()})[0]), wanted,
                               rtol=1e-3, atol=1e-4)  # fmt: skip


@pytest.mark.parametrize(
    ("variant", "decoder", "part", "reason"),
    [
        ("lif", {}, "network", "at random.*try --part encoder$"), ("lif", {}, "expected", "no closed form"),
        ("paralif", {}, "network", "--part encoder or --part expected"),
        ("paralif", {"spike_mode": "SD"}, "network", "try --part encoder$"),
        ("paralif", {"spike_mode": "SD"}, "expected", "no closed form"),
    ],
)
def test_what_an_exported_file_could_not_repeat_is_refused(
    variant: str, decoder: dict[str, str], part: str, reason: str, images: Tensor, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=reason):
        export(network(variant, **decoder), tmp_path / "net.pt2", format="torch", part=part, images=images)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_answers_otherwise_is_not_kept(
    images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.pt2").write_bytes(b"the last good one")
    wrong = exporting.part_of(network(), "network")
    monkeypatch.setattr(exporting, "_write_torch", lambda module, path, images: path.write_bytes(b"wrong"))
    monkeypatch.setattr(exporting, "_run_torch", lambda path, images: wrong(images) * 1.001)
    with pytest.raises(ExportError, match="answers otherwise than the network"):
        export(network(), tmp_path / "net.pt2", format="torch", part="network", images=images)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the last good one"]


def test_not_a_number_is_never_near() -> None:
    assert not compare(torch.tensor([[float("nan"), 1.0]]), torch.tensor([[0.0, 1.0]]), 1.0).holds
    with pytest.raises(ExportError, match="shape"):
        compare(torch.zeros(1, 2), torch.zeros(1, 3), 1.0)
