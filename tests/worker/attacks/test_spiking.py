"""Attacks on spiking heads: what the search sees, what a verdict rests on, which stages are anything to whom."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from app.domain.attacks import ATTACKS, SURROGATE_GRID
from app.domain.protocol import SELECTION_DRAWS
from app.domain.suites import SUITES
from models.decoder import DecoderConfig, build_decoder
from models.gradients import gradient_named
from models.noise import KeyedNoise, image_keys
from worker.attacks import Target, build_attack
from worker.attacks.apgd import checkpoints
from worker.attacks.ball import project
from worker.attacks.loss import correct_share, cross_entropy, margin
from worker.attacks.search import Search


class Wide(nn.Module):
    """A decoder in float64 inside: sums in another order change no spike."""

    def __init__(self, variant, **settings):
        super().__init__()
        torch.manual_seed(0)
        config = DecoderConfig(**settings) if variant != "default" else None
        self.inner = build_decoder(variant, features=256, classes=10, config=config).double()
        self.has_expectation = self.inner.has_expectation

    def forward(self, features, *, draws=1, generator=None):
        return self.inner(features.double(), draws=draws, generator=generator).float()

    def expected(self, features):
        return self.inner.expected(features.double()).float()


class Spiking(nn.Module):
    """The digits' encoder and a decoder."""

    def __init__(self, encoder, variant, **settings):
        super().__init__()
        self.encoder, self.decoder = encoder, Wide(variant, **settings)
        self.stochastic = self.decoder.inner.stochastic


def trained_on(encoder, digits, variant, **settings):
    model = Spiking(encoder, variant, **settings)
    x, labels = digits[0][:1500], digits[1][:1500]
    with torch.no_grad():
        features = model.encoder(x)
    optimiser = torch.optim.Adam(model.decoder.parameters(), 2e-2)
    for step in range(40):
        part = torch.randperm(len(x), generator=torch.Generator().manual_seed(step))[:96]
        optimiser.zero_grad()
        generator = torch.Generator().manual_seed(step)
        functional.cross_entropy(model.decoder(features[part], generator=generator)[0], labels[part]).backward()
        optimiser.step()
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def paralif(trained, digits):
    return trained_on(trained.encoder, digits, "paralif", timesteps=8)


@pytest.fixture(scope="module")
def lif(trained, digits):
    return trained_on(trained.encoder, digits, "lif", hidden=24, timesteps=8)


@pytest.fixture
def model(request):
    return request.getfixturevalue(request.param)


def both(*more):
    return pytest.mark.parametrize("model", ["paralif", "lif", *more], indirect=True)


def noise(ids, stream="n"):
    return KeyedNoise(image_keys(0, stream, ids))


def run(attack, model, images, *, epsilon=0.1, batch_size=64, seed=0):
    radii = torch.full((len(images),), epsilon)
    target = Target(model, batch_size=batch_size)
    return attack(target, images.x, images.labels, epsilon=radii, ids=images.ids, seed=seed)


def robust(model, x, images):
    """The mean share of correct answers over fresh draws."""
    logits = Target(model).answer(x, draws=100, noise=noise(images.ids, "fresh")).logits
    return float(correct_share(logits, images.labels).mean())


def search(model, images, gradient="own", *, epsilon=0.1, draws=8):
    return Search(
        Target(model).through(gradient), images.x, images.labels, epsilon=torch.full((len(images),), epsilon),
        ids=images.ids, norm="linf", seed=0, stream="test", draws=draws,
    )


def test_through_the_expected_model_a_search_sees_one_answer_without_noise(paralif, images):
    found = search(paralif, images, "expected", draws=20)
    point = found.gradient(images.x, cross_entropy, step=0)
    x = images.x.clone().requires_grad_()
    logits = paralif.decoder.expected(paralif.encoder(x))
    gradient = torch.autograd.grad(cross_entropy(logits, images.labels).sum(), x)[0]
    assert point.logits.shape == (1, len(images), 10)
    assert torch.equal(point.logits, logits)
    assert torch.equal(point.gradient, gradient)
    assert torch.equal(found.forward(images.x, step=7).logits, logits)


