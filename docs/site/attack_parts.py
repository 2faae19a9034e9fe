"""Attacks and suites, from the catalogue, the docstrings of the attacks, and equations.toml."""

import inspect
import re
import tomllib
from collections.abc import Mapping
from itertools import starmap
from pathlib import Path
from typing import Any

from tables import code, table

from app.domain.attacks import ATTACKS, NORMS, Attack, Parameter
from app.domain.epsilon import format_epsilon
from app.domain.suites import SUITES, Stage, Suite, stage_labels
from models import gradients
from worker.attacks import attack_class

EQUATIONS = Path(__file__).parent / "equations.toml"


def attack_list() -> str:
    """A line an attack."""
    rows = [
        (f"[`{a.name}`](#{a.name})", a.title, ", ".join(a.norms), a.box, a.reference) for a in ATTACKS.values()
    ]
    return table(("name", "", "norms", "box", "reference"), rows)


def attacks() -> str:
    """A section an attack: the equation, what its docstring says, its parameters."""
    equations: Mapping[str, str] = tomllib.loads(EQUATIONS.read_text())
    if unknown := sorted(set(equations) - set(ATTACKS)):
        raise ValueError(f"{EQUATIONS.name} has equations of {', '.join(unknown)}, which the catalogue does not have")
    return "\n\n".join(_attack(attack, equations.get(name)) for name, attack in ATTACKS.items())


def _attack(attack: Attack, equation: str | None) -> str:
    doc = inspect.getdoc(attack_class(attack.name)) or ""
    parts = [f"## {attack.title} {{#{attack.name}}}"]
    parts += [f"`{attack.name}`, {', '.join(attack.norms)}; {attack.reference}."]
    parts += [f"$$\n{equation.strip()}\n$$"] if equation else []
    parts.append(_quoted(doc))
    if attack.parameters:
        parts.append(table(("parameter", "default", "allowed", ""), starmap(_parameter, attack.parameters.items())))
    return "\n\n".join(parts)


def _quoted(doc: str) -> str:
    """A docstring is text with formulas, not Markdown: it is shown as it stands."""
    return f"```text\n{doc}\n```"


def _parameter(name: str, parameter: Parameter) -> tuple[str, str, str, str]:
    allowed = ", ".join(map(code, parameter.choices))
    if parameter.minimum is not None and parameter.maximum is not None:
        allowed = f"{parameter.minimum:g} to {parameter.maximum:g}"
    return code(name), code(parameter.default), allowed or "true, false", parameter.meaning


def suites() -> str:
    """A section a suite: stages with the settings that differ from the defaults."""
    return "\n\n".join(map(_suite, SUITES.values()))


def _suite(suite: Suite) -> str:
    norms = "L-inf and L2" if suite.norms == NORMS else ", ".join(suite.norms)
    mode = "each on the survivors of those before" if suite.survivors else "each alone"
    facts = f"Version {suite.version}; {norms}; {mode}; diagnostics: {suite.diagnostics}."
    head = f"## {suite.name}\n\n{suite.title}. {facts}"
    labels = stage_labels(suite.stages)
    rows = [(code(label), f"[{s.attack}](attacks.md#{s.attack})", _settings(s), _grid(s))
            for label, s in zip(labels, suite.stages, strict=True)]  # fmt: skip
    return f"{head}\n{table(('stage', 'attack', 'other than by default', 'radii'), rows)}"


def _settings(stage: Stage) -> str:
    defaults = ATTACKS[stage.attack].resolve({})
    return ", ".join(f"{name} {value}" for name, value in stage.parameters.items() if value != defaults[name])


def _grid(stage: Stage) -> str:
    return ", ".join(format_epsilon(eps) for eps in stage.grid) if stage.grid else "as asked"


def surrogates() -> str:
    """The table in the docstring of `models.gradients`."""
    found: Any = re.search(r"^\| name .*?(?=\n\n)", inspect.getdoc(gradients) or "", re.DOTALL | re.MULTILINE)
    return "\n" + str(found[0]) + "\n"
