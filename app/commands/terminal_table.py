"""A plain table in the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """As wide as the terminal; in a file, as it needs. What a cell says is never taken for markup."""
    console = Console()
    table = Table(box=None, pad_edge=False)
    for place, name in enumerate(header):
        table.add_column(name, no_wrap=place == 0)  # an id is of no use cut short
    for row in rows:
        table.add_row(*map(Text, row))
    if not console.is_terminal:
        console.width = 100_000  # to measure in
        console.width = Measurement.get(console, console.options, table).maximum
    console.print(table)
