"""APGD against a plain reference, one image at a time, written from the paper (arXiv:2003.01690)."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from worker.attacks import Target, build_attack
from worker.attacks.apgd import checkpoints
from worker.attacks.loss import cross_entropy, dlr, targeted_cross_entropy, targeted_dlr
from worker.attacks.search import Search
from worker.attacks.target import Point


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (1, [1]),
        (10, [2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (20, [4, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]),
        (50, [11, 21, 30, 38, 45]),
        (100, [22, 41, 57, 70, 80, 87, 93, 99]),
    ],
)
def test_checkpoints(steps, expected):
    assert checkpoints(steps) == expected


def reference_windows(n):
    windows = [max(math.floor(0.22 * n), 1)]
    while sum(windows) < n:
        windows.append(max(windows[-1] - max(math.floor(0.03 * n), 1), max(math.floor(0.06 * n), 1)))
    return windows


def reference_loss(name, z, label):
    """Of one image's logits, as a number with a graph."""
    if name == "ce":
        return torch.logsumexp(z, 0) - z[label]
    z1, z2, z3 = sorted(z, key=lambda v: v.item(), reverse=True)[:3]
    highest_other = z2 if int(z.argmax()) == label else z1
    return -(z[label] - highest_other) / (z1 - z3 + 1e-12)


def reference_project(x, x0, epsilon, norm):
    if norm == "linf":
        x = torch.max(torch.min(x, x0 + epsilon), x0 - epsilon)
    elif float((x - x0).norm()) > epsilon:
        x = x0 + (x - x0) / (x - x0).norm() * epsilon
    return x.clamp(0, 1)


def reference_apgd(model, x0, label, start, *, epsilon, norm, loss, steps, rho=0.75):
    """The iterates, the best point, how often the climb went back. It never leaves: that is for the caller to see."""

    def look(x):
        x = x.clone().requires_grad_()
        value = reference_loss(loss, model(x[None])[0], label)
        (g,) = torch.autograd.grad(value, x)
        return value.item(), g

    def unit(g):
        return g.sign() if norm == "linf" else g / g.norm()

    ends, at = set(), 0
    lengths = {}
    for window in reference_windows(steps):
        at += window
        ends.add(at)
        lengths[at] = window

    eta = 2 * epsilon
    xs = [start]
    f0, g = look(start)
    fs = [f0]
    best, f_best, g_best = start, f0, g
    current, f_best_then, eta_then = start, f0, None  # None: nothing can have stalled before the first checkpoint
    before, jumps = start, 0
    for k in range(1, steps + 1):
        z = reference_project(current + eta * unit(g), x0, epsilon, norm)
        if k == 1:
            new = z
        else:
            new = reference_project(current + 0.75 * (z - current) + 0.25 * (current - before), x0, epsilon, norm)
        before, current = current, new
        f, g = look(current)
        xs.append(current)
        fs.append(f)
        if f > f_best:
            best, f_best, g_best = current, f, g
        if k in ends:
            rises = sum(fs[i] > fs[i - 1] for i in range(k - lengths[k] + 1, k + 1))
            first = rises <= rho * lengths[k]
            second = eta_then == eta and f_best_then == f_best
            eta_then, f_best_then = eta, f_best
            if first or second:
                eta /= 2
                jumps += not torch.equal(current, best)
                current, g = best, g_best
    return xs, best, jumps


@pytest.fixture(scope="module")
def small():
    """Smooth, five classes, in float64 so that rounding cannot part two climbs; notes what it is shown, in order."""
    torch.manual_seed(3)

    class Small(nn.Module):
        stochastic = False

        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(144, 16), nn.Tanh()
            )
            self.linear = nn.Linear(16, 5)
            self.seen = []
            self.encoder.register_forward_pre_hook(lambda _, given: self.seen.append(given[0].detach().clone()))

        def decoder(self, features, *, draws=1, generator=None):
            return self.linear(features).expand(draws, -1, -1)

        def forward(self, x):
            return self.linear(self.encoder(x))

    net = Small().double().eval().requires_grad_(False)
    net.encoder[0].weight.mul_(4)
    net.encoder[3].weight.mul_(4)
    return net


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("steps", [20, 60])
def test_apgd_equals_the_reference_step_for_step(small, norm, loss, steps):
    epsilon = {"linf": 0.05, "l2": 0.25}[norm]
    generator = torch.Generator().manual_seed(1)
    x0 = torch.rand(12, 1, 6, 6, generator=generator, dtype=torch.float64)
    t = torch.rand(x0.shape, generator=generator, dtype=torch.float64) * 2 - 1
    start = reference_start(x0, epsilon, norm, t)
    labels = small(x0).argmax(1)
    compared, jumped = 0, 0
    for i in range(len(x0)):
        xs, best, jumps = reference_apgd(
            small, x0[i], int(labels[i]), start[i], epsilon=epsilon, norm=norm, loss=loss, steps=steps
        )
        fooled = [bool(small(x[None]).argmax() != labels[i]) for x in xs]
        seen = fooled.index(True) + 1 if any(fooled) else steps + 1
        attack = build_attack("apgd", norm=norm, loss=loss, steps=steps)
        search = Search(
            Target(small), x0[i : i + 1], labels[i : i + 1], epsilon=torch.tensor([epsilon], dtype=torch.float64),
            ids=torch.tensor([i]), norm=norm, seed=0, stream="apgd",
        )
        small.seen.clear()
        found, _ = attack.climb(search, start[i : i + 1], labels[i : i + 1])
        assert len(small.seen) == seen
        torch.testing.assert_close(torch.cat(small.seen), torch.stack(xs[:seen]), atol=1e-5, rtol=0)
        if not any(fooled):
            torch.testing.assert_close(found[0], best, atol=1e-5, rtol=0)
            compared, jumped = compared + 1, jumped + jumps
    assert compared >= 4, "too few climbs went all the way"
    assert jumped >= 2, "no climb went back to its best point"


