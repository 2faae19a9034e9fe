"""Published data sets: the real Fashion-MNIST files, and small files in torchvision's other formats.

torchvision knows the real files by their md5; where a test makes small ones, it puts theirs into torchvision's
lists. No test asks a server on the network: whatever is asked for goes to a proxy, which is none or the test's.
"""

import gzip
import hashlib
import pickle
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from torchvision import datasets

from app.domain.datasets import KNOWN, official_fingerprint
from app.domain.errors import JobError
from worker.data import load
from worker.data.official import exclusive, publication_of, read_official

DOWNLOADABLE = sorted(name for name, facts in KNOWN.items() if facts.downloadable)
TRAIN, TEST = 40, 20


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def facts_of(name):
    return replace(KNOWN[name], train_size=TRAIN, test_size=TEST)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def images_of(name, count):
    """Random pixels; labels go round."""
    channels, height, width = KNOWN[name].shape
    pixels = np.random.default_rng(count).integers(0, 256, (count, height, width, channels), np.uint8)
    return pixels, np.arange(count) % len(KNOWN[name].classes)


def read(name, folder, tell=lambda _: None):
    return read_official(facts_of(name), folder, tell)


def assert_read(name, found):
    for split, count in (("train", TRAIN), ("test", TEST)):
        pixels, labels = images_of(name, count)
        assert found[split][0].dtype == np.uint8
        assert found[split][1].dtype == np.int64
        assert np.array_equal(found[split][0], pixels)
        assert np.array_equal(found[split][1], labels)


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """downloads/mnist with the four packed files."""
    raw = tmp_path / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, count in (("train", TRAIN), ("t10k", TEST)):
        pixels, labels = images_of("mnist", count)
        header = b"".join(number.to_bytes(4, "big") for number in (0x803, count, 28, 28))
        (raw / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + pixels.tobytes()))
        header = (0x801).to_bytes(4, "big") + count.to_bytes(4, "big")
        (raw / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(header + labels.astype(np.uint8).tobytes()))
    monkeypatch.setattr(datasets.MNIST, "resources", [(n, md5(raw / n)) for n, _ in datasets.MNIST.resources])
    return tmp_path / "mnist"


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """downloads/cifar10 with the archive."""
    batches = tmp_path / "made" / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    pixels, labels = images_of("cifar10", TRAIN)
    rows = pixels.transpose(0, 3, 1, 2).reshape(TRAIN, -1)  # channel by channel
    for number in range(5):
        part = slice(number * 8, number * 8 + 8)
        batch = {"data": rows[part], "labels": labels[part].tolist()}
        (batches / f"data_batch_{number + 1}").write_bytes(pickle.dumps(batch))
    pixels, labels = images_of("cifar10", TEST)
    batch = {"data": pixels.transpose(0, 3, 1, 2).reshape(TEST, -1), "labels": labels.tolist()}
    (batches / "test_batch").write_bytes(pickle.dumps(batch))
    (batches / "batches.meta").write_bytes(pickle.dumps({"label_names": list(KNOWN["cifar10"].classes)}))
    folder = tmp_path / "cifar10"
    folder.mkdir()
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(batches, batches.name)
    for name in ("train_list", "test_list"):
        files = [(file, md5(batches / file)) for file, _ in getattr(datasets.CIFAR10, name)]
        monkeypatch.setattr(datasets.CIFAR10, name, files)
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": md5(batches / "batches.meta")})
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(folder / "cifar-10-python.tar.gz"))
    return folder


@pytest.fixture
def svhn(tmp_path, monkeypatch):
    folder, lists = tmp_path / "svhn", {}
    folder.mkdir()
    for split, count in (("train", TRAIN), ("test", TEST)):
        pixels, labels = images_of("svhn", count)
        name = f"{split}_32x32.mat"
        published = np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)  # the digit 0 has the label 10
        savemat(folder / name, {"X": pixels.transpose(1, 2, 3, 0), "y": published})
        lists[split] = [f"http://ufldl.stanford.edu/housenumbers/{name}", name, md5(folder / name)]
    monkeypatch.setattr(datasets.SVHN, "split_list", lists)
    return folder


@pytest.mark.parametrize("name", ["mnist", "cifar10", "svhn"])
def test_files_laid_by_hand_are_read_without_a_network_in_their_order_with_official_labels(name, request):
    folder = request.getfixturevalue(name)
    assert_read(name, read(name, folder))
    assert_read(name, read(name, folder))  # unpacked now


