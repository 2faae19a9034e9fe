"""Published data sets, read by torchvision's own loaders from `DATA_DIR/downloads/NAME`.

Missing files are fetched first; files laid there by hand, as torchvision lays them, need no network.
Addresses and md5 are torchvision's, and so is the unpacking; its way of fetching is not taken, since it
waits without end on a silent server and leaves half a file under the final name.
"""

import fcntl
import hashlib
import pickle
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from app.domain.datasets import DatasetFacts, folder_layout
from app.domain.errors import JobError
from app.domain.plugins import code
from worker.data.fetching import NotFetched, fetch

Tell = Callable[[str], None]
Images = tuple[np.ndarray, np.ndarray]  # uint8 (n, H, W, C), int64 (n,)
LOOK_SECONDS = 0.3  # between two looks whether a lock is free
# What torchvision's loaders raise for files they cannot make sense of.
UNREADABLE = (RuntimeError, ValueError, TypeError, AssertionError, LookupError, EOFError, pickle.PickleError)


@dataclass(frozen=True)
class PublishedFile:
    """A file below the data set's folder, and how one knows that it is whole.

    By `md5` where torchvision has it. The MNIST family's unpacked files have none: by `size` in bytes, and by the
    check sum in the gzip file `packed` that they came from, where that is here.
    """

    place: str
    md5: str = ""
    size: int = 0
    packed: str = ""
    addresses: tuple[str, ...] = ()

    def is_whole(self, folder: Path) -> bool:
        """Reads the file once."""
        path = folder / self.place
        if not path.is_file():
            return False
        if self.md5:
            with path.open("rb") as file:
                return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == self.md5
        return path.stat().st_size == self.size and self._came_out_whole(path, folder / self.packed)

    def _came_out_whole(self, path: Path, packed: Path) -> bool:
        """A gzip file ends with the CRC-32 of its content (RFC 1952, 2.3.1)."""
        if not packed.is_file():
            return True
        return packed.read_bytes()[-8:-4] == zlib.crc32(path.read_bytes()).to_bytes(4, "little")


@dataclass(frozen=True)
class Publication:
    """What is fetched, what the loader opens, and the loader: `read(folder, is_training_split)`."""

    sources: tuple[PublishedFile, ...]
    opened: tuple[PublishedFile, ...]
    read: Callable[[str, bool], Images]


@contextmanager
def exclusive(folder: Path, tell: Tell) -> Iterator[None]:
    """One process at a time, of all machines that share the folder; the others wait, and say so."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("ab")
    except OSError as error:
        raise _unusable(folder, error) from error
    with lock:
        while not _taken(lock, folder):
            tell("waiting for another process that fetches the images")
            time.sleep(LOOK_SECONDS)
        yield  # closing the file gives the lock back, and so does any death of the process


def _taken(lock: IO[bytes], folder: Path) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # a mount without locks
        raise _unusable(folder, error) from error
    return True


def read_official(facts: DatasetFacts, folder: Path, tell: Tell) -> dict[str, Images]:
    """Split -> images and labels, classes in official order. To be called by one process at a time.

    Raises JobError when files are missing or damaged and cannot be fetched: it says what to lay where.
    """
    publication = publication_of(facts)
    try:
        _provide(facts, publication, folder, tell)
        tell("reading images")
        return {split: _read(facts, publication, folder, split) for split in ("train", "test")}
    except OSError as error:
        raise _unusable(folder, error) from error


def _provide(facts: DatasetFacts, publication: Publication, folder: Path, tell: Tell) -> None:
    """Makes whole what the loader opens. Nothing that lies there is replaced before its replacement is whole."""
    tell("checking files")
    if all(file.is_whole(folder) for file in publication.opened):
        return
    for source in publication.sources:
        if source.is_whole(folder):
            continue
        try:
            fetch(source.addresses, folder / source.place, md5=source.md5, tell=tell)
        except NotFetched as error:
            raise JobError(_without_network(facts, publication, folder, error)) from error
    if publication.opened == publication.sources:
        return
    from torchvision.datasets.utils import extract_archive

    tell("unpacking files")
    for source in publication.sources:
        archive = folder / source.place
        extract_archive(archive, archive.parent)


def _read(facts: DatasetFacts, publication: Publication, folder: Path, split: str) -> Images:
    """A file laid by hand may be something else under the right name."""
    try:
        images, labels = publication.read(str(folder), split == "train")
    except UNREADABLE as error:
        raise _strange(facts, split, f"they cannot be read ({type(error).__name__})") from error
    channels, height, width = facts.shape
    wanted = (facts.train_size if split == "train" else facts.test_size, height, width, channels)
    if images.shape != wanted or images.dtype != np.uint8 or labels.shape != wanted[:1]:
        raise _strange(facts, split, f"{images.shape} {images.dtype} with {len(labels)} labels, not {wanted}")
    if set(np.unique(labels).tolist()) != set(range(len(facts.classes))):
        raise _strange(facts, split, f"the labels are not 0 to {len(facts.classes) - 1}")
    return np.ascontiguousarray(images), labels.astype(np.int64)


def publication_of(facts: DatasetFacts) -> Publication:
    """As the function has it that the entry of the data set names."""
    publication: Publication = code(facts.reader)(facts)
    return publication


def _torchvision(name: str) -> Any:
    """The installed torchvision's own class for the data set."""
    from torchvision import datasets  # 3 s

    return {
        "cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100, "svhn": datasets.SVHN,
        "fashion-mnist": datasets.FashionMNIST, "mnist": datasets.MNIST, "kmnist": datasets.KMNIST,
    }[name]  # fmt: skip


