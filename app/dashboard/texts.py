"""Times, states and durations as pages write them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from app.domain.architectures import variant_name

# Told by sign and word, never by colour alone.
SIGNS = {"queued": "○", "running": "▶", "succeeded": "✓", "failed": "✕", "cancelled": "⊘", "partial": "◐"}
KINDS = {"train": "Train", "branch": "Branch", "quantise": "Quantise", "shard": "Shard", "evaluate": "Evaluate",
         "verify": "Verify", "import": "Import"}  # fmt: skip


def duration(seconds: float | None) -> str:
    """`duration(3725)` -> `"1 h 2 min"`; an em dash where it is not known."""
    if seconds is None:
        return "—"
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 or seconds == 0 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours / 24:.1f} days"


def moment(utc: str | None) -> str:
    """`"2026-01-31T12:00:00.000Z"` -> `"2026-01-31 12:00:00"`, in UTC."""
    return utc[:19].replace("T", " ") if utc else "—"


def between(start: str | None, end: str | None) -> float | None:
    """Seconds from one time to another, or to now."""
    if start is None:
        return None
    return max(0.0, ((_time(end) if end else datetime.now(UTC)) - _time(start)).total_seconds())


def _time(utc: str) -> datetime:
    return datetime.fromisoformat(utc)


def run_name(run: dict[str, Any]) -> str:
    """`"train resnet20 default <2>, seed 0"`, with the branch seed where there is one, and int8 where it is."""
    branch = f", branch seed {run['branch_seed']}" if run["branch_seed"] is not None else ""
    network = f"{run['architecture']} {variant_name(run['variant'])} {run['epochs']}"
    network += f" {run['precision']}" if run["precision"] != "float32" else ""
    which = f", {run['settings']}" if run["kind"] == "shard" else ""  # several differ in nothing else
    return f"{run['kind']} {network}, seed {run['seed']}{branch}{which}"


def setting_text(value: Any) -> str:
    """A value as a person would write it."""
    if value is None:
        return "as usual"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(setting_text, value)) or "none"
    if isinstance(value, Mapping):
        inner = value.get("parameters") or {name: one for name, one in value.items() if one and name != "name"}
        told = ", ".join(f"{name} {setting_text(one)}" for name, one in inner.items())
        return f"{value.get('name', '')} {f'({told})' if told else ''}".strip()
    return f"{value:g}" if isinstance(value, float) else str(value)
