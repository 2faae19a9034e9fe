"""What a checkpoint is, in Markdown: to lie beside its file.

Sections after Mitchell et al. 2019, Model Cards for Model Reporting, doi:10.1145/3287560.3287596.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.domain.architectures import ARCHITECTURES, VARIANT_FACTS, variant_name
from app.domain.datasets import KNOWN
from app.domain.leaderboard import OK
from app.domain.protocol import FRESH_DRAWS
from app.domain.published import decoder_marks
from app.domain.recipes import RECIPES
from app.domain.weights import weights_text
from app.reports.markup import markdown_text, render
from app.reports.tables import NORMS, Table

Facts = Mapping[str, Any]
_USE = """\
Made for research on robustness: to be attacked, compared, and started from. Not for decisions about people or things.

- Robust accuracies are upper bounds, under the protocol in their row alone: a stronger attack can only lower them, and
  other norms, radii and images say nothing here.
- Clean accuracy is of the test split of the one data set above; on other images it may be anything.
- Pixels go in as they are, in 0..1: resizing and normalising are part of the network."""


def model_card(
    checkpoint: Facts, training: Facts, figures: Sequence[Facts], conditions: Sequence[Facts]
) -> str:
    """`checkpoint` as the API shows it in full, `training`: the specification of the run that made it, `figures`: one
    a radius, `conditions`: under which those were measured, each once."""
    name = f"{checkpoint['architecture']} {variant_name(checkpoint['variant'])} on {checkpoint['dataset']}"
    title = f"{name}, seed {checkpoint['seed']}"
    sections = (
        ("Model", _listed(_model(checkpoint, training))),
        ("Training", _listed(_training(checkpoint, training))),
        ("Results", _results(figures)),
        ("Use", f"{_how_to_load(checkpoint)}\n\n{_USE}"),
        ("Data", _listed(_data(checkpoint))),
        ("Provenance", _listed(_provenance(checkpoint, conditions))),
    )
    parts = [f"# {markdown_text(title)}", *(f"## {heading}\n\n{text}" for heading, text in sections)]
    return "\n\n".join(parts) + "\n"


def _listed(facts: Iterator[tuple[str, object]]) -> str:
    """A fact a line; those that are not known are left out."""
    return "\n".join(f"- **{name}**: {markdown_text(str(value))}" for name, value in facts if value not in (None, ""))


def _model(checkpoint: Facts, training: Facts) -> Iterator[tuple[str, object]]:
    model, facts = checkpoint["spec"]["model"], ARCHITECTURES[checkpoint["architecture"]]
    yield "architecture", f"{facts.title} ({facts.reference})"
    yield "variant", f"{variant_name(checkpoint['variant'])}: {VARIANT_FACTS[checkpoint['variant']].head}"
    yield "decoder", ", ".join(f"{name} {value}" for name, value in training.get("decoder", {}).items())
    yield "as published", ", ".join(decoder_marks(training.get("decoder")))
    parameters = checkpoint["metrics"].get("parameters")
    yield "parameters", parameters and f"{parameters:,}"
    yield "input", "x".join(map(str, model["image_shape"])) + " pixels in 0..1, channels first"
    yield "precision", model.get("precision", "float32")
    yield "quantised by", ", ".join(f"{name} {value}" for name, value in training.get("quantisation", {}).items())
    latency = checkpoint["metrics"].get("latency")
    yield "a prediction takes", latency and (
        f"{latency['p50_ms']} ms (median, one image, {latency['kernels']} kernels, {_threads(latency['threads'])}, "
        f"{latency['machine']})"
    )
    energy = checkpoint["metrics"].get("energy")
    yield "estimated energy of a prediction", energy and (
        f"{energy['microjoules']:.1f} µJ: {energy['multiply_adds']:,} multiply-adds, "
        f"{energy['synaptic_operations']:,} synaptic operations ({energy['source']})"
    )
    rates = checkpoint["metrics"].get("spike_rates") or {}
    yield "spikes per neuron and step", ", ".join(f"{name} {rate:.3f}" for name, rate in rates.items())


def _training(checkpoint: Facts, spec: Facts) -> Iterator[tuple[str, object]]:
    yield "epochs", f"{checkpoint['epochs']} (of the continuous network, then of the spiking branch)"
    yield "seed", checkpoint["seed"]
    yield "seed of the branch", spec.get("branch_seed")
    if spec.get("source", spec["kind"]) == "import":
        yield "recipe", f"trained elsewhere; handed in as {spec['name']}"
        return
    training = spec["training"]
    recipe = training["recipe"]
    yield "recipe", f"{recipe} v{training['recipe_version']}: {RECIPES[recipe].title if recipe in RECIPES else ''}"
    shown = ("schedule", "learning_rate", "decoder_learning_rate", "batch_size", "momentum", "weight_decay", "augment",
             "freeze_depth", "draws")  # fmt: skip
    yield "settings", ", ".join(f"{name.replace('_', ' ')} {training[name]}" for name in shown if name in training)
    parent = checkpoint["parent"]
    yield "started from", f"checkpoint {parent}" if parent else weights_text(spec["model"])
    yield "held out", f"{training['validation_share']:.0%} of the training split; the test split chose nothing"
    validation = checkpoint["metrics"].get("validation_accuracy")
    yield "validation accuracy", None if validation is None else f"{100 * validation:.1f} %"


def _suite(figure: Facts) -> str:
    """With its attacks where the name does not say them."""
    named = f" ({', '.join(figure['attacks']) or 'no attack'})" if figure["suite"] == "custom" else ""
    return f"{figure['suite']} v{figure['protocol']['suite_version']}{named}"


def _results(figures: Sequence[Facts]) -> str:
    if not figures:
        return "It has not been attacked yet."
    first = figures[-1]
    rows = [[
        _suite(f), f"{NORMS[f['norm']]} {f['protocol']['eps_text']}",
        str(f["images"]), f"{100 * f['robust_accuracy']:.1f}", f["verdict"], "; ".join(f["reasons"]),
    ] for f in figures]  # fmt: skip
    table = Table(["suite", "eps", "images", "robust %", "verdict", "reasons"], rows, [], [])
    details = first["details"]
    clean = f"Clean accuracy {100 * first['clean_accuracy']:.1f} % on {details['test_images']} test images"
    if details["test_images"] != first["images"]:
        clean += f", {100 * details['clean_accuracy_subset']:.1f} % on the {first['images']} that were attacked"
    noisy = f" Its output is noisy: figures are means over {FRESH_DRAWS} fresh draws, which chose no attack." \
        if first["draws"] > 1 else ""  # fmt: skip
    bound = "" if all(f["verdict"] == OK for f in figures) else " `upper bound only`: a check found such a sign."
    ok = "`ok`: no check found a clear sign that the attacks were led astray."
    return f"{clean}.{noisy}\n\n{render(table, 'md')}\n{ok}{bound}{_warnings(figures)}"


def _warnings(figures: Sequence[Facts]) -> str:
    """What is no reason yet, but worth knowing; empty where nothing is."""
    found = [f"- {_suite(f)}, {f['protocol']['eps_text']}: `{check['check']}`: {check['text']}"
             for f in figures for check in f["details"].get("checks", ()) if check["verdict"] == "warn"]  # fmt: skip
    return "\n\nWarnings:\n\n" + "\n".join(found) if found else ""


def _how_to_load(checkpoint: Facts) -> str:
    name = f"{checkpoint['id']}.safetensors"
    shape = ", ".join(map(str, (1, *checkpoint["spec"]["model"]["image_shape"])))
    return f"""\
