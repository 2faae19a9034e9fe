"""Broken defences are flagged and broken; honest networks, also an adversarially trained one, are not flagged."""

import gzip
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from app.domain.attacks import ATTACKS
from app.domain.protocol import Protocol
from app.domain.suites import SUITES, Stage
from tests.worker.evaluation import planted
from tests.worker.evaluation.planted import Planted, perceptron, train
from worker.evaluation import evaluate_block, summarise
from worker.evaluation.diagnostics import diagnose

DRAWS = {"mask": 1}  # one draw a gradient, as attacks that know no EOT take
IMAGES = {"mask": 60}
STEPS = 25


@dataclass(frozen=True)
class Split:
    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


def small_suite(eps, draws=8, queries=200) -> Protocol:
    """AutoAttack's kinds with fewer steps, on the survivors of the ones before."""
    given = [("apgd", {"steps": STEPS}), ("apgd", {"steps": STEPS, "loss": "dlr-targeted", "targets": 3}),
             ("square", {"queries": queries})]
    stages = tuple(Stage(n, ATTACKS[n].resolve({**p, "draws": draws})) for n, p in given)
    return Protocol(
        dataset="digits", fingerprint="", norm="linf", eps=tuple(Fraction(e) for e in eps), suite="custom",
        suite_version=1, survivors=True, stages=stages, images=0, diagnostics="full",
    )


def evaluated(model, split, protocol, count) -> list[dict]:
    x, y, ids = split.test_x[:count], split.test_y[:count], torch.arange(count)
    checked = diagnose(model, x, y, ids, protocol=protocol, seed=0) if protocol.diagnostics == "full" else []
    return summarise([evaluate_block(model, x, y, ids, protocol=protocol, seed=0)], protocol, checked)


def failing(figures) -> set[str]:
    return {c["check"] for figure in figures for c in figure["checks"] if c["verdict"] == "fail"}


@pytest.fixture(scope="module")
def digits() -> Split:
    scans = load_digits()
    x, y = torch.tensor(scans.images / 16, dtype=torch.float32)[:, None], torch.tensor(scans.target)
    return Split(x[:1500], y[:1500], x[1500:], y[1500:])


@pytest.fixture(scope="module")
def networks(digits):
    """Makes a network by its name; trains the undefended one once."""
    trained = {}

    def trained_as(name, **how):
        if name not in trained:
            torch.manual_seed(0)
            network = perceptron(**how.pop("build", {}))
            trained[name] = train(network, digits.x, digits.y, **{"steps": 150, **how})
        return trained[name]

    def make(name: str) -> Planted:
        if name == "adversarially trained":
            network = trained_as(name, steps=300, epsilon=40 / 255, attack_steps=3)
            return Planted(network).eval()
        if name == "mask":
            return Planted(trained_as(name, steps=400, keep=0.3), keep=0.3).eval()
        if name == "winners take all":
            build = {"activation": partial(planted.WinnersTakeAll, 0.05), "width": 512}
            return Planted(trained_as(name, steps=300, build=build)).eval()
        plain = trained_as("plain")
        return {
            "plain": lambda: Planted(plain), "extra softmax": lambda: Planted(planted.ExtraSoftmax(plain, 15.0)),
            "zero gradient": lambda: Planted(plain, blur=planted.cut_gradient),
            "quantised": lambda: Planted(plain, blur=planted.quantised(4)),
        }[name]().eval()

    return make


FLAGGED_BY = {
    "zero gradient": {"faulty_gradients", "gradient_against_differences", "unbounded_attack", "noise_as_good",
                      "black_box_beats_white_box"},
    "quantised": {"faulty_gradients", "gradient_against_differences", "unbounded_attack", "noise_as_good",
                  "black_box_beats_white_box"},
    "extra softmax": {"faulty_gradients", "unbounded_attack"},
    "winners take all": {"black_box_beats_white_box"},
}
EPS = ("16/255", "64/255")


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.slow) if name == "winners take all" else name for name in FLAGGED_BY
])
def test_a_broken_defence_is_flagged_and_broken(name, networks, digits):
    figures = evaluated(networks(name), digits, small_suite(EPS), 120)
    assert failing(figures) >= FLAGGED_BY[name]
    assert "upper bound only" in {figure["verdict"] for figure in figures}
    assert figures[0]["clean_accuracy"] > 0.8
    assert figures[-1]["robust_accuracy"] < 0.25
    for figure in figures:  # said in words
        assert len(figure["reasons"]) == len([c for c in figure["checks"] if c["verdict"] == "fail"])
        assert all(len(reason) > 60 for reason in figure["reasons"])


@pytest.mark.parametrize("name", ["plain", "adversarially trained"])
def test_an_honest_network_is_not_flagged(name, networks, digits):
    figures = evaluated(networks(name), digits, small_suite(EPS), 120)
    assert failing(figures) == set()
    assert {figure["verdict"] for figure in figures} == {"ok"}
    ran = {c["check"] for figure in figures for c in figure["checks"] if c["verdict"] != "not applicable"}
    assert len(ran) >= 8


@pytest.mark.parametrize(("name", "flagged"), [
    ("plain", set()), ("adversarially trained", set()),
    ("zero gradient", {"faulty_gradients", "black_box_beats_white_box"}),
    ("quantised", {"faulty_gradients", "black_box_beats_white_box"}),
    pytest.param("winners take all", {"black_box_beats_white_box"}, marks=pytest.mark.slow),
])
def test_what_the_rows_of_the_quick_suite_say(name, flagged, networks, digits):
    """Starts enough for an honest network do not make up for a broken gradient."""
    protocol = replace(small_suite(EPS), stages=SUITES["quick"].stages, diagnostics="rows")
    assert failing(evaluated(networks(name), digits, protocol, 120)) == flagged


@pytest.mark.slow
def test_a_random_mask_is_flagged_where_one_draw_makes_a_gradient(networks, digits):
    """With one draw the figure is too high; with enough draws the same network is broken, and the check passes."""
    model = networks("mask")
    few = evaluated(model, digits, small_suite(("32/255",), draws=1, queries=50), 60)
    assert "more_draws" in failing(few)
    enough = evaluated(model, digits, small_suite(("32/255",), draws=32, queries=50), 60)
    assert "more_draws" not in failing(enough)
    assert enough[0]["robust_accuracy"] < min(0.2, few[0]["robust_accuracy"])


def fashion(real_data) -> Split:
    """The first 5000 training and 200 test images of the published files."""
    def read(stem, count):
        with gzip.open(real_data / "fashion-mnist" / f"{stem}-images-idx3-ubyte.gz") as file:
            images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:count]
        with gzip.open(real_data / "fashion-mnist" / f"{stem}-labels-idx1-ubyte.gz") as file:
            labels = np.frombuffer(file.read(), np.uint8, offset=8)[:count]
        return torch.from_numpy(images / np.float32(255)), torch.from_numpy(labels.astype(np.int64))

    return Split(*read("train", 5000), *read("t10k", 200))


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_fashion_mnist_is_not_flagged(epsilon, real_data):
    """Undefended and adversarially trained, at Fashion-MNIST's radii."""
    split = fashion(real_data)
    torch.manual_seed(0)
    network = planted.convolutional(28)
    train(network, split.x, split.y, steps=300, epsilon=epsilon, attack_steps=4)
    figures = evaluated(Planted(network).eval(), split, small_suite(("8/255", "0.1")), 100)
    assert failing(figures) == set()
    if epsilon:
        assert figures[-1]["robust_accuracy"] > 0.2
