"""Experiments by name: the study's tables cell by cell, and what else people ask for first.

    stages("study-cifar10")                                # [[body, ...], ...] of POST /experiments
    stages("study-cifar10", offline=True, small=True)

`offline`: from scratch on images as they come, where the preset would take ImageNet weights; rows say "from scratch",
and their figures are not the study's. `small`: few images and epochs, which shows that all of it runs, in minutes on a
CPU, and nothing else. The experiments of a stage may run at once; those of the next one start from the checkpoint of
the one before, and have `FIRST_CHECKPOINT` in its place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.domain.errors import NotFound
from app.domain.published import DECODER as PUBLISHED_DECODER
from app.domain.published import EVALUATION_OPTIONS
from app.domain.published import IMAGES as PUBLISHED_IMAGES

FIRST_CHECKPOINT = "ckpt_of_the_stage_before"
Body = dict[str, Any]
_STUDY = ["resnet50", "resnet18"]
_GRIDS = ("study", "spiking")  # the study's own attacks and radii, and the attacks that its figures need
# The small form: so many training images, epochs divided by ten, images resized to 16x16 in the network.
_SMALL_IMAGES, _SMALL_WIDE_IMAGES = 600, 240  # of ResNet-20; of the wide networks. CIFAR-100 needs 200
_SMALL_EPOCHS, _LONGEST = 10, 3
_SMALL_SIDE, _SMALL_IMAGENET_SIDE = 16, 64  # ImageNet weights see nothing in less
_SMALL_EVALUATION = {"images": 20, "clean_images": 200, "eps": ["2/255", "8/255"]}


def _use(name: str, **parameters: Any) -> dict[str, Any]:
    return {"name": name, "parameters": parameters}


_SMALL_QUICK = [_use("fgsm", draws=4), _use("pgd", steps=5, draws=4), _use("square", queries=20, draws=4)]
_SMALL_SPIKING = [
    _use("apgd", steps=5, gradient="expected"), _use("apgd", steps=5, gradient="sampled", draws=4),
    _use("apgd", steps=5, gradient="straight_through", draws=4), _use("sapgd", steps=5, gradient="assg", draws=4),
    _use("square", queries=20, draws=4), _use("transfer", steps=3, draws=4),
]  # fmt: skip
_SMALL_ATTACKS = {
    "study": [_use("fgsm", draws=4), _use("deepfool", steps=5, candidates=3, draws=4),
              _use("square", queries=20, schedule="standard", draws=4)],
    "quick": _SMALL_QUICK,
    "spiking": _SMALL_SPIKING,
    "audit": [*_SMALL_QUICK[:2], _use("mifgsm", steps=3, draws=4), _use("deepfool", steps=5, candidates=3, draws=4),
              _use("fab", steps=3, targets=2, draws=4), _use("fmn", steps=5, draws=4), *_SMALL_SPIKING,
              _use("hopskipjump", queries=50, first_evaluations=10, draws=4), _use("noise", tries=3)],
}  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """`stages` are the bodies of `POST /experiments`; `offline` those that take their place where nothing can be
    downloaded, None where they need no weights."""

    name: str
    title: str
    stages: tuple[tuple[Body, ...], ...]
    offline: tuple[tuple[Body, ...], ...] | None = None


def find_preset(name: str) -> Preset:
    """Raises NotFound with the nearest names."""
    if name not in PRESETS:
        raise NotFound.of("preset", name, PRESETS)
    return PRESETS[name]


def stages(
    name: str, *, offline: bool = False, small: bool = False, as_published: bool = False
) -> list[list[Body]]:
    """The experiments of a preset; as published: under all options of `app.domain.published`. Raises NotFound."""
    preset = find_preset(name)
    chosen = preset.offline if offline and preset.offline is not None else preset.stages
    forms = {"offline": offline and preset.offline is not None, "small": small, "as published": as_published}
    words = [word for word, wanted in forms.items() if wanted]
    if as_published:
        chosen = tuple(_published_bodies(stage) for stage in chosen)
    return [[_formed(body, words) for body in stage] for stage in chosen]


def _formed(body: Mapping[str, Any], words: Sequence[str]) -> Body:
    name = f"{body['name']} ({', '.join(words)})" if words else body["name"]
    return (_small(body) if "small" in words else dict(body)) | {"name": name}


def _published_bodies(bodies: Sequence[Body]) -> tuple[Body, ...]:
    """With the study's attacks alone: where a table is there under several suites, once."""
    kept = [body for body in bodies if body.get("evaluation", {}).get("suite") == "study"] or bodies
    options = {"suite": "study", "images": PUBLISHED_IMAGES, "as_published": list(EVALUATION_OPTIONS)}
    return tuple(
        {**body, "decoder": {**body.get("decoder", {}), **_published_decoder(body)}, "evaluation": options}
        for body in kept
    )


