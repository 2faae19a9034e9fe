"""All catalogues that installed packages may add to."""

from app.domain.architectures import ARCHITECTURES, VARIANT_FACTS
from app.domain.attacks import ATTACKS
from app.domain.datasets import KNOWN


def load() -> None:
    """Reads each entry now. Raises PluginError for one that cannot be used, before a request meets it."""
    for catalogue in (ATTACKS, ARCHITECTURES, VARIANT_FACTS, KNOWN):
        _ = list(catalogue.values())
