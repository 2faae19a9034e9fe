"""What there is to choose from: data sets, architectures, attacks, suites."""

from dataclasses import asdict
from functools import lru_cache
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from app.api.dependencies import ServicesOf
from app.domain.architectures import ARCHITECTURES, Architecture, Variant
from app.domain.attacks import ATTACKS
from app.domain.datasets import Dataset, how_to_get
from app.domain.epsilon import format_epsilon
from app.domain.errors import Conflict, InvalidInput, NotFound, Problem
from app.domain.presets import PRESETS, find_preset, stages
from app.domain.suites import SUITES
from app.domain.weights import CHECKPOINT_PREFIX
from app.storage import datasets, weights

router = APIRouter()
LARGEST_SHOWN = 512  # pixels a side of a network whose layers are listed


@router.get("/datasets", tags=["catalogues"], summary="Known data sets and folders of one's own")
def list_datasets(services: ServicesOf) -> dict[str, Any]:
    """Name, classes, shape, sizes, default eps, whether it is here."""
    names = datasets.names(services.settings.data_dir)
    return {"items": [_describe(name, services) for name in names], "next": None}


@router.get("/datasets/{name}", tags=["catalogues"], summary="One data set")
def show_dataset(name: str, services: ServicesOf) -> dict[str, Any]:
    """Classes in official order whatever the source."""
    return _dataset(datasets.find(name, services.settings.data_dir))


def _describe(name: str, services: ServicesOf) -> dict[str, Any]:
    try:
        return _dataset(datasets.find(name, services.settings.data_dir))
    except Conflict as error:  # a folder that cannot be used must not hide the others
        return {"name": name, "title": name, "present": False, "problem": error.detail}


def _dataset(dataset: Dataset) -> dict[str, Any]:
    facts = dataset.facts
    return {
        "name": dataset.name, "title": facts.title if facts else dataset.name, "present": dataset.present,
        "classes": list(dataset.classes), "image_shape": list(dataset.shape),
        "train_size": dataset.train_size, "test_size": dataset.test_size,
        "licence": facts.licence if facts else None, "source": facts.source if facts else "a folder of one's own",
        "eps": {norm: list(values) for norm, values in dataset.default_eps.items()},
        "headline_eps": dataset.headline_eps, "problem": None if dataset.present else how_to_get(dataset.name),
    }


@router.get("/architectures", tags=["catalogues"], summary="Networks, and the weights on offer")
def list_architectures(services: ServicesOf) -> dict[str, Any]:
    """With the ImageNet accuracy of the weights, and whether a file of them is here."""
    return {"items": [_architecture(name, services) for name in ARCHITECTURES], "next": None}


@router.get("/architectures/{name}", tags=["catalogues"], summary="One network, layer by layer")
def show_architecture(
    name: str, services: ServicesOf, variant: Variant = "default",
    stem: Annotated[Literal["imagenet", "cifar"] | None, Query(description="null: as is usual for it")] = None,
    image_size: Annotated[int | None, Query(ge=8, le=LARGEST_SHOWN, description="null: as is usual for it")] = None,
    classes: Annotated[int, Query(ge=2, le=1000)] = 10,
    channels: Annotated[int, Query(ge=1, le=3, description="of the images")] = 3,
) -> dict[str, Any]:
    """Kind, kernel, stride, padding, output shape, parameters and multiply-adds of each layer, for images of that
    size: by default 32 pixels and the CIFAR stem for ResNet-20, else 224 and the stem of ImageNet."""
    if name not in ARCHITECTURES:
        raise NotFound.of("architecture", name, ARCHITECTURES)
    facts = ARCHITECTURES[name]
    _check_input(facts, stem, image_size)
    side = image_size or (32 if facts.stems == ("cifar",) else 224)
    return _architecture(name, services) | _layers(name, variant, stem or facts.stems[0], side, classes, channels)


def _check_input(facts: Architecture, stem: str | None, image_size: int | None) -> None:
    problems = []
    if stem is not None and stem not in facts.stems:
        problems.append(Problem("/stem", f"in the query: {facts.name} has the stem {' or '.join(facts.stems)}"))
    if image_size is not None and image_size < facts.minimum_size:
        detail = f"in the query: {facts.name} needs images of at least {facts.minimum_size} pixels a side"
        problems.append(Problem("/image_size", detail))
    if problems:
        raise InvalidInput(problems)