def reference_start(x0, epsilon, norm, t):
    t = t.flatten(1)
    size = t.abs().amax(1) if norm == "linf" else t.norm(dim=1)
    return (x0 + epsilon * (t / size[:, None]).view(x0.shape)).clamp(0, 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_start_is_on_the_sphere(norm, net, images):
    grey = torch.full_like(images.x, 0.5)
    attack = build_attack("apgd", norm=norm)
    search = Search(
        Target(net), grey, images.labels, epsilon=torch.linspace(0.05, 0.2, len(grey)), ids=images.ids, norm=norm,
        seed=0, stream="apgd",
    )
    delta = (attack._start(search) - grey).flatten(1)
    size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    torch.testing.assert_close(size, search.epsilon, atol=1e-6, rtol=0)
    assert (delta.sign().mean(1).abs() < 0.6).all()  # both signs


def test_an_image_that_one_target_fools_leaves_with_it(net, images):
    """Nine lanes an image: the verdicts are those of nine attacks on one target each."""
    found = run(net, images, epsilon=0.1, loss="dlr-targeted", steps=12)
    broken = net(found.x).argmax(1) != images.labels
    assert 0.3 < broken.float().mean() < 0.9
    assert (found.gradients[~broken] == 9 * 12).all()
    assert (found.queries[~broken] == 1 + 9 * 13 + 9).all()  # the choice of targets, the climbs, the comparison
    assert (found.gradients % 9 == 0).all()
    first = run(net, images, epsilon=0.1, loss="dlr-targeted", steps=12, targets=1)
    assert not (net(first.x).argmax(1) != images.labels)[~broken].any()  # nine find what one finds, and more
    assert (net(first.x).argmax(1) == images.labels).sum() >= (~broken).sum()


def run(model, images, *, epsilon=0.05, norm="linf", batch_size=128, **given):
    attack = build_attack("apgd", norm=norm, **given)
    radii = torch.full((len(images),), epsilon)
    return attack(
        Target(model, batch_size=batch_size), images.x, images.labels, epsilon=radii, ids=images.ids, seed=0
    )


def test_targets_are_the_highest_logits_beside_the_label(net, images):
    attack = build_attack("apgd", norm="linf", loss="dlr-targeted", targets=3)
    search = Search(
        Target(net), images.x, images.labels, epsilon=torch.full((len(images),), 0.1), ids=images.ids, norm="linf",
        seed=0, stream="apgd",
    )
    rivals = attack._rivals(search)
    z = net(search.x0)
    right = z.argmax(1) == search.labels
    assert right.all()  # those wrong as they are have left
    torch.testing.assert_close(rivals, z.argsort(1, descending=True)[:, 1:4])


def test_more_steps_and_restarts_climb_higher(net, images):
    clean = net(images.x).argmax(1) == images.labels
    images = images[clean]
    losses = []
    for given in ({"steps": 2}, {"steps": 20}, {"steps": 100}, {"steps": 20, "restarts": 4}):
        x = run(net, images, epsilon=0.02, **given).x
        losses.append(cross_entropy(net(x)[None], images.labels).mean())
    assert losses[0] < losses[1] <= losses[2]
    assert losses[1] <= losses[3] + 1e-4


# --- losses -----------------------------------------------------------------------------------------------

Z = torch.tensor([[[4.0, 1.0, 3.0, -2.0, 0.5]]])  # one draw, one image


@pytest.mark.parametrize(("label", "expected"), [(0, -(4 - 3) / (4 - 1)), (2, -(3 - 4) / (4 - 1)), (3, 6 / 3)])
def test_dlr(label, expected):
    assert dlr(Z, torch.tensor([label])) == pytest.approx(expected)


@pytest.mark.parametrize(("target", "expected"), [(2, -1 / (4 - 0.75)), (3, -6 / 3.25), (0, 0)])
def test_targeted_dlr(target, expected):
    assert targeted_dlr(Z, torch.tensor([0]), torch.tensor([target])) == pytest.approx(expected)


def test_targeted_cross_entropy_climbs_to_the_target():
    assert targeted_cross_entropy(Z, torch.tensor([0]), torch.tensor([2])) == pytest.approx(
        math.log(math.exp(3) / sum(map(math.exp, Z.flatten().tolist()))), rel=1e-5
    )


def test_dlr_does_not_change_with_the_scale_of_the_logits():
    labels, targets = torch.tensor([0]), torch.tensor([1])
    assert dlr(Z, labels) == pytest.approx(float(dlr(100 * Z + 7, labels)))
    assert targeted_dlr(Z, labels, targets) == pytest.approx(float(targeted_dlr(100 * Z + 7, labels, targets)))


@pytest.mark.parametrize(
    "z",
    [[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [2.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 2.0]],
    ids=str,
)
@pytest.mark.parametrize("label", [0, 3])
def test_ties_give_finite_losses_and_gradients(z, label):
    z = torch.tensor([[z]], requires_grad=True)
    for loss in (dlr(z, torch.tensor([label])), targeted_dlr(z, torch.tensor([label]), torch.tensor([1]))):
        assert loss.isfinite()
        assert torch.autograd.grad(loss.sum(), z)[0].isfinite().all()
        tied = z[0, 0, label] == z[0, 0].max() and (z[0, 0] == z[0, 0].max()).sum() > 1
        assert not tied or loss <= 0


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_few_classes_leave_the_losses_something_to_climb(classes):
    torch.manual_seed(0)
    for _ in range(5):
        z = torch.randn(1, 1, classes, requires_grad=True)
        ranks = z[0, 0].argsort(descending=True)
        rivals = ranks[1:3]  # of four classes the lowest is climbed to by raising the label: so the paper has it
        losses = [dlr(z, ranks[:1]), *(targeted_dlr(z, ranks[:1], rival[None]) for rival in rivals)]
        for loss in losses:
            assert loss < 0  # the label still leads
            (g,) = torch.autograd.grad(loss.sum(), z)
            assert g.abs().max() > 1e-3
            assert g[0, 0, ranks[0]] < 0  # less of the label is more of the loss


def test_dlr_is_that_of_the_mean_logits():
    """A draw with tied top logits would outweigh all others in a mean of ratios."""
    draws = torch.tensor([[[2.0, 0.0, -1.0, -2.0]], [[0.0, 1.0, 1.0, 1.0]]])
    label = torch.tensor([0])
    assert dlr(draws, label) == pytest.approx(float(dlr(draws.mean(0, keepdim=True), label)))
    assert dlr(draws, label).abs() < 10


def test_each_target_starts_from_a_point_of_its_own(net, images):
    """The first lane from where an attack without lanes starts."""
    attack = build_attack("apgd", norm="linf")
    search = Search(
        Target(net), images.x, images.labels, epsilon=torch.full((len(images),), 0.1), ids=images.ids, norm="linf",
        seed=0, stream="apgd",
    )
    alone = attack._start(search)
    search.spread(3)
    lanes = attack._start(search).view(len(images), 3, *alone.shape[1:])
    assert torch.equal(lanes[:, 0], alone)
    assert ((lanes[:, 1:] - lanes[:, :1]).abs().amax((2, 3, 4)) > 0.05).all()
    search.gather()
    assert torch.equal(search.ids, images.ids)
    assert torch.equal(attack._start(search), alone)


def test_the_lanes_of_an_image_leave_together_and_the_one_that_fooled_is_kept(linear_net):
    x0, labels = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 0])
    target = Target(linear_net)
    search = Search(
        target, x0, labels, epsilon=torch.full((3,), 0.1), ids=torch.arange(3), norm="linf", seed=0, stream="apgd"
    )
    search.spread(2)
    x = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 2, 2) / 10
    answers = torch.tensor([0, 1, 1, 1, 1, 1])  # the second lane of image 0 is fooled, and both of image 2
    logits = functional.one_hot(answers, 2).float()[None]
    (left,) = search.drop_fooled(x, Point(x.flatten(1), logits), torch.arange(6))
    assert left.tolist() == [2, 3]
    search.gather()
    assert search.ids.tolist() == [1]
    assert search.found().x[:, 0, 0, 0].tolist() == pytest.approx([0.1, 0.5, 0.4])
