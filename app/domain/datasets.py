"""Facts about the data sets: official class order, shapes, licences, default radii, augmentation, files.

A published data set is downloaded when first used. Anything else is an image folder
`DATA_DIR/datasets/NAME/{train,test}/CLASS/*.png|jpg`; a folder with a known name stands in for the
download and keeps the official class order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.domain.attacks import Norm
from app.domain.plugins import Catalogue


@dataclass(frozen=True)
class Augmentation:
    """What training may do to an image of this kind: random crop after padding, mirror image."""

    crop_padding: int
    flip: bool


@dataclass(frozen=True)
class DatasetFacts:
    """A known data set. `shape` is (channels, height, width) in native pixels."""

    name: str
    title: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    train_size: int
    test_size: int
    licence: str
    source: str
    eps: dict[Norm, tuple[str, ...]]
    headline: dict[Norm, str]
    augmentation: Augmentation
    # "module:function": of a built-in one `() -> {split: (images, labels)}`, which ships with a package and needs no
    # folder; of one that is downloaded `(facts) -> worker.data.official.Publication`.
    reader: str = ""
    # Below DATA_DIR/downloads/NAME, as torchvision lays them: all files of any one of these are enough.
    downloads: tuple[tuple[str, ...], ...] = ()

    @property
    def built_in(self) -> bool:
        """Whether a function has its images, without files of its own."""
        return bool(self.reader) and not self.downloads

    @property
    def downloadable(self) -> bool:
        """Whether its images can be fetched."""
        return bool(self.downloads)


@dataclass(frozen=True)
class Dataset:
    """A data set as this service sees it now; `fingerprint` changes when its images may have."""

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    train_size: int
    test_size: int
    fingerprint: str
    facts: DatasetFacts | None = None
    present: bool = True

    @property
    def default_eps(self) -> dict[Norm, tuple[str, ...]]:
        """Radii where the request names none."""
        return self.facts.eps if self.facts else NATURAL_EPS

    @property
    def headline_eps(self) -> dict[Norm, str]:
        """The radius that the leaderboard shows first."""
        return headline_eps(self.name)

    @property
    def augmentation(self) -> Augmentation:
        """Folders of one's own are treated as natural images: an eighth of the side, mirrored."""
        return self.facts.augmentation if self.facts else Augmentation(max(1, self.shape[1] // 8), flip=True)


NATURAL_EPS: dict[Norm, tuple[str, ...]] = {"linf": ("0.5/255", "2/255", "8/255"), "l2": ("0.5",)}
NATURAL_HEADLINE: dict[Norm, str] = {"linf": "8/255", "l2": "0.5"}

_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100 = """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur
dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard
lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark
shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"""
_FASHION = "t-shirt trouser pullover dress coat sandal shirt sneaker bag ankle-boot"
_KUZUSHIJI = "o ki su tsu na ha ma ya re wo"

# Strokes of a pen withstand more than photographs: .3 is customary (Madry et al. 2018, arXiv:1706.06083).
STROKES_EPS: dict[Norm, tuple[str, ...]] = {"linf": ("0.1", "0.2", "0.3"), "l2": ("2",)}
STROKES_HEADLINE: dict[Norm, str] = {"linf": "0.3", "l2": "2"}


def _cifar_files(folder: str, archive: str, files: str) -> tuple[tuple[str, ...], ...]:
    return tuple(f"{folder}/{file}" for file in files.split()), (archive,)


def _mnist_files(folder: str) -> tuple[tuple[str, ...], ...]:
    parts = [f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    return tuple(f"{folder}/raw/{part}" for part in parts), tuple(f"{folder}/raw/{part}.gz" for part in parts)


KNOWN = Catalogue(
    "datasets", DatasetFacts,
    (
        DatasetFacts(
            "digits", "Optical recognition of handwritten digits, 8x8", tuple("0123456789"), (1, 8, 8), 1438, 359,
            "CC BY 4.0", "scikit-learn; Alpaydin and Kaynak 1998, doi:10.24432/C50P49",
            {"linf": ("8/255", "32/255", "64/255"), "l2": ("0.5",)}, {"linf": "32/255", "l2": "0.5"},
            Augmentation(1, flip=False), reader="worker.data.digits:read_digits",
        ),
        DatasetFacts(
            "cifar10", "CIFAR-10", tuple(_CIFAR10.split()), (3, 32, 32), 50_000, 10_000,
            "none stated", "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
            NATURAL_EPS, NATURAL_HEADLINE, Augmentation(4, flip=True), reader="worker.data.official:cifar",
            downloads=_cifar_files(
                "cifar-10-batches-py", "cifar-10-python.tar.gz",
                "data_batch_1 data_batch_2 data_batch_3 data_batch_4 data_batch_5 test_batch batches.meta",
            ),
        ),
        DatasetFacts(
            "cifar100", "CIFAR-100", tuple(_CIFAR100.split()), (3, 32, 32), 50_000, 10_000,
            "none stated", "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
            NATURAL_EPS, NATURAL_HEADLINE, Augmentation(4, flip=True), reader="worker.data.official:cifar",
            downloads=_cifar_files("cifar-100-python", "cifar-100-python.tar.gz", "train test meta"),
        ),
        DatasetFacts(
            "svhn", "SVHN, cropped house numbers", tuple("0123456789"), (3, 32, 32), 73_257, 26_032,
            "non-commercial use only", "Netzer et al. 2011, Reading Digits in Natural Images, ufldl.stanford.edu",
            NATURAL_EPS, NATURAL_HEADLINE, Augmentation(4, flip=False), reader="worker.data.official:svhn",
            downloads=(("train_32x32.mat", "test_32x32.mat"),),
        ),
        DatasetFacts(
            "fashion-mnist", "Fashion-MNIST", tuple(_FASHION.split()), (1, 28, 28), 60_000, 10_000,
            "MIT", "Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747",
            {"linf": ("8/255", "16/255", "26/255"), "l2": ("0.5",)}, {"linf": "26/255", "l2": "0.5"},
            Augmentation(2, flip=True), reader="worker.data.official:mnist",
            downloads=_mnist_files("FashionMNIST"),
        ),
        DatasetFacts(
            "mnist", "MNIST", tuple("0123456789"), (1, 28, 28), 60_000, 10_000,
            "CC BY-SA 3.0", "LeCun, Cortes, Burges 1998, The MNIST database of handwritten digits",
            STROKES_EPS, STROKES_HEADLINE, Augmentation(2, flip=False), reader="worker.data.official:mnist",
            downloads=_mnist_files("MNIST"),
        ),
        DatasetFacts(
            "kmnist", "Kuzushiji-MNIST", tuple(_KUZUSHIJI.split()), (1, 28, 28), 60_000, 10_000,
            "CC BY-SA 4.0", "Clanuwat et al. 2018, arXiv:1812.01718; Center for Open Data in the Humanities",
            STROKES_EPS, STROKES_HEADLINE, Augmentation(2, flip=False), reader="worker.data.official:mnist",
            downloads=_mnist_files("KMNIST"),
        ),
    ),
)


def headline_eps(name: str) -> dict[Norm, str]:
    """The radius that the leaderboard of a data set shows first."""
    return KNOWN[name].headline if name in KNOWN else NATURAL_HEADLINE


def class_order(name: str, found: Sequence[str]) -> tuple[str, ...]:
    """Official order for a known name, else sorted. Raises ValueError when folders do not match it."""
    if name not in KNOWN:
        return tuple(sorted(found))
    official = KNOWN[name].classes
    if set(found) != set(official):
        missing, foreign = sorted(set(official) - set(found)), sorted(set(found) - set(official))
        raise ValueError(f"classes of {name} do not match: missing {missing[:5]}, not of it {foreign[:5]}")
    return official


IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})


def image_files(folder: Path) -> list[Path]:
    """The images of one class folder, by name: the order of their ids. Hidden files are none."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def download_folder(name: str, data_dir: Path) -> Path:
    """Where the published files of a data set lie, fetched or laid there by hand."""
    return data_dir / "downloads" / name


def official_fingerprint(name: str) -> str:
    """Of the published images; the number counts ways of reading them."""
    return f"{name}-official-1"


def decoded_folder(name: str, fingerprint: str, data_dir: Path) -> Path:
    """Where the images lie as arrays, once a worker has decoded them."""
    return data_dir / "cache" / "datasets" / f"{name}-{fingerprint.removeprefix(f'{name}-')[:16]}"


def is_decoded(folder: Path) -> bool:
    """Whether a `decoded_folder` is here; it appears whole."""
    return (folder / "info.json").exists()


def folder_layout(name: str) -> str:
    """How to lay out images of one's own."""
    return f"DATA_DIR/datasets/{name}/{{train,test}}/CLASS/*.png (or .jpg)"


def how_to_get(name: str) -> str:
    """What to do about a data set that is not here."""
    if name in KNOWN and KNOWN[name].downloadable:
        return f"not here yet: downloaded when first used, or now by `spikeproof datasets fetch {name}`"
    return f"the images of {name} are not here; lay them out as {folder_layout(name)}"