def _architecture(name: str, services: ServicesOf) -> dict[str, Any]:
    facts = ARCHITECTURES[name]
    file = _local_file(name, services) if facts.weights else {}
    offers = [{**asdict(w), **file} for w in facts.weights] + [{"name": "none", "title": "from scratch"}]
    own = {"form": f"{CHECKPOINT_PREFIX}...", "title": f"the encoder of a {name} checkpoint of this service, by its id"}
    return asdict(facts) | {"weights": offers, "checkpoint_weights": own}


def _local_file(name: str, services: ServicesOf) -> dict[str, Any]:
    """Whether the download is stood in for; `official`: by torchvision's own file."""
    try:
        found = weights.local_file(services.settings.data_dir, name)
    except OSError:
        found = None
    known = {"sha256": found.sha256, "official": found.official} if found else {"sha256": None, "official": None}
    return {"local_file": {"place": weights.place(name), "present": found is not None, **known}}


@lru_cache(maxsize=128)
def _layers(name: str, variant: Variant, stem: str, side: int, classes: int, channels: int) -> dict[str, Any]:
    """Built without memory for its weights: only shapes are asked for."""
    import torch

    from models.registry import ModelSpec, build
    from models.summary import layer_table, totals

    shape, grey = (channels, side, side), (0.5,) * channels
    with torch.device("meta"):
        model = build(ModelSpec(name, variant, classes, shape, mean=grey, std=grey, stem=stem))
    layers = layer_table(model)
    return {
        "variant": variant, "stem": stem, "image_size": side, "input_shape": list(shape), "classes": classes,
        "layers": [asdict(layer) for layer in layers], "totals": asdict(totals(layers)),
    }


@router.get("/attacks", tags=["catalogues"], summary="Attacks with their parameters")
def list_attacks() -> dict[str, Any]:
    """Norms, defaults and ranges, white or black box, reference."""
    return {"items": [_attack(name) for name in ATTACKS], "next": None}


@router.get("/attacks/{name}", tags=["catalogues"], summary="One attack with its parameters")
def show_attack(name: str) -> dict[str, Any]:
    """Norms, defaults and ranges, white or black box, reference."""
    if name not in ATTACKS:
        raise NotFound.of("attack", name, ATTACKS)
    return _attack(name)


def _attack(name: str) -> dict[str, Any]:
    return {key: value for key, value in asdict(ATTACKS[name]).items() if key != "module"}


@router.get("/suites", tags=["catalogues"], summary="Attacks that are run together")
def list_suites() -> dict[str, Any]:
    """Version and full budgets; `grid`: the radii that a stage is limited to."""
    return {"items": [_suite(name) for name in SUITES], "next": None}


@router.get("/suites/{name}", tags=["catalogues"], summary="One suite with its attacks")
def show_suite(name: str) -> dict[str, Any]:
    """Version and full budgets; `grid`: the radii that a stage is limited to."""
    if name not in SUITES:
        raise NotFound.of("suite", name, SUITES)
    return _suite(name)


def _suite(name: str) -> dict[str, Any]:
    stages = [
        {**asdict(stage), "grid": stage.grid and [format_epsilon(e) for e in stage.grid]}
        for stage in SUITES[name].stages
    ]
    return {**asdict(SUITES[name]), "stages": stages}


@router.get("/presets", tags=["catalogues"], summary="Experiments by name")
def list_presets() -> dict[str, Any]:
    """The study's tables and other first things; `offline_form`: whether it is another one without ImageNet weights."""
    items = [
        {"name": preset.name, "title": preset.title, "offline_form": preset.offline is not None,
         "experiments": sum(map(len, preset.stages))}
        for preset in PRESETS.values()
    ]  # fmt: skip
    return {"items": items, "next": None}


@router.get("/presets/{name}", tags=["catalogues"], summary="What a preset submits")
def show_preset(
    name: str, offline: bool = False, small: bool = False, as_published: bool = False
) -> dict[str, Any]:
    """`stages`: lists of bodies for `POST /experiments`. Those of one stage may run at once; those of the next start
    from the checkpoint of the one before, whose id is to be put in place of `ckpt_of_the_stage_before`."""
    preset = find_preset(name)
    chosen = {"offline": offline, "small": small, "as_published": as_published}
    return {"name": preset.name, "title": preset.title, **chosen, "stages": stages(name, **chosen)}
