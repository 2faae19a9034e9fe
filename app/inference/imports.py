"""Weights of one's own: checked, given our metadata, published as a checkpoint. The upload and `spikeproof import`.

    weights = examine(path, declared, data_dir)     # raises InvalidInput, says all that is wrong
    row, new = register(database, data_dir, weights)

torch is loaded at the first call. Tensors are read one at a time.
"""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.domain.access import LOCAL, Actor
from app.domain.architectures import ARCHITECTURES
from app.domain.datasets import Dataset
from app.domain.errors import Conflict, InvalidInput, NotFound, Problem
from app.domain.imports import Declared, Described, completed, contradictions, decoder_faults, described, import_run
from app.domain.plan import PlannedRun, decoder_settings
from app.storage import artifacts, datasets, imports
from app.storage.engine import Database
from app.storage.identifiers import new_id
from app.storage.tables import Checkpoint

if TYPE_CHECKING:
    from models.foreign import Tensors
    from models.registry import ModelSpec

FILE = "/file"
FILE_NAME = "model.safetensors"
LARGEST_IMAGE_SIZE = 512  # as for trainings: larger ones take more memory than a prediction may
IMAGENET_STEM = 7  # pixels; the other stem's convolution has 3


@dataclass(frozen=True)
class CheckedWeights:
    """Weights that fit what is said of them. `write(path)` writes them as a file of ours.

    `unchanged`: the file was of ours already, and is kept byte for byte; `named`: someone gave it a label.
    """

    run: PlannedRun
    spec: dict[str, Any]
    metrics: dict[str, Any]
    unchanged: bool
    named: bool
    write: Callable[[Path], None]


def examine(path: Path, declared: Declared, data_dir: Path, *, pickled: bool = False) -> CheckedWeights:
    """Reads the file and compares it with what is said of it. Raises InvalidInput.

    `pickled`: a PyTorch file is taken too, through torch's weights-only reader.
    """
    from models.foreign import ForeignWeightsError, check_finite, match, open_tensors

    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        with ExitStack() as opened:
            tensors = opened.enter_context(open_tensors(path, pickled=pickled))
            own = _own_description(path, tensors)
            said = completed(declared, own)
            spec, dataset = _settle(said, own, tensors, data_dir)
            names = match(spec, tensors)
            check_finite(tensors, names)
    except ForeignWeightsError as error:
        raise InvalidInput([Problem(FILE, fault) for fault in error.faults]) from error
    run = import_run(
        dataset.name, spec.to_dict(), sha256, seed=said.seed, epochs=said.epochs, name=said.name,
        branch_seed=own.branch_seed if own else None,
    )
    kept = own is not None and all(ours == theirs for ours, theirs in names.items())
    write = _copier(path) if kept else _converter(path, spec, names, _metadata(run, dataset), pickled=pickled)
    return CheckedWeights(
        run, {"model": spec.to_dict(), **_metadata(run, dataset)}, {"parameters": _parameters(spec)},
        unchanged=kept, named=declared.name is not None, write=write,
    )


def _own_description(path: Path, tensors: "Tensors") -> Described | None:
    """What a file of ours says of itself; None for one from elsewhere. Raises InvalidInput where it is nonsense."""
    from models import checkpoint

    if checkpoint.KEY not in tensors.metadata:
        return None
    try:
        spec, metadata = checkpoint.read_spec(path), checkpoint.read_metadata(path)
    except checkpoint.CheckpointError as error:
        detail = str(error).replace(str(path), "the file")
        raise InvalidInput([Problem(FILE, detail)]) from error
    return described(spec.to_dict(), metadata)


def _settle(said: Declared, own: Described | None, tensors: "Tensors", data_dir: Path) -> tuple["ModelSpec", Dataset]:
    """The network and the data set, from the file and from what is said beside it."""
    from models.registry import ModelSpec

    if own is not None:
        _refuse(contradictions(said, own))
    dataset = _dataset(said, own, data_dir)
    if own is None:
        _, channels, _, width = tensors.stem_convolution or (0, dataset.shape[0], 0, 0)
        _refuse(_input_faults(said, dataset, channels))
        return _declared_spec(said, dataset, channels, width), dataset
    spec = ModelSpec.from_dict(own.model)
    _refuse(_own_faults(spec, own, dataset))
    return spec, dataset


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise InvalidInput(problems)


def _dataset(said: Declared, own: Described | None, data_dir: Path) -> Dataset:
    needed = ("dataset", "architecture") if own is None else ("dataset",)
    missing = [name for name in needed if getattr(said, name) is None]
    _refuse([Problem(f"/{name}", "is required: the file does not say it") for name in missing])
    try:
        return datasets.find(str(said.dataset), data_dir)
    except (NotFound, Conflict) as error:
        raise InvalidInput([Problem("/dataset", error.detail)]) from error


def _own_faults(spec: "ModelSpec", own: Described, dataset: Dataset) -> list[Problem]:
    found = [Problem(FILE, fault) for fault in decoder_faults(own)]
    if spec.image_size is not None and spec.image_size > LARGEST_IMAGE_SIZE:
        found.append(Problem(FILE, f"image size {spec.image_size}: at most {LARGEST_IMAGE_SIZE} is taken"))
    if spec.classes != len(dataset.classes) or own.classes not in (None, list(dataset.classes)):
        detail = f"the file is for {spec.classes} classes; {dataset.name} has {len(dataset.classes)}"
        if spec.classes == len(dataset.classes):
            detail = f"the file is for other classes, or for another order of them, than {dataset.name} has here"
        found.append(Problem(FILE, detail))
    if spec.image_shape != dataset.shape:
        detail = f"the file is for images of shape {spec.image_shape}; those of {dataset.name} have {dataset.shape}"
        found.append(Problem(FILE, detail))
    return found


