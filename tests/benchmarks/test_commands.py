"""That each benchmark starts by the command that its first lines name."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"^    (?:\w+=\S+ )*python ((?:-m )?\S+)", re.MULTILINE)
SCRIPTS = sorted(p.name for p in (ROOT / "benchmarks").glob("*.py") if "ArgumentParser" in p.read_text())


def test_there_are_scripts() -> None:
    assert {"bench.py", "load.py", "serving.py"} <= set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_starts_and_says_what_it_takes(name: str) -> None:
    path = ROOT / "benchmarks" / name
    commands = COMMAND.findall(ast.get_docstring(ast.parse(path.read_text()), clean=False) or "")
    assert commands, "its first lines say how it is run"
    for command in sorted(set(commands)):
        assert command in (f"-m benchmarks.{path.stem}", f"benchmarks/{name}")
        ran = subprocess.run(
            [sys.executable, *command.split(), "--help"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.startswith("usage: ")
