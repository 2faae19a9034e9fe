"""Scripts and styles: ours from `static/`, and plotly.js out of the installed Python package. No request leaves the
server."""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Asset:
    """A file that a page refers to. It is read when first asked for."""

    path: Path

    @cached_property
    def content(self) -> bytes:
        """The file's bytes."""
        return self.path.read_bytes()

    @cached_property
    def compressed(self) -> bytes:
        """The same under gzip."""
        return gzip.compress(self.content, 6, mtime=0)

    @cached_property
    def version(self) -> str:
        """Changes with the content."""
        return hashlib.sha256(self.content).hexdigest()[:16]

    @property
    def media_type(self) -> str:
        """By the file's name."""
        return _TYPES[self.path.suffix]


def _plotly() -> Path:
    """Without importing plotly, which takes a second."""
    spec = find_spec("plotly")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "package_data" / "plotly.min.js"


_OWN = sorted(path for path in (Path(__file__).parent / "static").iterdir() if path.suffix in _TYPES)
ASSETS = {path.name: Asset(path) for path in (*_OWN, _plotly())}


def address(name: str) -> str:
    """Where a page finds it: `address("style.css")` -> `"/ui/static/style.css?v=..."`."""
    return f"/ui/static/{name}?v={ASSETS[name].version}"
