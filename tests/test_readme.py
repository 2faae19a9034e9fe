"""The README says what is so."""

import re
import subprocess
import sys
from pathlib import Path

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


def test_every_make_target_named_exists():
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", README)) <= known


def test_the_commands_it_shows_exist():
    command = [sys.executable, "-m", "app.cli", "--help"]
    helped = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in set(re.findall(r"spikeproof ([a-z]+) ", README)) - {"is"}:
        assert re.search(rf"\b{name}\b", helped), name
