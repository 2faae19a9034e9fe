"""That the comparison with the peers runs, and writes what it says it writes."""

import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks import bench, growth
from benchmarks.contest import Contest, play

COLUMNS = {"name", "ours", "peer", "peer_name", "ratio", "target", "limit_share", "ours_accuracy", "peer_accuracy"}


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_tiny_set_of_rows_is_measured_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["--quick", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "latest.json").read_text())
    assert set(found) == {"machine", "versions", "rows"}
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert len(found["rows"]) == 3
    for row in found["rows"]:
        assert set(row) == COLUMNS
        assert row["ours"] > 0
        assert row["peer"] > 0
        assert row["ratio"] > 0
    table = (tmp_path / "latest.md").read_text()
    assert all(row["name"] in table for row in found["rows"])


def test_the_committed_results_have_that_shape_too() -> None:
    found = json.loads((bench.RESULTS / "latest.json").read_text())
    assert all(set(row) == COLUMNS for row in found["rows"])
    assert len({row["name"] for row in found["rows"]}) == len(found["rows"])


def test_without_images_it_says_what_to_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPIKEPROOF_TEST_DATA", str(tmp_path))
    with pytest.raises(SystemExit) as stopped:
        bench.main([])
    assert stopped.value.code == 2
    told = capsys.readouterr().err.replace("\n", " ")
    assert "set SPIKEPROOF_TEST_DATA to a folder with cifar10-test.npz" in told
    assert f"{tmp_path} has none" in told


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_that_comparison_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        bench.main(["--device", "cuda"])
    assert stopped.value.code == 2
    assert "torch sees no GPU" in capsys.readouterr().err


def test_a_rows_peer_is_the_fastest_of_those_that_are_strong_enough() -> None:
    def busy(turns: int, accuracy: float):
        def run(seed: int) -> float:
            for _ in range(turns):
                torch.ones(100_000).exp_().sum()
            return accuracy

        return run

    row = play(Contest(
        "a row", busy(20, 0.1), {"weak": busy(10, 0.3), "slow": busy(400, 0.1), "strong": busy(100, 0.2)}, 2.0,
        score=lambda accuracy: accuracy, eligible=lambda scores: [name for name, s in scores.items() if s <= 0.2],
    ))
    assert (row.peer_name, row.ours_accuracy, row.peer_accuracy) == ("strong", 0.1, 0.2)
    assert 2 < row.ratio < 12


def test_growth_is_measured_and_its_exponent_is_the_slope(capsys: pytest.CaptureFixture[str]) -> None:
    assert growth.exponent((1, 10, 100), (2.0, 6.0, 18.0)) == pytest.approx(math.log10(3))
    growth.main(["--small"])
    header, _, *rows = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert header == growth.HEADER[0]
    assert {name.partition(",")[0].split()[0] for name, *_ in cells} == {"images", "eps", "draws", "seeds"}
    assert all(float(seconds) > 0 and float(peak) > 0 for _, _, seconds, peak, _ in cells)
    assert sum(slope != "" for *_, slope in cells) == 5
