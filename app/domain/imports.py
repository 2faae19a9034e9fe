"""Weights that were trained elsewhere: what is said about them, and the run that stands for their training."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from app.domain.architectures import ArchitectureName, Variant
from app.domain.errors import InvalidInput, Problem, suggestion
from app.domain.plan import PlannedRun, decoder_settings
from app.domain.spec import DecoderSpec, Name, Seed
from app.domain.subject import group_of

UNKNOWN_EPOCHS = "<?>"
SHORT = 8  # characters of a sha256 that stand for it in a table
_CLOSE = 1e-6  # two means that differ by less were rounded differently


def _numbers(value: Any) -> Any:
    """`"0.5,0.5"` or `"[0.5, 0.5]"`; a single number for one channel."""
    if not isinstance(value, str):
        return value
    return _json(value) if value.lstrip().startswith("[") else value.split(",")


def _json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError("is not JSON that can be read") from error


def _epochs(value: str) -> str:
    if not re.fullmatch(r"<[0-9]{1,5}(,[0-9]{1,5})?>", value):
        raise ValueError("must be like '<200>', or '<5,5>' for a branch")
    return value


_Number = Annotated[float, Field(gt=-1e6, lt=1e6)]
Numbers = Annotated[list[_Number], Field(min_length=1, max_length=3), BeforeValidator(_numbers)]
Epochs = Annotated[str, AfterValidator(_epochs)]


class Declared(BaseModel):
    """What is said about a file beside it, as text. A file of ours says all of it itself."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    dataset: Name | None = Field(None, description="on which it is to be evaluated; sets classes and image shape")
    architecture: ArchitectureName | None = None
    variant: Variant | None = Field(None, description="`default` where nothing is said")
    stem: Literal["imagenet", "cifar"] | None = Field(
        None, description="of ResNet-18 and -50; else by the size of the first convolution: 7x7 is `imagenet`"
    )
    image_size: int | None = Field(None, ge=8, le=512, description="side to resize to; else as the images come")
    mean: Numbers | None = Field(
        None, description="of each input channel, pixels in 0..1: comma separated or JSON; else 0: no normalisation"
    )
    std: Numbers | None = Field(None, description="like `mean`; else 1")
    seed: Seed | None = Field(None, description="0 where nothing is said; one name, several seeds: one row, averaged")
    name: Name | None = Field(
        None,
        description="label of its row, in which a later file of one name and seed takes the place of an earlier one;"
        " else the beginning of the file's sha256",
    )
    epochs: Epochs | None = Field(None, description="how long it was trained: `<200>`, or `<5,5>` for a branch")
    decoder: Annotated[DecoderSpec, BeforeValidator(_json)] | None = Field(
        None, description="settings of a spiking decoder, as JSON"
    )


def read_declared(fields: Mapping[str, Any]) -> Declared:
    """From a form or a command line. Raises InvalidInput with a pointer a field."""
    try:
        return Declared.model_validate(dict(fields))
    except ValidationError as error:
        raise InvalidInput(_problems(error)) from error


def _problems(error: ValidationError) -> list[Problem]:
    places: dict[str, list[str]] = {}
    for fault in error.errors(include_url=False, include_context=False):
        steps = [str(step) for step in fault["loc"]]
        depth = 2 if steps[0] == "decoder" else 1  # deeper names are those of pydantic's tries
        detail = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            known = Declared.model_fields if len(steps) == 1 else DecoderSpec.model_fields
            detail = "unknown field" + suggestion(steps[-1], known)
        pointer = "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps[:depth])
        places.setdefault(pointer, []).append(detail)
    return [Problem(pointer, " or ".join(dict.fromkeys(details))) for pointer, details in places.items()]


@dataclass(frozen=True)
class Described:
    """What a file of ours says of itself; None for what it does not say. `model`: a ModelSpec as a dict.

    `label`: a name that someone gave; `name` is that, or one made up for it here.
    """

    model: Mapping[str, Any]
    dataset: str | None = None
    classes: list[str] | None = None
    seed: int | None = None
    branch_seed: int | None = None
    epochs: str | None = None
    name: str | None = None
    label: str | None = None


