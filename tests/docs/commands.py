"""What the pages show to be typed: console blocks, the files that they mention, and what is said of their output.

A block is run unless a comment stands right before it, `<!-- not run: WHY -->`, or one anywhere on the page,
`<!-- not run on this page: WHY -->`. A yaml block with `title="NAME"` is a file.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"(?:<!-- not run: (?P<why>.+?) -->\n)?^```console\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r'^```yaml title="(?P<name>[^"]+)"\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """`line`: of the page. `output`: what the page shows, empty where it shows none."""

    page: str
    line: int
    text: str
    output: str


def commands(page: Path, root: Path) -> Iterator[Command]:
    """Those that are to be run, in the order of the page."""
    text = page.read_text()
    if "<!-- not run on this page: " in text:
        return
    for block in _BLOCK.finditer(text):
        if block["why"] is None:
            first = text[: block.start("text")].count("\n") + 1
            yield from _commands_of(block["text"], page.relative_to(root).as_posix(), first)


def _commands_of(block: str, page: str, line: int) -> Iterator[Command]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        length = next(i for i, one in enumerate(lines, start=1) if not one.endswith("\\"))
        yield Command(page, line, "\n".join(lines[:length]), "\n".join(lines[length:]))
        line += len(lines)


def files(page: Path) -> dict[str, str]:
    """The files that a page has one write."""
    return {found["name"]: found["text"] for found in _FILE.finditer(page.read_text())}


def missing(shown: str, seen: str) -> list[str]:
    """Lines of an output that the page shows, and none that was seen has the form of: numbers may be others, with or
    without a deviation, one instead of several, ids and spaces too. A line `...` stands for the rest."""
    there = {_form(line) for line in seen.splitlines()}
    return [line for line in shown.splitlines() if line.strip() not in ("", "...") and _form(line) not in there]


def _form(line: str) -> str:
    line = re.sub(r"\b(exp|run|ckpt|row)_\w+", "ID", line)
    line = re.sub(r"\d+(\.\d+)?( ± \d+(\.\d+)?)?", "N", line)
    line = re.sub(r"\bN (seed|image)\b", r"N \1s", line)  # of one alone
    return " ".join(re.sub(r"─+", "─", line).split())
