"""Our attacks are no weaker than those of torchattacks, foolbox and ART: same network, images, radii, budgets."""

import importlib.util

import pytest
import torch

PEERS = ("torchattacks", "foolbox", "art")
HALF_A_POINT = 0.005
SEEDS = 5
# Where the start alone is random, the images that stood and fell by turns get these many seeds more: a score of them
# decides, and over 5 seeds the difference of two attacks wanders by a quarter of a point (standard deviation).
MORE_SEEDS = {"pgd": 15, "pgd-l2": 15, "apgd": 15, "apgd-l2": 15}
# All 400 images each: with fewer, one image more or less is half a point. The dearer attacks are compared by the script
# in benchmarks/ alone.
NAMES = ("fgsm", "fgsm-l2", "pgd", "pgd-l2", "mifgsm", "mifgsm-l2", "apgd", "deepfool", "deepfool-l2", "square", "fmn",
         "fmn-l2")
# foolbox's momentum adds up gradients of any length: another attack. The two of DeepFool L2 need a minute each.
LEFT_OUT = {"deepfool-l2": ("torchattacks", "ART"), "mifgsm": ("foolbox",), "mifgsm-l2": ("foolbox",)}

missing = [name for name in PEERS if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # the peers import what others have moved
    pytest.mark.skipif(bool(missing), reason=f"peers not installed: {', '.join(missing)}"),
]


@pytest.fixture(scope="module")
def network():
    """A ResNet-20 trained on digits for a few seconds, with its test images."""
    from benchmarks.attacks_against_peers import digits, train
    from worker.attacks import frozen

    torch.set_num_threads(1)
    x, labels, x0, y0 = digits()
    model = train(x, labels, epochs=4)
    with frozen(model):
        yield model, x0, y0


@pytest.fixture(scope="module")
def play(network):
    """Each contest is played once."""
    from benchmarks.attacks_against_peers import RADII, contests
    from benchmarks.peers import Budget

    model, images, labels = network
    budget = Budget(queries=200, apgd_steps=20, fmn_steps=50)
    played = {}

    def play_on(name, x0, y0, seeds, first=0):
        (contest,) = contests(model, x0, y0, radii=RADII["digits"], names=[name], budget=budget)
        contest.runs = {w: r for w, r in contest.runs.items() if w not in LEFT_OUT.get(name, ())}
        contest.play(model, x0, y0, seeds, first)
        return contest

    def run(name):
        if name not in played:
            played[name] = contest = play_on(name, images, labels, SEEDS)
            rows, more = contest.undecided(), MORE_SEEDS.get(name, 0)
            if more and len(rows):
                contest.add(rows, play_on(name, images[rows], labels[rows], more, first=SEEDS))
        return played[name]

    return run


@pytest.mark.parametrize("name", NAMES)
def test_robust_accuracy_is_no_higher_than_the_peers(name, play):
    contest = play(name)
    ours = contest.accuracy("ours")
    print(name, {who: round(contest.accuracy(who), 4) for who in contest.runs})
    assert 0.1 < ours < 0.9, "the radius tells attacks apart only in between"
    for peer in set(contest.runs) - {"ours"}:
        assert ours <= contest.accuracy(peer) + HALF_A_POINT, f"{peer} finds more"


def test_fgsm_and_deepfool_agree_with_the_peers(play):
    """No randomness in them, so that weaker or stronger would mean another attack."""
    for peer in ("torchattacks", "foolbox", "ART"):
        assert abs(play("fgsm").accuracy("ours") - play("fgsm").accuracy(peer)) <= HALF_A_POINT
    deepfool = play("deepfool")
    assert abs(deepfool.accuracy("ours") - deepfool.accuracy("foolbox")) <= 2 * HALF_A_POINT
