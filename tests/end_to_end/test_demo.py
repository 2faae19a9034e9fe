"""`spikeproof demo`, as `make demo` calls it."""

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_demo_trains_attacks_and_ranks_three_variants_on_real_digits(tmp_path) -> None:
    environment = {**os.environ, "SPIKEPROOF_DATA_DIR": str(tmp_path)}
    demo = subprocess.run(
        [sys.executable, "-m", "app.cli", "demo"], env=environment, capture_output=True, text=True, timeout=900,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "robust accuracy % as eps grows" in demo.stdout
    rows = {row["variant"]: row for row in json.loads((tmp_path / "leaderboard.json").read_text())["rows"]}
    assert set(rows) == {"default", "lif", "paralif"}
    for row in rows.values():
        assert row["clean_accuracy"]["mean"] >= 0.975
        assert row["clean_accuracy"]["n"] == 2
        assert row["verdict"] in ("ok", "warn"), row["reasons"]  # no check cries wolf
        radii = [point["robust_accuracy"]["mean"] for point in row["curve"]]
        assert [point["eps_text"] for point in row["curve"]] == ["8/255", "32/255", "64/255"]
        assert row["clean_accuracy"]["mean"] > radii[0] > radii[1] > radii[2]
    assert rows["paralif"]["clean_accuracy"]["mean"] > rows["default"]["clean_accuracy"]["mean"] - 0.03