def test_what_a_verdict_rests_on_stays_the_model_itself(paralif, images):
    own, expected = Target(paralif), Target(paralif).through("expected")
    plain = own.forward(images.x, draws=32, noise=noise(images.ids))
    assert torch.equal(expected.answer(images.x, draws=32, noise=noise(images.ids)).logits, plain.logits)
    assert torch.equal(expected.decode(plain.features, draws=32, noise=noise(images.ids)), plain.logits)
    assert plain.logits.std(0).max() > 0
    assert expected.effective_draws(32) == 32


def test_the_expected_gradient_is_what_the_sampled_one_tends_to(paralif, images):
    found = [
        search(paralif, images[:4], gradient, draws=draws).gradient(
            images.x[:4], lambda z, y: z.mean(0).gather(1, y[:, None])[:, 0], step=0
        ).gradient.flatten()
        for gradient, draws in (("expected", 1), ("sampled", 200), ("sampled", 2))
    ]  # fmt: skip
    many, few = (functional.cosine_similarity(found[0], other, dim=0) for other in found[1:])
    assert many > 0.99
    assert many > few


def between(paralif, images):
    """Images whose expected margin is negative, though some draws are right; found by pushing until then."""
    attack, x = build_attack("apgd", norm="linf", steps=4, gradient="expected"), images.x
    for epsilon in (0.02, 0.04, 0.06, 0.08, 0.1):
        x = run(attack, paralif, images, epsilon=epsilon).x
        target = Target(paralif)
        point = target.through("expected").forward(x)
        share = correct_share(target.answer(x, draws=100, noise=noise(images.ids, "between")).logits, images.labels)
        rows = ((margin(point.logits, images.labels) < 0) & (share > 0.1)).nonzero()[:, 0]
        if len(rows) >= 3:
            return x, rows
    raise AssertionError("no such image")


def test_an_image_that_errs_in_the_mean_only_is_not_let_go(paralif, images):
    x, rows = between(paralif, images)
    some = images[rows]
    found = search(paralif, some, "expected")
    point = found.forward(x[rows], step=0)
    assert (margin(point.logits, some.labels) < 0).all()
    found.drop_fooled(x[rows], point)
    real = paralif.decoder(point.features, draws=SELECTION_DRAWS, generator=search(paralif, some).noise("confirm"))
    hopeless = (real.argmax(2) != some.labels).all(0)
    assert len(found) == int((~hopeless).sum())
    assert len(found) > 0


def test_it_goes_on_being_pushed_down(paralif, images):
    x, rows = between(paralif, images)
    some = images[rows]
    found = run(build_attack("apgd", norm="linf", steps=15, gradient="expected"), paralif, some, epsilon=0.15)
    expected = Target(paralif).through("expected")
    before = margin(expected.forward(x[rows]).logits, some.labels)
    after = margin(expected.forward(found.x).logits, some.labels)
    assert (after < before).all()
    assert robust(paralif, found.x, some) < robust(paralif, x[rows], some)


def test_offers_are_judged_on_real_draws(paralif, images):
    found = search(paralif, images, "expected")
    found.offer(images.x)
    answer = Target(paralif).answer(images.x, draws=SELECTION_DRAWS, noise=noise(images.ids, "test/judge"))
    standing = correct_share(answer.logits, images.labels) > 0
    assert torch.equal(found._best_share[standing], correct_share(answer.logits, images.labels)[standing])


def test_first_asking_a_few_draws_changes_no_verdict(paralif, images):
    found = search(paralif, images, draws=1)
    x = run(build_attack("pgd", norm="linf", draws=2), paralif, images, epsilon=0.15).x
    point = found.forward(x, step=0)
    fooled = (point.logits.argmax(2) != images.labels).all(0)
    real = paralif.decoder(point.features, draws=SELECTION_DRAWS, generator=found.noise("confirm"))
    expected = fooled & (real.argmax(2) != images.labels).all(0)
    assert torch.equal(found.fooled(images.x, point), expected)
    assert 0 < expected.sum() < fooled.sum()


def test_the_expected_model_leaves_less_than_one_draw_does(paralif, images):
    expected = run(build_attack("apgd", norm="linf", steps=20, gradient="expected"), paralif, images, epsilon=0.2)
    single = run(build_attack("pgd", norm="linf", steps=20, draws=1), paralif, images, epsilon=0.2)
    clean, weak, strong = (robust(paralif, x, images) for x in (images.x, single.x, expected.x))
    assert strong < weak - 0.005
    assert weak < clean - 0.3


