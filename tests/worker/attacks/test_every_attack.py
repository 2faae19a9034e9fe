"""One table of attacks, and what must hold of each."""

import inspect
from dataclasses import fields

import pytest
import torch

from app.domain.attacks import ATTACKS
from app.domain.suites import SUITES
from worker.attacks import Target, attack_class, build_attack

SMALL = {
    "pgd": {"steps": 8}, "mifgsm": {"steps": 8}, "apgd": {"steps": 8}, "sapgd": {"steps": 8}, "deepfool": {"steps": 10},
    "fab": {"steps": 6, "targets": 3}, "square": {"queries": 60}, "noise": {"tries": 4}, "transfer": {"steps": 6},
    "cw": {"steps": 10, "searches": 3, "learning_rate": 0.1, "initial_c": 1.0}, "fmn": {"steps": 30},
    "hopskipjump": {"queries": 120, "first_evaluations": 10},
}  # fmt: skip
VARIANTS = {
    "noise": [{"distribution": "gaussian"}],
    "pgd": [{"restarts": 2, "steps": 3}],
    "apgd": [{"loss": "dlr-targeted", "targets": 3, "steps": 6, "restarts": 2}],
}
TABLE = [
    build_attack(name, norm=norm, **SMALL.get(name, {}) | more)
    for name, entry in ATTACKS.items()
    for norm in entry.norms
    for more in ({}, *VARIANTS.get(name, []))
]
STRONG = [attack for attack in TABLE if attack.name != "noise"]
EPSILON = {"linf": 0.12, "l2": 0.8}


def run(attack, model, images, *, epsilon=None, seed=0, batch_size=32):
    radii = torch.full((len(images),), EPSILON[attack.norm]) if epsilon is None else epsilon
    siblings = [model] if attack.name == "transfer" else []  # of itself: whatever holds of others holds of it
    target = Target(model, batch_size=batch_size, siblings=siblings)
    return attack(target, images.x, images.labels, epsilon=radii, ids=images.ids, seed=seed)


def norms(attack, x, x0):
    delta = (x - x0).flatten(1).double()
    return delta.abs().amax(1) if attack.norm == "linf" else delta.norm(dim=1)


def accuracy(model, x, labels):
    return float((model(x).argmax(1) == labels).float().mean())


def labelled(model, images):
    """With the labels an untrained model gives, so that there is something to break."""
    return type(images)(images.x, model(images.x).argmax(1), images.ids)


def assert_alike(x, other, model):
    """To the last bit; sums over draws change their order with the batch, so there to rounding."""
    assert torch.allclose(x, other, rtol=0, atol=1e-5 if model.stochastic else 0)


@pytest.mark.parametrize("attack", TABLE, ids=repr)
@pytest.mark.parametrize("kind", ["net", "noisy", "blind"])
def test_images_stay_finite_in_the_ball_and_in_the_box(attack, kind, images, request):
    model = request.getfixturevalue(kind)
    found = run(attack, model, labelled(model, images))
    assert found.x.isfinite().all()
    assert found.x.min() >= 0
    assert found.x.max() <= 1
    assert (norms(attack, found.x, images.x) <= EPSILON[attack.norm] + 1e-6).all()
    assert not found.rejected.any()


@pytest.mark.parametrize("attack", STRONG, ids=repr)
def test_accuracy_falls(attack, net, images):
    clean = accuracy(net, images.x, images.labels)
    assert clean > 0.85
    wider = 2 if attack.name == "hopskipjump" else 1  # so few decisions bring it no nearer
    found = run(attack, net, images, epsilon=torch.full((len(images),), wider * EPSILON[attack.norm]))
    assert accuracy(net, found.x, images.labels) < clean - 0.2


@pytest.mark.parametrize("attack", TABLE, ids=repr)
@pytest.mark.parametrize("kind", ["exact", "exact_noisy"])
def test_same_seed_same_images(attack, kind, images, request):
    model = request.getfixturevalue(kind)
    images = labelled(model, images)
    assert torch.equal(run(attack, model, images, seed=3).x, run(attack, model, images, seed=3).x)


@pytest.mark.parametrize("name", ["pgd", "apgd", "square", "transfer", "noise"])
def test_another_seed_gives_other_images(name, exact, images):
    attack, images = build_attack(name, norm="linf", **SMALL[name]), labelled(exact, images)
    assert not torch.equal(run(attack, exact, images, seed=3).x, run(attack, exact, images, seed=4).x)


@pytest.mark.parametrize("attack", TABLE, ids=repr)
@pytest.mark.parametrize("kind", ["exact", "exact_noisy"])
def test_neither_order_nor_company_nor_batch_size_matters(attack, kind, images, request):
    model = request.getfixturevalue(kind)
    images = labelled(model, images)
    whole = run(attack, model, images)
    shuffled = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))[:17]
    part = run(attack, model, images[shuffled], batch_size=5)
    assert_alike(part.x, whole.x[shuffled], model)
    assert torch.equal(part.queries, whole.queries[shuffled])
    assert torch.equal(part.gradients, whole.gradients[shuffled])


