"""Tables of the service as pandas data frames. pandas is an extra: nothing else here needs it."""

import csv
import io
from typing import TYPE_CHECKING, Any

from app.client.errors import MissingExtra

if TYPE_CHECKING:
    from pandas import DataFrame


# Columns that may be empty in every row, which pandas would take for numbers; counts, of which some may be missing.
_TEXTS = ("settings", "as_published", "label", "recipe", "attack", "eps_text", "row", "latency_machine")
_COUNTS = ("rank", "seed", "seeds", "n")


def frame_of(table: str) -> "DataFrame":
    """The data frame of a table in CSV. Raises MissingExtra without pandas."""
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtra("data frames need pandas: pip install 'spikeproof[pandas]'") from error
    names = next(csv.reader([table.partition("\n")[0]]))
    types: dict[Any, Any] = {name: str for name in _TEXTS if name in names}
    types |= {name: "Int64" for name in _COUNTS if name in names}
    missing = {name: [""] for name in names if name not in _TEXTS}
    return pd.read_csv(io.StringIO(table), dtype=types, keep_default_na=False, na_values=missing)