def _published_decoder(body: Body) -> dict[str, Any]:
    """Without the read-out of lif where there is no lif."""
    lif = "lif" in body.get("variants", ["lif"])
    return {name: value for name, value in PUBLISHED_DECODER.items() if lif or name != "readout"}


def _small(body: Mapping[str, Any]) -> Body:
    """Few images and epochs, small images, and the attacks of the suite with a few steps each."""
    training = {"epochs": 20, "branch_epochs": 10, **body.get("training", {})}
    wide = set(body.get("architectures", ())) - {"resnet20"}
    given = training.get("weights") == "imagenet"
    small = _shorter(training) | {
        "images": _SMALL_WIDE_IMAGES if wide else _SMALL_IMAGES,
        "overrides": [_shorter(override) for override in training.get("overrides", [])],
    }
    if body["dataset"] != "digits":  # whose images are 8x8
        small["image_size"] = _SMALL_IMAGENET_SIDE if given else _SMALL_SIDE
    suite = body.get("evaluation", {}).get("suite", "quick")
    evaluation = {**_SMALL_EVALUATION, "attacks": _SMALL_ATTACKS[suite]}
    if options := body.get("evaluation", {}).get("as_published"):
        evaluation |= {"as_published": options, "eps": ["0.05"]}  # of the normalised input
    return {**body, "training": small, "evaluation": evaluation}