@pytest.mark.parametrize("attack", TABLE, ids=repr)
@pytest.mark.parametrize("kind", ["exact", "exact_noisy"])
def test_a_curve_in_one_batch_equals_runs_one_by_one(attack, kind, images, request):
    model = request.getfixturevalue(kind)
    images = labelled(model, images)[:12]
    radii = torch.tensor([0.01, 0.05, 0.3])
    pairs = images[torch.arange(12).repeat(3)]
    curve = run(attack, model, pairs, epsilon=radii.repeat_interleave(12))
    for i, radius in enumerate(radii):
        single = run(attack, model, images, epsilon=radius.expand(12))
        assert_alike(curve.x[12 * i : 12 * (i + 1)], single.x, model)


@pytest.mark.parametrize(
    "attack", [a for a in TABLE if a.name not in ("square", "noise", "hopskipjump", "transfer")], ids=repr
)
def test_a_gradient_that_is_zero_is_counted_and_moves_nothing_but_the_start(attack, blind, images):
    images = labelled(blind, images)
    found = run(attack, blind, images)
    standing = blind(found.x).argmax(1) == images.labels
    assert (found.faulty[standing] > 0).all()
    if attack.name in ("fgsm", "mifgsm", "deepfool", "fab"):
        assert torch.equal(found.x, images.x)


@pytest.mark.parametrize("attack", STRONG, ids=repr)
def test_a_fooled_image_costs_nothing_more(attack, net, images):
    wrong = (images.labels + 1) % 10
    images = type(images)(images.x, wrong, images.ids)
    found = run(attack, net, images, epsilon=torch.full((len(images),), 1e-4))
    assert (found.queries <= 1).float().mean() > 0.9


@pytest.mark.parametrize("attack", STRONG, ids=repr)
def test_the_budget_is_kept(attack, net, images):
    found = run(attack, net, images, epsilon=torch.full((len(images),), 1e-5))
    limit = {
        "fgsm": 1, "square": 60, "deepfool": 21, "mifgsm": 8, "apgd": 9, "sapgd": 8 + 2, "fab": 1 + 3 * 6 * 2,
        "pgd": 8 if getattr(attack, "restarts", 1) == 1 else 2 * (3 + 1),
        "cw": 31, "fmn": 30, "hopskipjump": 120, "transfer": 1,
    }[attack.name]
    if getattr(attack, "loss", "ce") == "dlr-targeted":
        limit = 1 + 2 * 3 * (7 + 1)  # the targets' choice; two restarts to three of seven points and a verdict
    assert found.queries.max() <= limit
    assert attack.minimum_norm or found.queries.max() == limit  # which may succeed at once, or leave early


@pytest.mark.parametrize("attack", TABLE, ids=repr)
def test_no_images_no_trouble(attack, net, images):
    assert len(run(attack, net, images[:0]).x) == 0


def test_noise_is_weaker_than_pgd(net, images):
    noise = run(build_attack("noise", norm="linf"), net, images)
    pgd = run(build_attack("pgd", norm="linf"), net, images)
    after_noise, after_pgd = (accuracy(net, found.x, images.labels) for found in (noise, pgd))
    assert after_pgd < after_noise - 0.2


@pytest.mark.parametrize("name", ATTACKS)
def test_classes_and_catalogue_agree(name):
    cls = attack_class(name)
    assert {f.name for f in fields(cls)} == {"norm", *ATTACKS[name].parameters}
    assert cls.name == name == inspect.getmodule(cls).__name__.rsplit(".", 1)[-1]


def test_there_is_a_class_for_every_entry_and_stage():
    for suite in SUITES.values():
        for norm in suite.norms:
            for stage in suite.stages_for(norm):
                build_attack(stage.attack, norm=norm, **stage.parameters)


def test_repr_shows_every_setting():
    assert repr(build_attack("pgd", norm="l2", steps=7)) == (
        "PGD(norm='l2', steps=7, step_size=0.25, random_start=True, restarts=1, draws=8)"
    )


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("pdg", {"norm": "linf"}, "did you mean 'pgd'"),
        ("square", {"norm": "l1"}, "it has linf, l2"),
        ("pgd", {"norm": "linf", "step": 3}, "did you mean"),
        ("pgd", {"norm": "linf", "steps": 0}, "must lie in 1"),
    ],
)
def test_what_is_wrong_is_named(name, given, says):
    with pytest.raises(ValueError, match=says):
        build_attack(name, **given)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x": lambda x: x + 1}, r"lie in \[0, 1\]"),
        ({"x": lambda x: x * torch.nan}, r"lie in \[0, 1\]"),
        ({"x": lambda x: x.double()}, "float32"),
        ({"ids": lambda i: i[:3]}, "ids must be one a sample"),
        ({"labels": lambda y: y[:, None]}, "labels must be one a sample"),
    ],
)
def test_bad_input_is_refused(change, says, net, images):
    given = {"x": images.x, "labels": images.labels, "ids": images.ids}
    given |= {name: how(given[name]) for name, how in change.items()}
    with pytest.raises(ValueError, match=says):
        run(TABLE[0], net, type(images)(**given), epsilon=torch.full((len(images),), 0.1))


def test_a_radius_of_zero_is_refused(net, images):
    with pytest.raises(ValueError, match="greater than 0"):
        run(TABLE[0], net, images, epsilon=torch.zeros(len(images)))
