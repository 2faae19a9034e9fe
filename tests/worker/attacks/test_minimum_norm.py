"""CW, FMN and HopSkipJump: how near they come, worked out in another way."""

import pytest
import torch

from worker.attacks import Target, build_attack
from worker.attacks.ball import lengths

LENGTHY = {"cw": {"steps": 120, "searches": 4, "initial_c": 1.0, "learning_rate": 0.05}, "fmn": {"steps": 100},
           "hopskipjump": {"queries": 700, "first_evaluations": 40}}
CASES = [("cw", "l2", 1.02), ("fmn", "linf", 1.02), ("fmn", "l2", 1.02), ("hopskipjump", "linf", 1.4),
         ("hopskipjump", "l2", 1.3)]


def explore(name, model, images, norm, **given):
    attack = build_attack(name, norm=norm, **given)
    ones = torch.ones(len(images))
    return attack.explore(Target(model), images.x, images.labels, epsilon=ones, ids=images.ids, seed=0)


def right(model, images):
    """Those of the images that the model knows."""
    return images[model(images.x).argmax(1) == images.labels]


@pytest.mark.parametrize(("name", "norm", "within"), CASES)
def test_the_nearest_plane_of_a_linear_model_is_reached(name, norm, within, linear_net, images):
    x0 = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4  # far from the box
    z, weight = linear_net(x0), linear_net.linear.weight
    labels = z.argmax(1)
    apart = (z - z.gather(1, labels[:, None])).abs()
    dual = {"linf": 1, "l2": 2}[norm]
    planes = torch.stack([apart[i] / (weight - weight[labels[i]]).norm(dual, dim=1) for i in range(6)])
    nearest = torch.nan_to_num(planes, nan=torch.inf).amin(1)
    found = explore(name, linear_net, type(images)(x0, labels, torch.arange(6)), norm, **LENGTHY[name])
    assert (linear_net(found.x).argmax(1) != labels).all()
    ratio = lengths(found.x - x0, norm) / nearest
    assert (ratio > 1 - 1e-3).all()
    assert ratio.median() < within
    assert ratio.max() < 2


@pytest.mark.parametrize(("name", "norm"), [case[:2] for case in CASES])
def test_what_is_found_fools_and_lies_in_the_box_though_half_the_pixels_are_black(name, norm, net, images):
    some = right(net, images)[:10]
    found = explore(name, net, some, norm, **LENGTHY[name] | ({"queries": 300} if name == "hopskipjump" else {}))
    assert (net(found.x).argmax(1) != some.labels).float().mean() > 0.9
    assert found.x.min() >= 0
    assert found.x.max() <= 1


@pytest.mark.parametrize(("name", "norm"), [case[:2] for case in CASES if case[0] != "hopskipjump"])
def test_gradients_find_shorter_perturbations_than_deepfool(name, norm, net, images):
    some = right(net, images)[:10]
    ours, deepfool = (
        lengths(explore(which, net, some, norm, **LENGTHY.get(which, {})).x - some.x, norm).mean()
        for which in (name, "deepfool")
    )
    assert ours < deepfool


def test_more_queries_bring_hopskipjump_nearer(net, images):
    some = right(net, images)[:8]
    last = torch.full((len(some),), torch.inf).double()
    for queries in (40, 120, 400):
        found = explore("hopskipjump", net, some, "l2", queries=queries, first_evaluations=20)
        length = lengths(found.x - some.x, "l2")
        assert (length <= last).all()  # the same walk, longer: the shortest on the way is kept
        assert length.mean() < 0.9 * last.mean()
        last = length


def test_hopskipjump_asks_for_decisions_only(net, images):
    found = explore("hopskipjump", net, images[:4], "linf", queries=30)
    assert (found.gradients == 0).all()


def test_hopskipjump_finds_a_start_where_white_noise_is_of_the_images_own_class(images):
    class Smooth(torch.nn.Module):
        """Class 1 is what has a dark left half; white noise, whose halves are equally bright, is of class 0."""

        stochastic = False

        def encoder(self, x):
            return x[..., 4:].flatten(1).mean(1, keepdim=True) - x[..., :4].flatten(1).mean(1, keepdim=True)

        def decoder(self, features, *, draws=1, generator=None):
            return torch.cat((0.15 - features, features - 0.15), 1).expand(draws, -1, -1)

    even = type(images)(torch.full((8, 1, 8, 8), 0.5), torch.zeros(8, dtype=torch.int64), torch.arange(8))
    found = explore("hopskipjump", Smooth().eval(), even, "l2", queries=120, first_evaluations=10)
    assert (lengths(found.x - even.x, "l2") > 0).all()