def cifar(facts: DatasetFacts) -> Publication:
    """CIFAR-10 and -100: pickles in one archive."""
    loader = _torchvision(facts.name)
    archive = PublishedFile(loader.filename, loader.tgz_md5, addresses=(loader.url,))
    pickles = [*loader.train_list, *loader.test_list, (loader.meta["filename"], loader.meta["md5"])]
    opened = tuple(PublishedFile(f"{loader.base_folder}/{name}", md5) for name, md5 in pickles)

    def read(folder: str, train: bool) -> Images:
        found = loader(folder, train=train)
        return found.data, np.array(found.targets)

    return Publication((archive,), opened, read)


def svhn(facts: DatasetFacts) -> Publication:
    """SVHN, the cropped digits: a MATLAB file a split."""
    loader = _torchvision(facts.name)
    lists = [loader.split_list[split] for split in ("train", "test")]
    files = tuple(PublishedFile(name, md5, addresses=(address,)) for address, name, md5 in lists)

    def read(folder: str, train: bool) -> Images:
        found = loader(folder, split="train" if train else "test")
        return found.data.transpose(0, 2, 3, 1), found.labels

    return Publication(files, files, read)


def mnist(facts: DatasetFacts) -> Publication:
    """MNIST and what has its form: gzipped IDX files."""
    loader = _torchvision(facts.name)
    raw = f"{loader.__name__}/raw"
    sources = tuple(
        PublishedFile(f"{raw}/{name}", md5, addresses=tuple(mirror + name for mirror in loader.mirrors))
        for name, md5 in loader.resources
    )
    opened = tuple(
        PublishedFile(s.place.removesuffix(".gz"), size=_idx_bytes(facts, s.place), packed=s.place) for s in sources
    )

    def read(folder: str, train: bool) -> Images:
        found = loader(folder, train=train)
        return found.data.numpy()[..., None], found.targets.numpy()

    return Publication(sources, opened, read)


def _idx_bytes(facts: DatasetFacts, place: str) -> int:
    """An IDX file: 4 bytes of magic number, 4 a dimension, then one a pixel or label."""
    count = facts.train_size if "train-" in place else facts.test_size
    return 8 + count if "labels" in place else 16 + count * facts.shape[1] * facts.shape[2]


def _without_network(facts: DatasetFacts, publication: Publication, folder: Path, error: NotFetched) -> str:
    lacking = [source for source in publication.sources if not source.is_whole(folder)]
    looked_at = dict.fromkeys((*publication.sources, *publication.opened))
    damaged = [f.place for f in looked_at if (folder / f.place).is_file() and not f.is_whole(folder)]
    origin = lacking[0].addresses[0].rpartition("/")[0]
    names = ", ".join(Path(source.place).name for source in lacking)
    place = "/".join(("DATA_DIR/downloads", facts.name, *Path(lacking[0].place).parts[:-1]))
    found = f"; there, but damaged or not whole: {', '.join(damaged)}" if damaged else ""
    return (
        f"the images of {facts.name} cannot be downloaded ({error}){found}. Without a network: get {names} from "
        f"{origin}/ elsewhere and put into {place}/, or lay the images out as {folder_layout(facts.name)}; "
        "then try again"
    )


def _strange(facts: DatasetFacts, split: str, fault: str) -> JobError:
    return JobError(
        f"the files in DATA_DIR/downloads/{facts.name} are not the published {split} images of {facts.name}: {fault}; "
        "remove them, then try again"
    )


def _unusable(folder: Path, error: OSError) -> JobError:
    return JobError(f"DATA_DIR/downloads/{folder.name} cannot be used: {error.strerror or type(error).__name__}")
