"""What a terminal shows of a leaderboard."""

import io
from typing import Any

from rich.console import Console

from app.commands.progress_bars import print_board


def _figure(mean: float) -> dict[str, Any]:
    return {"mean": mean, "sd": None, "n": 1, "ci95": [0, 1], "by_seed": {"0": mean}}


def _row(variant: str, curve: dict[str, float]) -> dict[str, Any]:
    points = [{"eps": float(e), "eps_text": e, "robust_accuracy": _figure(v)} for e, v in curve.items()]
    return {"rank": 1, "architecture": "resnet20", "variant": variant, "settings": "", "epochs": "<5>", "verdict": "ok",
            "reasons": [], "clean_accuracy": _figure(0.9), "test_images": 359, "robust_accuracy": _figure(0.5),
            "attacks": {"pgd": _figure(0.5)}, "curve": points}


def _printed(*rows: dict[str, Any], width: int = 100, terminal: bool = False) -> list[str]:
    out = io.StringIO()
    protocol = {"suite": "quick", "suite_version": 4, "norm": "linf", "eps_text": "0.2", "images": 10}
    print_board({"dataset": "digits", "rows": list(rows), "protocol": protocol},
                Console(file=out, width=width, force_terminal=terminal, no_color=True))
    return out.getvalue().splitlines()


def test_figures_stand_under_their_own_radius_though_rows_have_different_ones() -> None:
    lines = _printed(_row("default", {"0.2": 0.4}), _row("lif", {"0.1": 0.9, "0.2": 0.3}))
    header = next(line for line in lines if "0.1" in line and "0.2" in line)
    lif = next(line for line in lines if "90.0" in line and "30.0" in line)
    default = [line for line in lines if "default" in line][-1]
    assert header.index("0.1") < header.index("0.2")
    assert lif.index("90.0") < lif.index("30.0")
    assert abs(default.index("40.0") - lif.index("30.0")) <= 1


def test_many_radii_run_down_the_page() -> None:
    lines = _printed(_row("default", {f"0.{i}": 0.5 for i in range(1, 8)}))
    assert sum(line.strip().startswith("0.") for line in lines) == 7


def _wide() -> dict[str, Any]:
    figure = {**_figure(0.9213), "sd": 0.021, "n": 3}
    names = ("fgsm", "pgd", "apgd-ce", "apgd-dlr", "square", "hopskipjump")
    return {**_row("paralif", {"0.1": 0.5}), "settings": "gain 1, 40 timesteps", "clean_accuracy": figure,
            "robust_accuracy": figure, "attacks": dict.fromkeys(names, figure)}


def test_a_file_has_every_column_whole() -> None:
    lines = _printed(_wide(), width=40)
    assert "…" not in "".join(lines)
    assert sum(line.count("92.1 ± 2.1") for line in lines) == 8
    assert "3 seeds" in lines[0]
    assert "1 seed" in _printed(_row("lif", {"0.1": 0.5}))[0]
    assert "1 seeds" not in _printed(_row("lif", {"0.1": 0.5}))[0]


def test_a_narrow_terminal_leaves_out_columns_and_says_which() -> None:
    lines = _printed(_wide(), width=80, terminal=True)
    assert "…" not in "".join(lines)
    assert any("92.1 ± 2.1" in line and "ok" in line for line in lines)
    assert any(line.startswith("without ") and "epochs" in line for line in lines)
