"""Every setting, from app/settings.py."""

from tables import code, table

from app.settings import Settings


def settings_table() -> str:
    """Name, default, range and meaning, in the order of the code."""
    rows = [
        (code(f"SPIKEPROOF_{name.upper()}"), code(field.default) or "empty", field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    return table(("name", "default", "what it does"), rows)
