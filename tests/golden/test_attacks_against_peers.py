"""Our attacks are no weaker than those of torchattacks, foolbox and ART: same network, images, radii, budgets."""

import importlib.util

import pytest
import torch

PEERS = ("torchattacks", "foolbox", "art")
HALF_A_POINT = 0.005
SEEDS = 5
RANDOM = ("PGD", "Square")  # the others have no randomness

missing = [name for name in PEERS if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # the peers import what others have moved
    pytest.mark.skipif(bool(missing), reason=f"peers not installed: {', '.join(missing)}"),
]


@pytest.fixture(scope="module")
def played():
    """Every contest on a ResNet-20 trained on digits for a few seconds, by name."""
    from benchmarks.attacks_against_peers import RADII, contests, digits, train
    from worker.attacks import frozen

    torch.set_num_threads(1)
    x, labels, x0, y0 = digits()
    model = train(x, labels, epochs=4)
    with frozen(model):
        found = contests(model, x0, y0, radii=RADII["digits"], queries=200)
        for contest in found:
            if contest.name == "DeepFool L2":  # torchattacks and ART need a minute of it: the Linf form will do
                contest.runs = {who: contest.runs[who] for who in ("ours", "foolbox")}
            contest.play(model, x0, y0, SEEDS if contest.name.startswith(RANDOM) else 1)
    return {contest.name.split(" 2")[0]: contest for contest in found}


@pytest.mark.parametrize("name", ["FGSM", "PGD-20", "DeepFool", "DeepFool L2", "Square"])
def test_robust_accuracy_is_no_higher_than_the_peers(name, played):
    contest = played[name]
    ours = contest.accuracy("ours")
    assert 0.2 < ours < 0.8, "the radius tells attacks apart only between 20 and 80 %"
    for peer in set(contest.runs) - {"ours"}:
        assert ours <= contest.accuracy(peer) + HALF_A_POINT, f"{peer} finds more"


def test_fgsm_and_deepfool_agree_with_the_peers(played):
    """No randomness in them, so that weaker or stronger would mean another attack."""
    for peer in ("torchattacks", "foolbox", "ART"):
        assert abs(played["FGSM"].accuracy("ours") - played["FGSM"].accuracy(peer)) <= HALF_A_POINT
    assert abs(played["DeepFool"].accuracy("ours") - played["DeepFool"].accuracy("foolbox")) <= 2 * HALF_A_POINT