def test_fmn_projects_into_a_radius_that_closes_in(linear_net, images):
    """Step for step beside a loop written from the paper, for one image far from the box."""
    x0 = torch.full((1, 1, 8, 8), 0.5) + 0.01 * images.x[:1]
    label = linear_net(x0).argmax(1)
    found = explore("fmn", linear_net, type(images)(x0, label, torch.arange(1)), "l2", steps=12, step_size=0.3)
    assert torch.allclose(found.x, x0 + reference_fmn(linear_net, x0, label, steps=12, alpha=0.3), atol=1e-5)


def reference_fmn(model, x0, label, *, steps, alpha, gamma=0.05):
    delta, radius, best, cosine = torch.zeros_like(x0), None, None, torch.cos
    for k in range(steps):
        x = (x0 + delta).requires_grad_()
        z = model(x)[0]
        rival = z.masked_fill(torch.arange(3) == label, -torch.inf).argmax()
        (g,) = torch.autograd.grad(z[label[0]] - z[rival], x)
        half = (1 + float(cosine(torch.tensor(torch.pi * k / steps)))) / 2
        a, c = 0.01 * alpha + 0.99 * alpha * half, 1e-3 + (gamma - 1e-3) * half
        if z.argmax() != label:
            best = delta if best is None or delta.norm() <= best.norm() else best
            radius = min(radius * (1 - c), best.norm())
        elif best is None:
            radius = delta.norm() + (z[label[0]] - z[rival]).abs().detach() / g.norm()
        else:
            radius = radius * (1 + c)
        delta = delta - a * g / g.norm()
        delta = (delta * min(1, radius / delta.norm())).detach()
    return best


def test_cw_lowers_c_after_a_success_and_raises_it_after_a_failure():
    from worker.attacks.cw import _Walk

    walk = _Walk(torch.full((2, 1, 1, 1), 0.5), 1.0)
    walk.broken = torch.tensor([True, False])
    walk.finish(torch.tensor([True, True]))
    assert walk.c.tolist() == [0.5, 10.0]
    walk.broken = torch.tensor([False, True])
    walk.finish(torch.tensor([True, True]))
    assert walk.c.tolist() == [0.75, 5.5]
    walk.finish(torch.tensor([False, False]))
    assert walk.c.tolist() == [0.75, 5.5]


def test_cw_takes_adams_steps():
    from worker.attacks.cw import _Walk

    walk = _Walk(torch.full((1, 1, 2, 2), 0.3), 1.0)
    w = walk.w.clone().requires_grad_()
    adam = torch.optim.Adam([w], 0.05)
    for step in range(5):
        g = torch.randn(1, 1, 2, 2, generator=torch.Generator().manual_seed(step))
        walk.adam(g, 0.05)
        w.grad = g
        adam.step()
    assert torch.allclose(walk.w, w, atol=1e-6)


def test_cw_that_aborts_early_asks_less_and_loses_little(net, images):
    some = right(net, images)[:8]
    given = {"steps": 100, "searches": 3, "initial_c": 1.0, "learning_rate": 0.05}
    whole = explore("cw", net, some, "l2", **given, abort_early=False)
    early = explore("cw", net, some, "l2", **given)
    assert (whole.queries == 1 + 3 * 100).all()
    assert early.queries.double().mean() < 0.9 * whole.queries.double().mean()
    ratio = lengths(early.x - some.x, "l2") / lengths(whole.x - some.x, "l2")
    assert ratio.mean() < 1.05


@pytest.mark.parametrize(("name", "norm"), [("cw", "l2"), ("fmn", "linf"), ("hopskipjump", "l2")])
def test_a_stochastic_model_is_fooled_in_every_draw(name, norm, noisy, images):
    some = images[:6]
    given = {"cw": {"steps": 60, "searches": 3, "initial_c": 10.0, "learning_rate": 0.05}, "fmn": {"steps": 60},
             "hopskipjump": {"queries": 150, "first_evaluations": 20}}[name]
    found = explore(name, noisy, some, norm, **given)
    point = Target(noisy).forward(found.x, draws=32, noise=_fresh(some.ids))
    wrong = (point.logits.argmax(2) != some.labels).float().mean(0)
    assert (wrong > 0.8).float().mean() > 0.6


def _fresh(ids):
    from models.noise import KeyedNoise, image_keys

    return KeyedNoise(image_keys(7, "test", ids))
