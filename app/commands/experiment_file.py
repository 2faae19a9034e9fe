"""An experiment as a file: YAML or JSON."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from app.domain.errors import SpikeproofError


class _Loader(yaml.SafeLoader):
    """PyYAML takes `1e-3` for text, since it has no point, where people mean a number; and of a field that is written
    twice it takes the second without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """As PyYAML's; a field that is there twice is an error."""
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value!r} is there twice; say it once", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


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