def _shorter(training: Mapping[str, Any]) -> dict[str, Any]:
    """A tenth of the epochs, rounded up."""
    lengths = {name: training[name] for name in ("epochs", "branch_epochs") if name in training}
    return {**training, **{name: min(-(-epochs // _SMALL_EPOCHS), _LONGEST) for name, epochs in lengths.items()}}


def _study_tables(dataset: str, *tables: Mapping[str, Any]) -> tuple[tuple[Body, ...], ...]:
    """Each table under each suite; the networks are trained once."""
    bodies = []
    for table in tables:
        for suite in _GRIDS:
            name = f"{table['name']}, suite {suite}"
            usual = {"dataset": dataset, "architectures": _STUDY, "seeds": [0, 1, 2], "evaluation": {"suite": suite}}
            bodies.append({**usual, **table, "name": name})
    return (tuple(bodies),)


def _lengths(epochs: int, branch_epochs: int, *overrides: Mapping[str, Any]) -> dict[str, Any]:
    lengths = {"weights": "imagenet", "epochs": epochs, "branch_epochs": branch_epochs}
    return {**lengths, "overrides": list(overrides)} if overrides else lengths


_SCRATCH = {"weights": "none", "stem": "cifar"}  # lengths are the recipe's
_CIFAR10 = _study_tables(
    "cifar10",
    {"name": "study, CIFAR-10, first documents",
     "training": _lengths(5, 5, {"architecture": "resnet18", "variant": "paralif", "branch_epochs": 20})},
    {"name": "study, CIFAR-10, later figures", "training": _lengths(10, 10)},
)  # fmt: skip
_CIFAR100 = _study_tables(
    "cifar100",
    {"name": "study, CIFAR-100, first documents", "variants": ["default"],
     "training": _lengths(25, 5, {"architecture": "resnet50", "epochs": 70})},
    {"name": "study, CIFAR-100, later figures", "training": _lengths(10, 10)},
)  # fmt: skip
_FASHION = _study_tables(
    "fashion-mnist", {"name": "study, Fashion-MNIST, later figures", "training": _lengths(10, 10)}
)


def _timesteps(training: Mapping[str, Any]) -> tuple[Body, ...]:
    """The parents are shared."""
    return tuple(
        {"name": f"timesteps {steps}", "dataset": "cifar10", "architectures": ["resnet18"], "seeds": [0, 1, 2],
         "variants": ["lif", "paralif"], "training": dict(training), "decoder": {"timesteps": steps},
         "evaluation": {"suite": "spiking"}}
        for steps in (1, 2, 5, 10, 20, 40)
    )  # fmt: skip


def _scratch(name: str, dataset: str, **more: Any) -> tuple[tuple[Body, ...], ...]:
    body = {"name": name, "dataset": dataset, "architectures": ["resnet20"], "seeds": [0, 1, 2],
            "evaluation": {"suite": "spiking"}, **more}  # fmt: skip
    return ((body,),)


def _depths(weights: str, architecture: str, deepest: int, **training: Any) -> tuple[Body, ...]:
    return tuple(
        {"name": f"freeze depth {depth}", "dataset": "cifar10", "architectures": [architecture], "seeds": [0, 1, 2],
         "training": {"weights": weights, "freeze_depth": depth, **training}, "evaluation": {"suite": "quick"}}
        for depth in range(deepest + 1)
    )  # fmt: skip


# Untrained weights cannot be frozen: where there are none of ImageNet, CIFAR-100's are the start.
_OWN_ENCODER = {
    "name": "an encoder to freeze", "dataset": "cifar100", "architectures": ["resnet20"], "variants": ["default"],
    "seeds": [0], "evaluation": {"suite": "quick", "images": 100},
}  # fmt: skip

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("quickstart", "ResNet-20 in three variants on scikit-learn's digits, in minutes",
               (({"name": "quick start", "dataset": "digits", "seeds": [0, 1], "evaluation": {"images": 120}},),)),
        Preset("study-cifar10", "The study's tables for CIFAR-10: ResNet-50 and -18 from ImageNet, <X,Y> by cell",
               _CIFAR10, _study_tables("cifar10", {"name": "the study's cells, CIFAR-10", "training": _SCRATCH})),
        Preset("study-cifar100", "The study's tables for CIFAR-100", _CIFAR100,
               _study_tables("cifar100", {"name": "the study's cells, CIFAR-100", "training": _SCRATCH})),
        Preset("study-fashion-mnist", "The study's tables for Fashion-MNIST", _FASHION,
               _study_tables("fashion-mnist", {"name": "the study's cells, Fashion-MNIST", "training": _SCRATCH})),
        Preset("resnet20-cifar10", "ResNet-20 from scratch on CIFAR-10, three variants",
               _scratch("ResNet-20, CIFAR-10", "cifar10", training={"epochs": 100, "branch_epochs": 20})),
        Preset("resnet20-cifar100", "ResNet-20 from scratch on CIFAR-100, three variants",
               _scratch("ResNet-20, CIFAR-100", "cifar100", training={"epochs": 100, "branch_epochs": 20})),
        Preset("resnet50-vanilla-cifar100", "ResNet-50 from scratch on CIFAR-100, the plain network",
               _scratch("ResNet-50, CIFAR-100, vanilla", "cifar100", architectures=["resnet50"], variants=["default"],
                        training={"epochs": 100, "stem": "cifar"})),
        Preset("depth-sweep", "What freezing the encoder to depth 0..4 costs and changes",
               (_depths("imagenet", "resnet18", 4, epochs=5, branch_epochs=5),),
               ((_OWN_ENCODER,), _depths(FIRST_CHECKPOINT, "resnet20", 3, epochs=5, branch_epochs=5))),
        Preset("timesteps-sweep", "Accuracy and robustness of the spiking heads over 1 to 40 time steps",
               (_timesteps(_lengths(10, 10)),), (_timesteps(_SCRATCH),)),
        Preset("audit", "Every attack there is on ResNet-20, three variants",
               _scratch("audit, CIFAR-10", "cifar10", evaluation={"suite": "audit"})),
    )
}  # fmt: skip