```console
$ curl -s -o {name} $SPIKEPROOF_URL/checkpoints/{checkpoint['id']}/file
```

```python
from pathlib import Path

import torch

from models.checkpoint import load

model, metadata = load(Path("{name}"))  # on the CPU, in eval mode
logits = model(torch.rand({shape}))  # pixels in 0..1
```"""


def _data(checkpoint: Facts) -> Iterator[tuple[str, object]]:
    facts, classes = KNOWN.get(checkpoint["dataset"]), checkpoint["spec"]["classes"]
    yield "data set", checkpoint["dataset"] if facts is None else f"{facts.title} ({facts.source})"
    yield "licence", "of a folder of one's own: not known here" if facts is None else facts.licence
    shown = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
    yield f"{len(classes)} classes", shown
    yield "sha256 of the images", checkpoint["spec"].get("data_sha256")


def _provenance(checkpoint: Facts, conditions: Sequence[Facts]) -> Iterator[tuple[str, object]]:
    yield "checkpoint", checkpoint["id"]
    yield "sha256", checkpoint["sha256"]
    yield "size", f"{checkpoint['size']:,} bytes"
    yield "made", f"{checkpoint['created_at']} by run {checkpoint['run_id']}"
    yield "version of the code", checkpoint["spec"].get("code_version")
    yield "parent", checkpoint["parent"]
    yield "sha256 of the parent", checkpoint["spec"].get("parent_sha256")
    for one in conditions:
        yield "figures measured on", conditions_text(one)
    verified = checkpoint.get("verified")
    yield "verified", verified and f"{verified['at']}: {verified['text']}"


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"


def conditions_text(conditions: Facts) -> str:
    """`"cpu (AVX512), torch 2.10.0, 2 threads, 250 images at once, code 0.1.0"`."""
    return (f"{conditions['device']} ({conditions['hardware']}), torch {conditions['torch']}, "
            f"{_threads(conditions['threads'])}, {conditions['attack_batch']} images at once, "
            f"code {conditions['code_version']}")  # fmt: skip
