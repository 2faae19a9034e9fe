"""Entries of the catalogues that installed packages bring along, and the code that an entry names.

A package says in its pyproject.toml what it brings, a group a catalogue:

    [project.entry-points."spikeproof.attacks"]
    stripes = "lab_plugin:STRIPES"              # an app.domain.attacks.Attack

Groups: `attacks`, `architectures`, `variants`, `datasets`; the name of an entry point is the entry's. The module that
holds entries is imported by the API and the command line as well: it must not import torch. Code, which may, is named
as text and imported by workers alone.
"""

from collections import UserDict
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, TypeVar

from app.domain.errors import PluginError

PREFIX = "spikeproof."


class Named(Protocol):
    """An entry of a catalogue."""

    @property
    def name(self) -> str:
        """As requests say it."""


NamedT = TypeVar("NamedT", bound=Named)


class Catalogue(UserDict[str, NamedT]):
    """Our entries by name, then those of installed packages: their names at once, the entries when they are asked for,
    since their packages import the catalogues themselves.

    Raises PluginError for one that is no such entry, cannot be imported, or has a name that is taken.
    """

    def __init__(self, group: str, kind: type[NamedT], ours: Iterable[NamedT]) -> None:
        super().__init__({entry.name: entry for entry in ours})
        self._kind = kind
        for point in entry_points(group=PREFIX + group):
            if point.name in self.data:
                raise PluginError(f"{_told(point)} has a name that is taken; give it another")
            self.data[point.name] = point  # type: ignore[assignment]  # until it is asked for

    def __getitem__(self, name: str) -> NamedT:
        entry = self.data[name]
        if isinstance(entry, EntryPoint):
            entry = self.data[name] = self._loaded(entry)
        return entry

    def _loaded(self, point: EntryPoint) -> NamedT:
        entry = _imported(point.value, _told(point))
        if not isinstance(entry, self._kind):
            raise PluginError(f"{_told(point)} must be of {self._kind.__module__}.{self._kind.__name__}")
        if entry.name != point.name:
            raise PluginError(f"{_told(point)} is the entry {entry.name!r}; call the entry point so, too")
        return entry


def code(place: str) -> Any:
    """What `"package.module:name"` names, imported now. Raises PluginError."""
    return _imported(place, f"{place}, which an entry of a catalogue names,")


def _told(point: EntryPoint) -> str:
    return f"{point.name} = {point.value} of {point.group}"


def _imported(place: str, told: str) -> Any:
    module, _, name = place.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise PluginError(f"{told} cannot be imported: {error}") from error