def described(model: Mapping[str, Any], metadata: Mapping[str, Any]) -> Described:
    """From the metadata of a file. They were written by anyone: what is not as ours would be counts as not said."""
    run = metadata.get("run")
    run = run if isinstance(run, Mapping) else {}
    dataset = run.get("dataset")
    classes = metadata.get("classes")
    said = {
        "dataset": dataset.get("name") if isinstance(dataset, Mapping) else None, "seed": run.get("seed"),
        "epochs": metadata.get("epochs"), "name": run.get("name"),
    }
    branch_seed = _sound({"seed": run.get("branch_seed")}).get("seed")
    known = _sound(said)
    given = known.get("name") != str(run.get("file_sha256"))[:SHORT]
    return Described(
        model, label=known.get("name") if given else None,
        classes=[str(c) for c in classes] if isinstance(classes, list) else None, branch_seed=branch_seed,
        **{**known, "name": known.get("name") or _origin(run)},
    )


def _sound(said: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in said.items():
        try:
            found[name] = getattr(Declared.model_validate({name: value}, strict=True), name)
        except ValidationError:
            continue
    return {name: value for name, value in found.items() if value is not None}


def _origin(run: Mapping[str, Any]) -> str | None:
    """A name for a training of another service, the same for all its seeds: `"study recipe 1a2b3c4d"`."""
    try:
        recipe = str(run["training"]["recipe"])
        return str(_sound({"name": f"{recipe[:60]} recipe {group_of(run)[:SHORT]}"})["name"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def contradictions(declared: Declared, file: Described) -> list[Problem]:
    """Where what is said beside a file of ours is not what it says itself."""
    model = file.model
    said = {
        "dataset": file.dataset, "seed": file.seed, "epochs": file.epochs, "name": file.label,
        **{name: model[name] for name in ("architecture", "variant", "stem", "image_size", "mean", "std")},
    }
    given = declared.model_dump(exclude={"decoder"}, exclude_none=True)
    found = [
        Problem(f"/{name}", f"the file itself says {_shown(said[name])}; leave the field out")
        for name, value in given.items()
        if (said[name] is not None or name == "image_size") and not _same(value, said[name])
    ]
    return found + _decoder_contradictions(declared.decoder, model["decoder"] or {})


def completed(declared: Declared, file: Described | None) -> Declared:
    """What is said beside the file, and for the rest what it says itself."""
    own = {} if file is None else {name: getattr(file, name) for name in ("dataset", "seed", "epochs", "name")}
    return declared.model_copy(update={name: value for name, value in own.items() if getattr(declared, name) is None})


def decoder_faults(file: Described) -> list[str]:
    """Settings of a file of ours that this service would not have trained with: some cost more than anyone has."""
    try:
        DecoderSpec.model_validate(_settings(file.model["decoder"] or {}))
    except ValidationError as error:
        return [f"decoder {fault['loc'][0]}: {fault['msg']}" for fault in error.errors()]
    return []


def _settings(decoder: Mapping[str, Any]) -> dict[str, Any]:
    """Those that a request can name."""
    return {name: value for name, value in decoder.items() if name in DecoderSpec.model_fields}


def _decoder_contradictions(given: DecoderSpec | None, own: Mapping[str, Any]) -> list[Problem]:
    named = given.model_dump(include=given.model_fields_set) if given else {}
    return [
        Problem(f"/decoder/{name}", f"the file itself says {_shown(own.get(name))}; leave the field out")
        for name, value in named.items()
        if own.get(name) != value
    ]


def _shown(value: Any) -> str:
    return "that it has none" if value is None else repr(value)


def _same(given: Any, said: Any) -> bool:
    if not isinstance(given, list) or not isinstance(said, list):
        return bool(given == said)
    return len(given) == len(said) and all(math.isclose(a, b, abs_tol=_CLOSE) for a, b in zip(given, said, strict=True))


def import_run(
    dataset: str, model: Mapping[str, Any], file_sha256: str, *,
    seed: int | None, branch_seed: int | None, epochs: str | None, name: str | None,
) -> PlannedRun:
    """The run that stands for a training elsewhere: the same file with the same said about it is the same run.

    `model`: a ModelSpec as a dict. `file_sha256`: of the file as it was handed in.
    """
    spec = {
        "kind": "import", "dataset": {"name": dataset}, "architecture": model["architecture"],
        "variant": model["variant"], "seed": seed or 0, "branch_seed": branch_seed, "epochs": epochs or UNKNOWN_EPOCHS,
        "name": name or file_sha256[:SHORT], "file_sha256": file_sha256, "model": dict(model),
        "training": {"recipe": "imported"},
    }
    if (decoder := model["decoder"]) is not None:
        spec["decoder"] = decoder_settings(DecoderSpec.model_construct(**_settings(decoder)), model["variant"])
    return PlannedRun("import", spec)


def last_epoch(epochs: str) -> int:
    """The last number of `<X,Y>`; 0 where it is not known."""
    last = epochs.strip("<>").split(",")[-1]
    return int(last) if last.isdigit() else 0
