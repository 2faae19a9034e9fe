"""Entries of the catalogues that installed packages bring along, and the code that an entry names.

A package says in its pyproject.toml what it brings, a group a catalogue:

    [project.entry-points."spikeproof.attacks"]
    stripes = "lab_plugin:STRIPES"              # an app.domain.attacks.Attack

Groups: `attacks`, `architectures`, `variants`, `datasets`. The module that holds entries is imported by the API and the
command line as well: it must not import torch. Code, which may, is named as text and imported by workers alone.
"""

from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol, TypeVar

from app.domain.errors import PluginError

PREFIX = "spikeproof."


class Named(Protocol):
    """An entry of a catalogue."""

    @property
    def name(self) -> str:
        """As requests say it."""


NamedT = TypeVar("NamedT", bound=Named)


def catalogue(group: str, kind: type[NamedT], ours: Iterable[NamedT]) -> dict[str, NamedT]:
    """Our entries by name, then those of installed packages. Raises PluginError for one that is no such entry, cannot
    be imported, or has a name that is taken."""
    found = {entry.name: entry for entry in ours}
    for point in entry_points(group=PREFIX + group):
        entry = _loaded(point.value, f"the entry point {point.name!r} of {PREFIX}{group}")
        if not isinstance(entry, kind):
            raise PluginError(f"{point.value} of {PREFIX}{group} must be a {kind.__module__}.{kind.__name__}")
        if entry.name in found:
            taken = f"{point.value} brings {entry.name!r}, which {PREFIX}{group} has already"
            raise PluginError(f"{taken}; give it another name")
        found[entry.name] = entry
    return found


def code(place: str) -> Any:
    """What `"package.module:name"` names, imported now. Raises PluginError."""
    return _loaded(place, "an entry of a catalogue")


def _loaded(place: str, told_by: str) -> Any:
    module, _, name = place.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise PluginError(f"{told_by} names {place}, which cannot be imported: {error}") from error
