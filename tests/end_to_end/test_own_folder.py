"""A folder of one's own: 2,500 + 500 real CIFAR-10 images, through the API, all three variants."""

import subprocess
import sys
from typing import Any

import pytest

from tests.end_to_end.conftest import Service, finished

TRAINING = {"image_size": 16, "epochs": 20, "branch_epochs": 12}
EVALUATION = {"images": 100, "eps": ["8/255"], "attacks": [{"name": "fgsm"}, {"name": "pgd"}]}


def _spec(variants: list[str], **decoder: Any) -> dict[str, Any]:
    return {"dataset": "cifar10", "seeds": [0], "variants": variants, "training": TRAINING, "decoder": decoder,
            "evaluation": EVALUATION}


@pytest.mark.slow
@pytest.mark.parametrize("back_end", ["embedded"], indirect=True)  # what is shown here is the training
def test_three_variants_learn_a_folder_and_none_withstands_8_255(make_service, real_data, tmp_path) -> None:
    export = [sys.executable, str(real_data / "export.py"), "cifar10", str(tmp_path / "datasets")]
    subprocess.run([*export, "--train", "2500", "--test", "500"], check=True, capture_output=True)
    service: Service = make_service(workers="2")
    client = service.client()
    published = client.submit(_spec(["paralif"], gain=1.0))  # runs beside the others, from the same parent
    finished(client, _spec(["default", "lif", "paralif"]))
    client.wait(published["id"])
    board = client.leaderboard("cifar10")
    rows = {row["variant"]: row for row in board["rows"] if "gain" not in row["settings"]}
    assert board["protocol"]["eps_text"] == "8/255"
    for row in rows.values():
        assert row["clean_accuracy"]["mean"] >= 0.45
        assert row["robust_accuracy"]["mean"] <= 0.05
        assert row["verdict"] == "ok"
    assert rows["paralif"]["clean_accuracy"]["mean"] > rows["default"]["clean_accuracy"]["mean"] - 0.03
    # The published read-out, a mean of spikes as logits, learns less.
    [gain_1] = [row for row in board["rows"] if "gain 1" in row["settings"]]
    assert gain_1["clean_accuracy"]["mean"] < rows["paralif"]["clean_accuracy"]["mean"]
