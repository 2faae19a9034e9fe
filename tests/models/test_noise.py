import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models import noise
from models.noise import KeyedNoise, image_keys, philox, uniform

ROOT = Path(__file__).parents[2]
IDS = torch.tensor([5, 17, 3, 99, 4])


def keys(ids=IDS, **changes):
    return image_keys(**{"seed": 0, "stream": "pgd", "step": 0, **changes}, ids=ids)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0x00000000, 0x00000000), 0x00000000, (0xFF1DAE59, 0x6CD10DF2)),
        ((0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFF, (0x2C3F628B, 0xAB4FD7AD)),
        ((0x243F6A88, 0x85A308D3), 0x13198A2E, (0xDD7CE038, 0xF62A4C12)),
    ],
)
def test_philox_gives_the_known_answers_of_its_authors(counter, key, expected):
    low, high, key = (torch.tensor([value]) for value in (*counter, key))
    assert tuple(word.item() for word in philox(low, high, key)) == expected


def test_an_image_has_its_numbers_in_every_batch_and_order():
    whole = KeyedNoise(keys()).uniform(4, 5, 20, 7)
    part = KeyedNoise(keys(IDS[[3, 0]])).uniform(4, 2, 20, 7)
    assert torch.equal(part, whole[:, [3, 0]])
    alone = KeyedNoise(keys(IDS[2:3])).uniform(4, 1, 20, 7)
    assert torch.equal(alone, whole[:, 2:3])


def test_fewer_draws_are_the_first_of_more():
    assert torch.equal(KeyedNoise(keys()).uniform(8, 5, 9), KeyedNoise(keys()).uniform(32, 5, 9)[:8])


def test_numbers_do_not_depend_on_the_chunks_they_are_made_in(monkeypatch):
    expected = KeyedNoise(keys()).uniform(3, 5, 7, 11)
    for blocks in (1, 5, 64):
        monkeypatch.setattr(noise, "_BLOCKS_AT_ONCE", blocks)
        assert torch.equal(KeyedNoise(keys()).uniform(3, 5, 7, 11), expected)


def test_calls_differ_and_repeat_in_order():
    first, second = KeyedNoise(keys()), KeyedNoise(keys())
    a, b = first.uniform_per_image(50), first.uniform_per_image(50)
    assert not torch.equal(a, b)
    assert torch.equal(second.uniform_per_image(50), a)
    assert torch.equal(second.uniform_per_image(50), b)


def test_selected_images_go_on_with_their_own_numbers():
    whole = KeyedNoise(keys())
    whole.uniform_per_image(3)
    part = whole.select(torch.tensor([True, False, True, False, False]))
    assert torch.equal(part.uniform_per_image(6, 2), whole.uniform_per_image(6, 2)[[0, 2]])


@pytest.mark.parametrize("changes", [{"seed": 1}, {"stream": "noise"}, {"stream": 0}, {"step": 1}])
def test_each_part_of_a_key_changes_all_keys(changes):
    assert not (keys() == keys(**changes)).any()


def test_keys_and_numbers_are_the_same_in_another_process():
    code = (
        "import torch; from models.noise import *;"
        "k = image_keys(7, 'square', torch.tensor([1, 2]), step=3);"
        "print(k.tolist(), KeyedNoise(k).uniform_per_image(2).tolist())"
    )
    k = image_keys(7, "square", torch.tensor([1, 2]), step=3)
    here = f"{k.tolist()} {KeyedNoise(k).uniform_per_image(2).tolist()}"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert there.stdout.strip() == here
    assert k.tolist() == [-107904263459836720, -276538821009168936]


@pytest.fixture(scope="module")
def sample():
    """(call, image, position): 2 x 400 x 500 numbers of neighbouring ids."""
    source = KeyedNoise(image_keys(0, "statistics", torch.arange(400)))
    return torch.stack([source.uniform_per_image(500), source.uniform_per_image(500)]).double()


def test_numbers_are_uniform(sample):
    assert sample.min() >= 0
    assert sample.max() < 1
    n = sample.numel()
    assert abs(sample.mean() - 1 / 2) < 4 * (1 / 12 / n) ** 0.5
    assert abs(sample.var() - 1 / 12) < 4 * (1 / 180 / n) ** 0.5
    counts = torch.histc(sample, bins=256, min=0, max=1)
    chi_square = ((counts - n / 256) ** 2 / (n / 256)).sum()
    assert abs(chi_square - 255) < 4 * (2 * 255) ** 0.5


@pytest.mark.parametrize("neighbours", ["calls", "images", "positions", "pairs"])
def test_neighbours_are_uncorrelated(sample, neighbours):
    a, b = {
        "calls": (sample[0], sample[1]),
        "images": (sample[:, :-1], sample[:, 1:]),
        "positions": (sample[..., :-1], sample[..., 1:]),
        "pairs": (sample[..., :-2:2], sample[..., 1::2][..., :-1]),
    }[neighbours]
    correlation = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
    assert abs(correlation) < 4 / a.numel() ** 0.5


def test_every_bit_of_a_number_is_fair(sample):
    bits = (sample * 2**24).long()
    for place in range(24):
        share = ((bits >> place) & 1).double().mean()
        assert abs(share - 0.5) < 4.5 * 0.5 / sample.numel() ** 0.5, place


def test_normal_signs_and_integers_have_their_distributions():
    source = KeyedNoise(image_keys(1, "shapes", torch.arange(100)))
    normal = source.normal_per_image(10, 100)
    assert normal.shape == (100, 10, 100)
    assert abs(normal.mean()) < 0.013
    assert abs(normal.var() - 1) < 0.02
    assert abs((normal.abs() < 1).float().mean() - 0.6827) < 0.006
    signs = source.signs_per_image(1000)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.013
    counts = source.integers_per_image(7, 1000).flatten().bincount(minlength=7)
    assert len(counts) == 7
    assert ((counts - 1e5 / 7) ** 2 / (1e5 / 7)).sum() < 25


def test_odd_and_empty_shapes():
    source = KeyedNoise(keys())
    assert source.uniform(2, 5, 3, 1).shape == (2, 5, 3, 1)
    assert source.uniform_per_image().shape == (5,)
    assert source.uniform_per_image(0).shape == (5, 0)
    assert KeyedNoise(torch.empty(0, dtype=torch.int64)).uniform(2, 0, 3).shape == (2, 0, 3)


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="belongs to 5 images"):
        KeyedNoise(keys()).uniform(2, 4, 3)
    with pytest.raises(ValueError, match="int64"):
        KeyedNoise(torch.rand(3))
    with pytest.raises(ValueError, match="high"):
        KeyedNoise(keys()).integers_per_image(0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_uniform_takes_every_kind_of_generator(dtype):
    cpu = torch.device("cpu")
    for generator in (None, torch.Generator().manual_seed(0), KeyedNoise(keys())):
        numbers = uniform((2, 5, 3), generator=generator, device=cpu, dtype=dtype)
        assert numbers.shape == (2, 5, 3)
        assert numbers.dtype == torch.promote_types(dtype, torch.float32)
        assert numbers.min() >= 0
        assert numbers.max() < 1


def test_a_seeded_torch_generator_repeats():
    a, b = (uniform((2, 3), generator=torch.Generator().manual_seed(4), device=torch.device("cpu")) for _ in range(2))
    assert torch.equal(a, b)