@both()
def test_attacks_take_the_exact_estimator_whatever_the_model_was_trained_with(model, images):
    attack = build_attack("pgd", norm="linf", steps=3, draws=4)
    exact = run(attack, model, images)
    if hasattr(model.decoder.inner, "paralif"):
        published = Spiking(model.encoder, "paralif", timesteps=8, estimator="published").eval()
        published.load_state_dict(model.state_dict())
        features = model.encoder(images.x).requires_grad_()
        own = torch.autograd.grad(published.decoder(features, generator=noise(images.ids)).sum(), features)[0]
        true = torch.autograd.grad(model.decoder(features, generator=noise(images.ids)).sum(), features)[0]
        assert not torch.allclose(own, true)
        assert torch.equal(run(attack, published, images).x, exact.x)
    for gradient in ("own", "sampled"):
        same = build_attack("apgd", norm="linf", steps=3, draws=4, gradient=gradient)
        assert torch.equal(run(same, model, images).x, run(same, model, images).x)


@pytest.mark.parametrize(
    ("model", "name", "gradient"),
    [
        ("paralif", "apgd", "expected"), ("paralif", "sapgd", "sampled"), ("lif", "apgd", "atan:4"),
        ("lif", "apgd", "bptr"), ("lif", "apgd", "rga"), ("lif", "apgd", "pdsg"), ("lif", "apgd", "assg"),
        ("lif", "sapgd", "assg"),
    ],
    indirect=["model"],
)  # fmt: skip
def test_neither_order_nor_batch_size_matters(model, name, gradient, images):
    attack = build_attack(name, norm="linf", steps=4, gradient=gradient, draws=3)
    whole = run(attack, model, images)
    shuffled = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))[:19]
    part = run(attack, model, images[shuffled], batch_size=7)
    assert torch.allclose(part.x, whole.x[shuffled], rtol=0, atol=1e-6)
    assert torch.equal(part.queries, whole.queries[shuffled])


def test_assg_follows_samples_through_lanes(lif, images):
    attack = build_attack(
        "apgd", norm="linf", loss="dlr-targeted", targets=2, steps=4, gradient="assg", draws=2, restarts=2
    )
    whole, part = run(attack, lif, images[:24]), run(attack, lif, images[5:15], batch_size=4)
    assert torch.allclose(part.x, whole.x[5:15], rtol=0, atol=1e-6)


def test_every_name_of_the_catalogue_is_a_gradient():
    for entry in ATTACKS.values():
        for name in entry.parameters["gradient"].choices if "gradient" in entry.parameters else ():
            assert gradient_named(name).name == name


def kinds(encoder):
    yield "default", Spiking(encoder, "default")
    yield "lif", Spiking(encoder, "lif", hidden=8)
    for mode in ("SB", "T", "SD"):
        yield mode, Spiking(encoder, "paralif", spike_mode=mode)


def test_which_stages_of_the_spiking_suite_are_anything_to_a_model(trained):
    """Passing a stage over says nothing about a model; running one that cannot differ costs time for nothing."""
    found = {}
    for kind, model in kinds(trained.encoder):
        target = Target(model.eval())
        stages = [build_attack(s.attack, norm="linf", **s.parameters) for s in SUITES["spiking"].stages]
        found[kind] = [(a.name, getattr(a, "gradient", "")) for a in stages if a.applies_to(target)]
    closed = [("apgd", "expected")] * 2
    last = [("sapgd", "expected"), ("square", "")]
    plain = [("apgd", name) for name in SURROGATE_GRID if name not in ("bptr", "rga", "pdsg", "assg")]
    assert found["default"] == [*closed, *last]
    assert found["SB"] == [*closed, ("apgd", "sampled"), *last]
    assert found["T"] == [*closed, ("apgd", "sampled"), *plain, *last]
    assert found["SD"] == [("apgd", "sampled"), *plain, ("square", "")]
    every = [("apgd", name) for name in SURROGATE_GRID]
    assert found["lif"] == [("apgd", "sampled"), *every, ("sapgd", "assg"), ("square", "")]


def test_the_expected_gradient_of_a_deterministic_model_is_its_own(net, images):
    found = [
        run(build_attack("apgd", norm="linf", steps=8, gradient=gradient), net, images).x
        for gradient in ("own", "expected")
    ]
    assert torch.equal(*found)
    assert not Target(net).has_gradient("sampled")


