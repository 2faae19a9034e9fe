"""Tables of the service as pandas data frames. pandas is an extra: nothing else here needs it."""

import io
from typing import TYPE_CHECKING

from app.client.errors import MissingExtra

if TYPE_CHECKING:
    from pandas import DataFrame


def frame_of(table: str) -> "DataFrame":
    """The data frame of a table in CSV. Raises MissingExtra without pandas."""
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtra("data frames need pandas: pip install 'spikeproof[pandas]'") from error
    return pd.read_csv(io.StringIO(table), keep_default_na=False, na_values=[""])