def _declared_spec(said: Declared, dataset: Dataset, channels: int, width: int) -> "ModelSpec":
    """Where nothing is said: the default variant, the stem by the width of the first convolution."""
    from models.decoder import DecoderConfig
    from models.registry import ModelSpec

    architecture = str(said.architecture)
    stem = said.stem or ("imagenet" if width == IMAGENET_STEM else "cifar")
    stems = ARCHITECTURES[architecture].stems
    variant = said.variant or "default"
    decoder = DecoderConfig.from_dict(decoder_settings(said.decoder, variant)) if said.decoder else None
    try:
        return ModelSpec(
            architecture, variant, len(dataset.classes), dataset.shape,
            mean=tuple(said.mean or (0.0,) * channels), std=tuple(said.std or (1.0,) * channels),
            image_size=said.image_size, stem=stem if stem in stems else stems[0], decoder=decoder,
        )
    except ValueError as error:  # what no field is at fault for: images that no network takes
        raise InvalidInput([Problem("/dataset", str(error))]) from error


def _input_faults(said: Declared, dataset: Dataset, channels: int) -> list[Problem]:
    found = []
    allowed = {1, 3} if dataset.shape[0] == 1 else {dataset.shape[0]}  # a grey image fills three channels alike
    taken = f"the first convolution takes {channels} channel{'s' if channels > 1 else ''}"
    if channels not in allowed:
        return [Problem(FILE, f"{taken}; images of {dataset.name} have {dataset.shape[0]}")]
    for name in ("mean", "std"):
        given = getattr(said, name)
        if given is not None and len(given) != channels:
            found.append(Problem(f"/{name}", f"has {len(given)} numbers; {taken}"))
    if said.std is not None and min(said.std) <= 0:
        found.append(Problem("/std", "must be greater than 0"))
    if said.decoder is not None and said.variant in (None, "default"):
        found.append(Problem("/decoder", "is for the variants lif and paralif; the default one has no settings"))
    return found


def _metadata(run: PlannedRun, dataset: Dataset) -> dict[str, Any]:
    return {
        "run": run.spec, "classes": list(dataset.classes), "epochs": run.spec["epochs"], "parent_sha256": None,
        "data_sha256": None, "code_version": version("spikeproof"),
    }


def _parameters(spec: "ModelSpec") -> int:
    import torch

    from models.quantisation import parameter_count
    from models.registry import build

    with torch.device("meta" if spec.precision == "float32" else "cpu"):  # rounding is made of numbers
        return parameter_count(build(spec))


def _copier(path: Path) -> Callable[[Path], None]:
    def write(target: Path) -> None:
        shutil.copyfile(path, target)

    return write


def _converter(
    path: Path, spec: "ModelSpec", names: Mapping[str, str], metadata: Mapping[str, Any], *, pickled: bool
) -> Callable[[Path], None]:
    def write(target: Path) -> None:
        import torch

        from models import checkpoint
        from models.foreign import fill, open_tensors
        from models.registry import build

        with torch.random.fork_rng(devices=[]):
            model = build(spec)
        with open_tensors(path, pickled=pickled) as tensors:
            fill(model, tensors, names)
        checkpoint.save(target, model, {**metadata, "metrics": {}})

    return write


def register(
    database: Database, data_dir: Path, weights: CheckedWeights, by: Actor = LOCAL
) -> tuple[Checkpoint, bool]:
    """The checkpoint of these weights, and whether it is new. A file is left only where a row is."""
    with database.reading() as session:
        existing = _existing(session, weights)
    if existing is not None:
        _restore(existing, data_dir, weights)
        return existing, False
    run_id = new_id("run")
    path = artifacts.run_folder(data_dir, run_id) / FILE_NAME
    try:
        artifacts.publish(path, weights.write)
        row = _row(run_id, path, data_dir, weights)
        with database.writing() as session:
            stored = imports.store(session, weights.run, row, by)
    except BaseException:
        shutil.rmtree(path.parent, ignore_errors=True)
        raise
    if stored.id != row.id:  # someone handed in the same at the same time
        shutil.rmtree(path.parent, ignore_errors=True)
    return stored, stored.id == row.id


def _existing(session: Any, weights: CheckedWeights) -> Checkpoint | None:
    """Of the same file with the same said about it; a file of ours also where it was trained here."""
    found = imports.find(session, weights.run.key)
    if found is None and weights.unchanged and not weights.named:
        found = imports.published(session, weights.run.spec["file_sha256"])
    return found


def _restore(row: Checkpoint, data_dir: Path, weights: CheckedWeights) -> None:
    """Puts the file back where it is gone or damaged. Raises Conflict where this version would write another one."""
    path = data_dir / row.path
    if _sha256(path) == row.sha256:
        return

    def write(target: Path) -> None:
        weights.write(target)
        if _sha256(target) != row.sha256:
            raise Conflict(f"the file of checkpoint {row.id} is gone, and this version would write it otherwise")

    path.parent.mkdir(parents=True, exist_ok=True)
    artifacts.publish(path, write)


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _row(run_id: str, path: Path, data_dir: Path, weights: CheckedWeights) -> Checkpoint:
    return imports.checkpoint_row(
        run_id, weights.run.spec, weights.spec, weights.metrics, sha256=_sha256(path) or "",
        size=path.stat().st_size, path=artifacts.relative(data_dir, path),
    )