def test_a_name_that_is_no_gradient_is_refused(net):
    with pytest.raises(ValueError, match="Net has no gradient 'rga'"):
        Target(net).through("rga")
    with pytest.raises(ValueError, match="unknown gradient"):
        Target(net).has_gradient("atann")
    with pytest.raises(ValueError, match="gradient must be one of own, sampled, expected"):
        build_attack("sapgd", norm="linf", gradient="atan:3")


def reference_sapgd(model, images, *, epsilon, steps, draws):
    """Wang et al. 2025 written out for one model and one batch, no image let go: all iterates."""
    x0, y, ids = images.x, images.labels, images.ids
    t = 2 * noise(ids, "sapgd/0/start").uniform_per_image(*x0.shape[1:]) - 1
    x = (x0 + epsilon * t / t.abs().amax((1, 2, 3), keepdim=True)).clamp(0, 1)
    m = v = torch.zeros_like(x)
    eta, iterates = epsilon, [x]
    for step in range(steps):
        z = x.clone().requires_grad_()
        generator = KeyedNoise(image_keys(0, "sapgd/0/answers", ids, step))
        logits = model.decoder(model.encoder(z), draws=draws, generator=generator)
        losses = [functional.cross_entropy(one, y, reduction="sum") for one in logits]
        g = torch.autograd.grad(sum(losses) / len(losses), z)[0]
        m = 0.5 * m + g / g.abs().mean((1, 2, 3), keepdim=True)
        v = 0.8 * v + g**2 / (g**2).mean((1, 2, 3), keepdim=True)
        x = x + (eta * m / (v.sqrt() + 1e-12)).clamp(-eta, eta)
        x = torch.minimum(torch.maximum(x, x0 - epsilon), x0 + epsilon).clamp(0, 1)
        iterates.append(x)
        if step + 1 in checkpoints(steps):
            eta = eta / 2
    return iterates


@both("net")
def test_sapgd_goes_step_by_step_as_published(model, images):
    seen = []
    target = Target(model)
    given = target.differentiate
    target.differentiate = lambda x, *a, **k: (seen.append(x), given(x, *a, **k))[1]
    target.through = lambda gradient: target
    attack = build_attack("sapgd", norm="linf", steps=9, draws=3)
    gaps = margin(target.answer(images.x, draws=32, noise=noise(images.ids)).logits, images.labels)
    some = images[gaps.argsort(descending=True)[:10].sort().values]  # which no step as small as these fools
    attack(target, some.x, some.labels, epsilon=torch.full((10,), 1e-3), ids=some.ids, seed=0)
    expected = reference_sapgd(model, some, epsilon=1e-3, steps=9, draws=3)
    standing = [len(x) for x in seen]
    assert standing[-1] == len(seen[0])
    for ours, theirs in zip(seen, expected, strict=False):
        # a pixel whose gradient is all but zero moves either way: m / sqrt(v) is a ratio of roundings there
        assert ((ours - theirs).abs() < 1e-7).float().mean() > 0.995
    assert len(seen) == 9


def test_sapgd_keeps_the_worse_of_the_last_and_the_best_iterate(paralif, images):
    attack = build_attack("sapgd", norm="linf", steps=12, gradient="expected")
    found = run(attack, paralif, images, epsilon=0.05)
    assert (found.x - images.x).abs().max() <= 0.05 + 1e-6
    assert robust(paralif, found.x, images) < robust(paralif, images.x, images)
    assert torch.equal(project(found.x, images.x, torch.full((len(images),), 0.05), "linf"), found.x)


def test_sapgd_halves_its_step_at_the_checkpoints_of_apgd(linear_net, images):
    """On a linear model with one dominant direction every step is a full one: eta is how far a free pixel moves."""
    steps, moved = 50, []
    target = Target(linear_net)
    given = target.differentiate
    target.differentiate = lambda x, *a, **k: (moved.append(x), given(x, *a, **k))[1]
    target.through = lambda gradient: target
    labels = linear_net(images.x).argmax(1)
    attack = build_attack("sapgd", norm="linf", steps=steps)
    attack(
        target, images.x[:1], labels[:1], epsilon=torch.full((1,), 1e-4), ids=images.ids[:1], seed=0
    )
    largest = torch.stack([(b - a).abs().max() for a, b in itertools.pairwise(moved)])
    assert checkpoints(steps)[:2] == [11, 21]
    assert largest[11:].max() <= 0.5e-4 + 1e-9
    assert largest[21:].max() <= 0.25e-4 + 1e-9
