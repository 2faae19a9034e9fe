from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from app.domain.attacks import ATTACKS
from app.domain.protocol import Protocol
from app.domain.suites import Stage
from worker.evaluation import BlockResult, evaluate_block
from worker.jobs.block_files import DAMAGED, KeptImages, leave_images, read_block, save_adversarial, save_arrays


class Linear(nn.Module):
    stochastic = False

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 16, generator=torch.Generator().manual_seed(1)))

    def encoder(self, x):
        return x.flatten(1)

    def decoder(self, features, *, draws=1, generator=None):
        return (features @ self.weight.T).expand(draws, -1, -1)


@pytest.fixture(scope="module")
def protocol() -> Protocol:


    return Protocol(
        dataset="x", fingerprint="", norm="linf", eps=(Fraction(1, 100), Fraction(1, 5)), suite="custom",
        suite_version=1, survivors=True, stages=(Stage("pgd", ATTACKS["pgd"].resolve({"steps": 5})),), images=12,
        diagnostics="rows",
    )


@pytest.fixture(scope="module")
def blocks(protocol: Protocol) -> list[BlockResult]:
    images = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    model = Linear()
    labels = model.decoder(model.encoder(images))[0].argmax(1)
    return [
        evaluate_block(model, images[ids], labels[ids], ids, protocol=protocol, seed=0)
        for ids in torch.arange(12).split(5)
    ]


@pytest.fixture
def stored(blocks: list[BlockResult], tmp_path: Path) -> list[BlockResult]:
    """In files, as a job has them."""
    found = []
    for number, block in enumerate(blocks):
        save_arrays(tmp_path / f"{number}.npz", block.to_arrays())
        found.append(leave_images(block, tmp_path / f"{number}.npz"))
    return found


def test_a_stored_block_is_the_block_but_for_its_images_which_it_reads(
    blocks: list[BlockResult], stored: list[BlockResult], tmp_path: Path
) -> None:
    for number, (block, left) in enumerate(zip(blocks, stored, strict=True)):
        read = read_block(tmp_path / f"{number}.npz")
        for found in (left, read):
            assert isinstance(found.adversarial, KeptImages)
            assert len(found.adversarial) == len(block.adversarial)
            for field in fields(BlockResult):
                one, other = (np.asarray(getattr(b, field.name)) for b in (found, block))
                np.testing.assert_array_equal(one, other, err_msg=field.name)
                assert one.dtype == other.dtype
    assert sum(len(block.adversarial) for block in blocks) > 3
    clean = np.zeros((5, 1, 4, 4), np.float32)
    whole = blocks[0].images(clean, radius=1)
    np.testing.assert_array_equal(stored[0].images(clean, radius=1), whole)
    np.testing.assert_array_equal(stored[0].images(clean[:2], radius=1, rows=np.array([4, 1])), whole[[4, 1]])


def test_all_adversarial_images_are_joined_from_the_files_and_equal_content_is_an_equal_file(
    blocks: list[BlockResult], stored: list[BlockResult], protocol: Protocol, tmp_path: Path
) -> None:
    save_adversarial(tmp_path / "one.npz", stored, protocol)
    save_adversarial(tmp_path / "two.npz", blocks, protocol)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with np.load(tmp_path / "one.npz") as joined:
        assert set(joined) == {"ids", "labels", "eps", "images", "index"}
        np.testing.assert_array_equal(joined["images"], np.concatenate([b.adversarial for b in blocks]))
        assert joined["images"].dtype == np.float32
        assert joined["eps"].tolist() == ["1/100", "1/5"]
        assert joined["ids"].tolist() == list(range(12))
        clean = np.zeros((12, 1, 4, 4), np.float32)
        for radius in range(2):
            worst = np.concatenate([
                b.images(clean[: len(b.ids)], radius=radius) for b in blocks
            ])
            index = joined["index"][radius]
            np.testing.assert_array_equal(joined["images"][index[index >= 0]], worst[index >= 0])
            assert not worst[index < 0].any()


def test_where_nothing_was_changed_there_are_no_images(
    stored: list[BlockResult], protocol: Protocol, tmp_path: Path
) -> None:


    bare = [
        replace(b, adversarial=np.empty((0, 1, 4, 4), np.float32), adversarial_index=np.full((2, len(b.ids)), -1))
        for b in stored
    ]
    save_adversarial(tmp_path / "none.npz", bare, protocol)
    with np.load(tmp_path / "none.npz") as joined:
        assert joined["images"].shape == (0, 1, 4, 4)


def test_a_damaged_block_is_told(stored: list[BlockResult], tmp_path: Path) -> None:
    path = tmp_path / "0.npz"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DAMAGED):
        read_block(path)
    path.unlink()
    with pytest.raises(DAMAGED):
        read_block(path)
