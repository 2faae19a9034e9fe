"""`spikeproof --help`, of every command."""

import re

import typer
from typer.cli import get_docs_for_click

from app.cli import cli


def commands() -> str:
    """As typer describes itself, one level of headings down."""
    command = typer.main.get_command(cli)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="spikeproof", indent=1)
    text = re.sub(r"^## `spikeproof`$\n", "", text, count=1, flags=re.MULTILINE)
    return re.sub(r"^(#+) `(.+)`$", lambda found: f"{found[1][1:] or '#'} `{found[2]}`", text, flags=re.MULTILINE)