@pytest.mark.parametrize("name", DOWNLOADABLE)
def test_the_facts_name_the_files_that_torchvision_opens_and_fetches(name):
    publication = publication_of(KNOWN[name])
    opened, fetched = ({file.place for file in files} for files in (publication.opened, publication.sources))
    assert {frozenset(files) for files in KNOWN[name].downloads} == {frozenset(opened), frozenset(fetched)}
    assert all(source.md5 and source.addresses for source in publication.sources)


def test_the_class_order_is_torchvisions():
    for name, loader in (("fashion-mnist", datasets.FashionMNIST), ("kmnist", datasets.KMNIST)):
        ours = tuple(c.lower().replace(" ", "-").removesuffix("/top") for c in loader.classes)
        assert KNOWN[name].classes == ours
    assert KNOWN["mnist"].classes == tuple(c.partition(" ")[0] for c in datasets.MNIST.classes)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_class_order_of_cifar_is_that_of_the_published_labels(name, real_data):
    with np.load(real_data / f"{name}-test.npz") as published:
        assert KNOWN[name].classes == tuple(str(c) for c in published["classes"])


@pytest.mark.parametrize("name", DOWNLOADABLE)
def test_without_a_network_one_is_told_which_file_to_put_where(name, tmp_path):
    with pytest.raises(JobError) as caught:
        read_official(KNOWN[name], tmp_path / name, lambda _: None)
    text = caught.value.detail
    for source in publication_of(KNOWN[name]).sources:
        assert Path(source.place).name in text
        place = Path("DATA_DIR/downloads", name, source.place).parent
        assert f"{place}/," in text
        assert source.addresses[0].rpartition("/")[0] in text
    assert "Connection refused" in text
    assert f"DATA_DIR/datasets/{name}/{{train,test}}/CLASS" in text
    assert str(tmp_path) not in text
    assert "\n" not in text


def test_what_the_message_asks_for_is_what_helps(mnist, tmp_path):
    place = tmp_path / "new" / "MNIST" / "raw"
    with pytest.raises(JobError, match=r"get train-images-idx3-ubyte.gz, .* into DATA_DIR/downloads/mnist/MNIST/raw/"):
        read("mnist", tmp_path / "new")
    shutil.copytree(mnist / "MNIST" / "raw", place, dirs_exist_ok=True)
    assert_read("mnist", read("mnist", tmp_path / "new"))


@pytest.mark.parametrize("harm", ["cut", "changed", "longer", "gone"])
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_an_unpacked_file_of_the_mnist_family_that_is_not_whole_is_unpacked_anew(mnist, file, harm):
    read("mnist", mnist)
    raw = mnist / "MNIST" / "raw" / file
    damage(raw, harm)
    assert_read("mnist", read("mnist", mnist))


def damage(path, harm):
    content = path.read_bytes()
    changed = content[:-1] + bytes([content[-1] ^ 1])
    path.write_bytes({"cut": content[:-10], "changed": changed, "longer": content + b"x"}.get(harm, b""))
    if harm == "gone":
        path.unlink()


def test_unpacked_files_alone_are_enough(mnist):
    read("mnist", mnist)
    for packed in mnist.rglob("*.gz"):
        packed.unlink()
    assert_read("mnist", read("mnist", mnist))


def test_half_an_unpacked_file_alone_is_refused_by_name_and_left_where_it_is(mnist):
    read("mnist", mnist)
    for packed in mnist.rglob("*.gz"):
        packed.unlink()
    half = mnist / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    damage(half, "cut")
    with pytest.raises(JobError, match=r"not whole: MNIST/raw/t10k-images-idx3-ubyte\. Without"):
        read("mnist", mnist)
    assert half.exists()


def test_a_packed_file_that_is_not_whole_is_refused_by_name(mnist):
    damage(mnist / "MNIST/raw/train-labels-idx1-ubyte.gz", "cut")
    with pytest.raises(JobError, match=r"not whole: MNIST/raw/train-labels-idx1-ubyte.gz. .* get train-labels\S+ from"):
        read("mnist", mnist)


@pytest.mark.parametrize("harm", ["cut", "changed", "gone"])
@pytest.mark.parametrize("file", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_batch_of_cifar_that_is_not_whole_is_unpacked_anew(cifar10, file, harm):
    read("cifar10", cifar10)
    damage(cifar10 / "cifar-10-batches-py" / file, harm)
    assert_read("cifar10", read("cifar10", cifar10))


def test_batches_of_cifar_alone_are_enough(cifar10):
    read("cifar10", cifar10)
    (cifar10 / "cifar-10-python.tar.gz").unlink()
    assert_read("cifar10", read("cifar10", cifar10))


def test_pickles_that_are_not_the_published_ones_are_never_opened(cifar10, tmp_path):
    read("cifar10", cifar10)
    (cifar10 / "cifar-10-python.tar.gz").unlink()
    for pickled in (cifar10 / "cifar-10-batches-py").iterdir():
        pickled.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "opened").encode() + b"'\ntR.")
    with pytest.raises(JobError, match="damaged or not whole: cifar-10-batches-py/data_batch_1"):
        read("cifar10", cifar10)
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("harm", ["cut", "changed"])
def test_a_file_of_svhn_that_is_not_whole_is_refused_by_name(svhn, harm):
    damage(svhn / "test_32x32.mat", harm)
    with pytest.raises(JobError, match=r"not whole: test_32x32.mat. .* get test_32x32.mat from"):
        read("svhn", svhn)


