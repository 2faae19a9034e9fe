"""An experiment as a file: YAML or JSON."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from app.domain.errors import SpikeproofError


class _Loader(yaml.SafeLoader):
    """PyYAML takes `1e-3` for text, since it has no point; people mean a number."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


def read_experiment(file: Path) -> Any:
    """The body of `POST /experiments`. Raises SpikeproofError for what is no YAML, or cannot be JSON."""
    try:
        spec = yaml.load(file.read_text("utf-8"), Loader=_Loader)
        json.dumps(spec, allow_nan=False)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpikeproofError(f"cannot read {file}: {error}") from error
    except (TypeError, ValueError) as error:
        raise SpikeproofError(f"{file} holds something that JSON has no word for: {error}") from error
    return spec
