"""What the site has from the code, by the names that pages ask for it."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

from api_part import api
from attack_parts import attack_list, attacks, suites, surrogates
from catalogue_parts import architectures, datasets, presets, recipes, spike_modes
from commands_part import commands
from layers_part import layer_study
from settings_part import settings_table
from spec_part import experiment_fields

PARTS: dict[str, Callable[[], str]] = {
    "api": api, "attacks": attacks, "attack-list": attack_list, "suites": suites, "surrogates": surrogates,
    "architectures": architectures, "datasets": datasets, "presets": presets, "recipes": recipes,
    "spike-modes": spike_modes, "commands": commands, "settings": settings_table, "experiment": experiment_fields,
    "layers-resnet20": lambda: layer_study("resnet20"), "layers-resnet18": lambda: layer_study("resnet18"),
    "layers-resnet50": lambda: layer_study("resnet50"),
}  # fmt: skip
PARTS = {name: cache(part) for name, part in PARTS.items()}


def excerpts(folder: Path, *, newest_first: bool) -> str:
    """A line a page: its title, and how it begins."""
    pages = sorted((p for p in folder.glob("*.md") if p.name != "index.md"), reverse=newest_first)
    return "\n".join(_excerpt(page) for page in pages)


def _excerpt(page: Path) -> str:
    title = re.search(r"^# (.+)$", page.read_text(), re.MULTILINE)
    if title is None:
        raise ValueError(f"{page} has no title: begin it with a line `# ...`")
    return f"- [{title[1]}]({page.name})"
