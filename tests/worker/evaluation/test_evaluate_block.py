"""A block of an evaluation: what is attacked, what is inherited, what does not matter."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from app.domain.attacks import ATTACKS
from models.registry import ModelSpec, build
from tests.worker.evaluation.conftest import Rows
from worker.evaluation import BlockResult, evaluate_block, robust, summarise
from worker.evaluation.summary import AXIS

QUICK = ("fgsm", ("pgd", {"steps": 5}), ("square", {"queries": 30}))
STUDY = ("fgsm", ("deepfool", {"steps": 5}), ("square", {"queries": 30}))


def assert_same(one: BlockResult, other: BlockResult, *, atol: float = 0.0) -> None:
    for field in fields(BlockResult):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=field.name)
        else:
            np.testing.assert_array_equal(a, b, err_msg=field.name)


@pytest.mark.parametrize("kind", ["rows", "noisy_rows"])
@pytest.mark.parametrize("survivors", [True, False])
def test_the_batch_size_does_not_matter(kind, survivors, images, labels, ids, protocol, request):
    model = request.getfixturevalue(kind)
    asked = protocol(*STUDY, survivors=survivors)
    found = [
        evaluate_block(model, images, labels, ids, protocol=asked, seed=0, batch_size=size) for size in (64, 7)
    ]
    assert_same(*found, atol=1e-5 if model.stochastic else 0)


# Small budgets, by the names that attacks give theirs: an attack that is added is tested without another word here.
SMALL = {"steps": 3, "iterations": 4, "queries": 12, "tries": 2, "draws": 4, "targets": 2, "restarts": 2}


def small(name: str) -> tuple[str, dict]:
    return name, {key: value for key, value in SMALL.items() if key in ATTACKS[name].parameters}


def halves_and_whole(model, asked, images, labels, ids, **given):
    """The same images at once, and in two parts of another batch size and order."""
    whole = evaluate_block(model, images, labels, ids, protocol=asked, seed=0, **given)
    parts = [torch.arange(17).flip(0), torch.arange(17, len(ids))]
    halves = [evaluate_block(model, images[p], labels[p], ids[p], protocol=asked, seed=0, **given) for p in parts]
    return whole, halves, torch.cat(parts).numpy()


@pytest.mark.parametrize("kind", ["rows", "noisy_rows"])
@pytest.mark.parametrize(("name", "norm"), [(a.name, norm) for a in ATTACKS.values() for norm in a.norms])
def test_two_halves_are_a_whole_for_every_attack(name, norm, kind, images, labels, ids, protocol, request):
    """No bit of a deterministic network depends on company or place; sums over draws do, to rounding."""
    model, siblings = request.getfixturevalue(kind), [Rows(seed=8).eval(), Rows(keep=0.8, seed=9).eval()]
    asked = protocol("fgsm", small(name), norm=norm, eps=("0.02", "0.05") if norm == "linf" else ("0.1", "0.3"))
    whole, halves, order = halves_and_whole(model, asked, images, labels, ids, siblings=siblings)
    assert (~np.isnan(whole.share[:, 1])).any(), "the attack under test had nothing to do"
    for field, axis in AXIS.items():
        if field == "adversarial_index":
            continue
        both = np.concatenate([getattr(h, field) for h in halves], axis=axis)
        assert_equal(both, getattr(whole, field).take(order, axis), model, field)
    for radius in range(2):
        clean = images.numpy()
        joined = np.concatenate([h.images(clean[order][p], radius=radius) for h, p in
                                 zip(halves, (slice(0, 17), slice(17, 40)), strict=True)])  # fmt: skip
        assert_equal(joined, whole.images(clean, radius=radius)[order], model, "images")


def assert_equal(one, other, model, name: str) -> None:
    atol = 1e-4 if model.stochastic and one.dtype.kind == "f" else 0
    np.testing.assert_allclose(one, other, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("kind", ["rows", "noisy_rows"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_block_begun_again_is_the_same_to_the_last_bit_with_all_attacks(
    norm, kind, images, labels, ids, protocol, request
):
    """What killing, resuming and sharding come down to: the second block alone, and after the first one."""
    model, siblings = request.getfixturevalue(kind), [Rows(seed=8).eval(), Rows(keep=0.8, seed=9).eval()]
    stages = [small(attack.name) for attack in ATTACKS.values() if norm in attack.norms]
    asked = protocol(*stages, norm=norm, eps=("0.02", "0.05") if norm == "linf" else ("0.1", "0.3"))
    torch.manual_seed(1)
    found = [
        evaluate_block(model, images[p], labels[p], ids[p], protocol=asked, seed=0, siblings=siblings)
        for p in (slice(17, 40), slice(0, 17), slice(17, 40))
    ]
    assert (found[0].chosen > 0).any()
    for field in fields(BlockResult):
        first, again = (getattr(block, field.name) for block in (found[0], found[2]))
        assert first.tobytes() == again.tobytes(), field.name


def test_another_batch_size_moves_at_most_one_verdict_in_a_thousand(protocol):
    """On matrix products, whose sums are ordered otherwise for a single image: their last bits differ."""
    digits = load_digits()
    x, y = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None], torch.tensor(digits.target)
    model = Dense().eval()
    fit(model, x, y)
    asked = protocol(("pgd", {"steps": 2}), norm="l2", eps=("0.6",))
    one, other = (
        evaluate_block(model, x[:1000], y[:1000], torch.arange(1000), protocol=asked, seed=0, batch_size=size)
        for size in (250, 1)
    )
    same_bits = one.norm.tobytes() == other.norm.tobytes()
    assert not same_bits, "both sizes give the same bits here: this test shows nothing"
    assert 0.2 < (one.correct[0] == 1).mean() < 0.9, "verdicts must be able to go either way"
    moved = int((one.majority[0, :, -1] != other.majority[0, :, -1]).sum())
    assert moved <= 1, f"{moved} of 1000 verdicts"


class Dense(torch.nn.Module):
    stochastic = False

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 300), torch.nn.Tanh())
        self.linear = torch.nn.Linear(300, 10)

    def decoder(self, features, *, draws=1, generator=None):
        return self.linear(features).expand(draws, -1, -1)

    def forward(self, x):
        return self.decoder(self.encoder(x))[0]


def fit(model, x, y) -> None:
    """A few steps: enough to be right on most images."""
    model.train()
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(40):
        part = torch.randperm(len(x), generator=torch.Generator().manual_seed(step))[:64]
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(x[part]), y[part]).backward()
        optimiser.step()
    model.eval()


def test_another_seed_is_another_evaluation(noisy_rows, images, labels, ids, protocol):
    found = [
        evaluate_block(noisy_rows, images, labels, ids, protocol=protocol("fgsm"), seed=seed) for seed in (0, 1)
    ]
    assert not np.array_equal(found[0].correct, found[1].correct)


def test_the_headline_of_a_deterministic_model_is_the_min_over_attacks(rows, images, labels, ids, protocol):
    asked = protocol(*STUDY, survivors=False)
    block = evaluate_block(rows, images, labels, ids, protocol=asked, seed=0)
    for radius, figures in enumerate(summarise([block], asked)):
        broken = block.success[: radius + 1].any((0, 1)) | (block.clean_share == 0)
        assert figures["robust_accuracy"] == pytest.approx(1 - broken.mean())
        for attack, name in enumerate(("fgsm", "deepfool", "square")):
            assert figures["attacks"][name] == pytest.approx(1 - block.success[radius, attack].mean())
        assert figures["robust_accuracy"] <= min(figures["attacks"].values()) + 1e-9
    accuracies = [f["robust_accuracy"] for f in summarise([block], asked)]
    assert 0.9 > accuracies[0] > accuracies[-1]


def test_survivors_only_are_attacked_and_the_broken_are_inherited(rows, images, labels, ids, protocol):
    asked = protocol(*QUICK)
    block = evaluate_block(rows, images, labels, ids, protocol=asked, seed=0)
    attacked, broken = ~np.isnan(block.share), block.success
    assert not attacked[:, :, :5].any()  # wrong as they are
    seen = np.zeros(40, bool)
    for radius in range(3):
        for attack in range(3):
            assert not (attacked[radius, attack] & seen).any()
            np.testing.assert_array_equal(attacked[radius, attack], ~seen & (block.clean_share > 0))
            seen |= broken[radius, attack]
            np.testing.assert_array_equal(block.standing[radius, attack], ~seen & (block.clean_share > 0))
    inherited = (block.chosen_at[2] >= 0) & (block.chosen_at[2] < 2)
    assert inherited.any()
    np.testing.assert_array_equal(block.adversarial_index[2, inherited], block.adversarial_index[1, inherited])
    figures = summarise([block], asked)
    for figure in figures:  # running unions fall to the headline
        union = list(figure["attacks"].values())
        assert union == sorted(union, reverse=True)
        assert union[-1] == figure["robust_accuracy"]


CURVE = ("0.01", "0.02", "0.03", "0.05", "0.07", "0.1")


def test_a_curve_in_one_pass_is_the_one_radius_by_radius(rows, images, labels, ids, protocol, monkeypatch):
    asked = replace(protocol(*QUICK, eps=CURVE), diagnostics="full")
    whole, halves, order = halves_and_whole(rows, asked, images, labels, ids)
    joined = np.concatenate([h.chosen for h in halves], axis=1)
    np.testing.assert_array_equal(joined, whole.chosen[:, order])
    monkeypatch.setattr(robust, "DENSE", len(CURVE) + 1)
    one_by_one = evaluate_block(rows, images, labels, ids, protocol=asked, seed=0)
    for name in ("chosen", "chosen_at", "chosen_share", "chosen_norm", "correct", "majority"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(one_by_one, name), err_msg=name)
    for name in ("after", "standing"):  # the union after the last attack, the headline
        np.testing.assert_array_equal(getattr(whole, name)[:, -1], getattr(one_by_one, name)[:, -1], err_msg=name)
    assert len(set(whole.chosen_at[-1])) > 4
    for radius in range(len(CURVE)):
        a, b = (block.images(images.numpy(), radius=radius) for block in (whole, one_by_one))
        np.testing.assert_array_equal(a, b)
    pgd = [block.gradients[:, 1].sum() for block in (whole, one_by_one)]
    assert pgd[0] < 0.6 * pgd[1]


def test_without_checks_of_a_sample_no_curve_is_bisected(rows, images, labels, ids, protocol, monkeypatch):
    asked = protocol(*QUICK, eps=CURVE)
    found = evaluate_block(rows, images, labels, ids, protocol=asked, seed=0)
    monkeypatch.setattr(robust, "DENSE", len(CURVE) + 1)
    one_by_one = evaluate_block(rows, images, labels, ids, protocol=asked, seed=0)
    np.testing.assert_array_equal(found.gradients, one_by_one.gradients)


def test_one_step_is_tried_at_every_radius_of_a_curve(wave, protocol):
    """It may break at a small radius what it does not at a larger one: no attack to be bisected."""
    x = torch.full((4, 1, 6, 6), 0.48)
    asked = replace(protocol("fgsm", eps=("0.02", "0.1", "0.3", "0.31")), diagnostics="full")
    block = evaluate_block(wave, x, torch.zeros(4, dtype=torch.long), torch.arange(4), protocol=asked, seed=0)
    assert [f["robust_accuracy"] for f in summarise([block], asked)] == [1, 0, 0, 0]


def test_survivors_or_not_the_broken_are_the_same_with_one_attack(rows, images, labels, ids, protocol):
    figures = []
    for survivors in (True, False):
        asked = protocol("fgsm", survivors=survivors)
        block = evaluate_block(rows, images, labels, ids, protocol=asked, seed=0)
        figures.append([f["robust_accuracy"] for f in summarise([block], asked)])
    assert figures[0] == figures[1]


def test_an_attack_alone_may_weaken_with_the_radius_but_the_headline_may_not(wave, protocol):
    x = torch.full((4, 1, 6, 6), 0.48)
    asked = protocol("fgsm", eps=("0.1", "0.3"), survivors=False)
    block = evaluate_block(wave, x, torch.zeros(4, dtype=torch.long), torch.arange(4), protocol=asked, seed=0)
    first, second = summarise([block], asked)
    assert (first["attacks"]["fgsm"], second["attacks"]["fgsm"]) == (0, 1)
    assert (first["robust_accuracy"], second["robust_accuracy"]) == (0, 0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_chosen_images_are_what_the_headline_says(norm, rows, images, labels, ids, protocol):
    asked = protocol("fgsm", "deepfool", norm=norm, eps=("0.05", "0.3"))
    block = evaluate_block(rows, images, labels, ids, protocol=asked, seed=0)
    for radius, eps in enumerate(asked.eps):
        chosen = torch.from_numpy(block.images(images.numpy(), radius=radius))
        right = rows.decoder(rows.encoder(chosen))[0].argmax(1) == labels
        np.testing.assert_array_equal(right.numpy(), block.correct[radius] == 1)
        delta = (chosen - images).flatten(1).double()
        size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
        assert (size <= float(eps) + 1e-6).all()
        np.testing.assert_allclose(block.chosen_norm[radius], size, atol=1e-6)
        assert chosen.min() >= 0
        assert chosen.max() <= 1


def test_stages_keep_to_their_grids(rows, images, labels, ids, protocol):
    asked = protocol("fgsm", "deepfool", survivors=False, grids=[("0.02", "0.1"), ("0.05",)])
    block = evaluate_block(rows, images, labels, ids, protocol=asked, seed=0)
    ran = (~np.isnan(block.share)).all(2)
    np.testing.assert_array_equal(ran, [[True, False], [False, True], [True, False]])
    assert [list(f["attacks"]) for f in summarise([block], asked)] == [["fgsm"], ["deepfool"], ["fgsm"]]
    assert len(list(block.rows())) == 3 * 40


def test_a_minimum_norm_search_serves_every_radius(rows, images, labels, ids, protocol):
    spent = []
    for eps in (("0.1",), ("0.02", "0.05", "0.1")):
        rows.passes = 0
        evaluate_block(rows, images, labels, ids, protocol=protocol("deepfool", eps=eps, survivors=False), seed=0)
        spent.append(rows.passes)
    assert spent[1] == spent[0] + 2 * 40  # the verdicts at two more radii


def test_arrays_survive_a_file(rows, images, labels, ids, protocol, tmp_path):
    block = evaluate_block(rows, images, labels, ids, protocol=protocol(*QUICK), seed=0)
    np.savez(tmp_path / "block.npz", **block.to_arrays())
    with np.load(tmp_path / "block.npz", allow_pickle=False) as arrays:
        assert_same(block, BlockResult.from_arrays(arrays))


def test_of_equal_candidates_the_earlier_is_chosen(rows, images, labels, ids, protocol):
    asked = protocol("fgsm", "fgsm", eps=("0.05", "0.1"), survivors=False)
    block = evaluate_block(rows, images, labels, ids, protocol=asked, seed=0)
    assert set(block.chosen.flat) == {0, 1}
    np.testing.assert_array_equal(block.chosen == 0, (block.chosen_share == 1) | (block.clean_share == 0))
    assert (block.chosen_at[1, block.chosen[0] == 1] == 0).all()


def test_a_repeated_attack_has_a_name_of_its_own(rows, images, labels, ids, protocol):
    asked = protocol("fgsm", ("pgd", {"steps": 2}), ("pgd", {"steps": 4}))
    block = evaluate_block(rows, images, labels, ids, protocol=asked, seed=0)
    assert block.attacks.tolist() == ["fgsm", "pgd", "pgd-2"]


def test_progress_rises_to_one_and_may_stop_the_work(rows, images, labels, ids, protocol):
    seen = []
    evaluate_block(rows, images, labels, ids, protocol=protocol(*QUICK), seed=0, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert len(seen) > 9

    def stop(share):
        raise KeyboardInterrupt

    rows.train()
    with pytest.raises(KeyboardInterrupt):
        evaluate_block(rows, images, labels, ids, protocol=protocol(*QUICK), seed=0, progress=stop)
    assert rows.training
    assert rows.first.requires_grad


@pytest.mark.parametrize("given", [([], []), ([1, 2], [3, 3])])
def test_a_block_needs_images_with_ids_of_their_own(given, rows, protocol):
    labels, ids = (torch.tensor(values, dtype=torch.long) for values in given)
    with pytest.raises(ValueError, match="an id of its own"):
        evaluate_block(rows, torch.rand(len(ids), 1, 6, 6), labels, ids, protocol=protocol("fgsm"), seed=0)


@pytest.mark.parametrize("variant", ["default", "lif", "paralif"])
def test_every_variant_can_be_evaluated(variant, protocol):
    torch.manual_seed(0)
    model = build(ModelSpec("resnet20", variant, classes=3, image_shape=(1, 8, 8), mean=(0.5,), std=(0.5,)))
    x, asked = torch.rand(6, 1, 8, 8), protocol("fgsm", ("square", {"queries": 4}), eps=("0.1",))
    block = evaluate_block(model, x, torch.arange(6) % 3, torch.arange(6), protocol=asked, seed=0)
    (figures,) = summarise([block], asked)
    assert 0 <= figures["robust_accuracy"] <= figures["clean_accuracy"] + 0.1
    assert figures["draws"] == (1 if variant == "default" else 100)
    assert model.training