def test_other_images_under_the_right_name_are_refused(mnist):
    read("mnist", mnist)
    for packed in mnist.rglob("*.gz"):
        packed.unlink()
    labels = mnist / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x0a")
    with pytest.raises(JobError, match=r"not the published train images of mnist: the labels are not 0 to 9; remove"):
        read("mnist", mnist)
    images = mnist / "MNIST" / "raw" / "train-images-idx3-ubyte"
    images.write_bytes(bytes(images.stat().st_size))
    with pytest.raises(JobError, match="they cannot be read"):
        read("mnist", mnist)


def test_a_place_that_cannot_be_written_is_said_without_a_path_of_the_server(tmp_path):
    (tmp_path / "svhn").write_text("a file")
    with pytest.raises(JobError, match=r"^DATA_DIR/downloads/svhn cannot be used: File exists$"), \
            exclusive(tmp_path / "svhn", print):
        pass


def test_one_who_waits_for_another_process_says_so_and_can_be_stopped(tmp_path):
    class Stopped(Exception):
        pass

    def stop(phase):
        raise Stopped(phase)

    held = subprocess.Popen(
        [sys.executable, "-c", "import sys\nfrom pathlib import Path\nfrom worker.data.official import exclusive\n"
         f"with exclusive(Path({str(tmp_path)!r}), print): print('held', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    with held:
        assert held.stdout.readline() == "held\n"
        with pytest.raises(Stopped, match="waiting for another process"), exclusive(tmp_path, stop):
            pass
        held.kill()
    with exclusive(tmp_path, stop):  # its death gave the lock back
        pass


def test_only_one_at_a_time_is_let_in(tmp_path):
    inside, most = [], []

    def enter():
        with exclusive(tmp_path, lambda _: None):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


@pytest.fixture(scope="module")
def fashion(real_data, tmp_path_factory):
    """A data folder with the four real files as torchvision wants them."""
    data_dir = tmp_path_factory.mktemp("fashion")
    raw = data_dir / "downloads" / "fashion-mnist" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in (real_data / "fashion-mnist").glob("*.gz"):
        (raw / packed.name).symlink_to(packed)
    return data_dir


def load_fashion(data_dir, tell=lambda _: None):
    facts = KNOWN["fashion-mnist"]
    return load(facts.name, official_fingerprint(facts.name), facts.classes, facts.shape, data_dir, tell)


def test_real_fashion_mnist_is_decoded_once_and_then_needs_no_files(fashion):
    told = []
    arrays = load_fashion(fashion, told.append)
    assert told == ["checking files", "unpacking files", "reading images"]
    assert (arrays.train.images.shape, arrays.test.images.shape) == ((60_000, 28, 28, 1), (10_000, 28, 28, 1))
    assert np.bincount(arrays.test.labels).tolist() == [1_000] * 10
    assert arrays.train.labels[:5].tolist() == [9, 0, 0, 3, 0]
    assert arrays.mean == pytest.approx([0.2860], abs=1e-4)  # as published
    assert arrays.std == pytest.approx([0.3530], abs=1e-4)
    assert arrays.classes[arrays.train.labels[0]] == "ankle-boot"
    downloads = fashion / "downloads"
    downloads.rename(fashion / "elsewhere")
    try:
        assert load_fashion(fashion, told.append).sha256 == arrays.sha256
    finally:
        (fashion / "elsewhere").rename(downloads)
    assert len(told) == 3, "nothing was read again"


def test_a_folder_with_the_name_stands_in_for_the_files(fashion, tmp_path):
    from PIL import Image

    shutil.copytree(fashion / "downloads", tmp_path / "downloads", symlinks=True)
    facts = KNOWN["fashion-mnist"]
    for split in ("train", "test"):
        for name in facts.classes:
            place = tmp_path / "datasets" / "fashion-mnist" / split / name
            place.mkdir(parents=True)
            Image.new("L", (28, 28), 7).save(place / "0.png")
    arrays = load("fashion-mnist", "its-own", facts.classes, facts.shape, tmp_path)
    assert len(arrays.train) == 10
    assert (arrays.train.images == 7).all()
