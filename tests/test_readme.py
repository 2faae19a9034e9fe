"""The README says what is so."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_every_setting_is_listed_with_its_default():
    listed = dict(re.findall(r"^\| `(SPIKEPROOF_\w+)` \| (.*?) \|", README, re.MULTILINE))
    wanted = {
        f"SPIKEPROOF_{name.upper()}": f"`{field.default}`" if str(field.default) else "empty"
        for name, field in Settings.model_fields.items()
    }
    assert listed == wanted


PAGES = ["README.md", "CONTRIBUTING.md", "docs/evaluation.md", "docs/lab-server.md", "docs/watching.md",
         "docs/reports.md", "docs/client.md", "docs/inference.md"]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), target


def test_every_make_target_named_exists():
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", README)) <= known


def test_the_commands_it_shows_exist():
    command = [sys.executable, "-m", "app.cli", "--help"]
    helped = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in set(re.findall(r"spikeproof ([a-z]+) ", README)) - {"is"}:
        assert re.search(rf"\b{name}\b", helped), name
