import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from app.inference.loader import ModelCache, size_of
from models import checkpoint
from models.registry import ModelSpec, build


def save(folder: Path, seed: int) -> tuple[Path, str]:
    torch.manual_seed(seed)
    path = folder / f"{seed}.safetensors"
    return path, checkpoint.save(path, build(ModelSpec("resnet20", "default", 2, (1, 8, 8), mean=(0,), std=(1,))), {})


def test_a_network_is_loaded_once_and_the_least_recently_used_is_given_up_first(tmp_path: Path) -> None:
    one, two, three = (save(tmp_path, seed) for seed in range(3))
    each = size_of(checkpoint.load(one[0])[0])
    cache = ModelCache(capacity=2 * each)
    first, second = cache.get(*one), cache.get(*two)
    assert cache.get(*one) is first
    cache.get(*three)
    assert cache.get(*one) is first
    assert cache.get(*two) is not second
    assert cache.bytes == 2 * each


def test_a_network_larger_than_the_cache_is_kept_until_the_next_one(tmp_path: Path) -> None:
    cache = ModelCache(capacity=1)
    one, two = (save(tmp_path, seed) for seed in range(2))
    first = cache.get(*one)
    assert cache.get(*one) is first
    assert cache.get(*two) is cache.get(*two)
    assert cache.get(*one) is not first


def test_who_asks_at_the_same_time_gets_one_network(tmp_path: Path) -> None:
    cache, file = ModelCache(), save(tmp_path, 0)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: cache.get(*file), range(8)))
    assert len(set(map(id, found))) == 1


def test_a_file_of_other_content_than_its_digest_is_refused(tmp_path: Path) -> None:
    (path, _), (_, other) = save(tmp_path, 0), save(tmp_path, 1)
    with pytest.raises(checkpoint.CheckpointError, match="sha256"):
        ModelCache().get(path, other)


@pytest.mark.parametrize("content", [None, b"", b"not safetensors"])
def test_a_file_that_is_missing_or_damaged_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(checkpoint.CheckpointError):
        ModelCache().get(path, hashlib.sha256(content or b"").hexdigest())
