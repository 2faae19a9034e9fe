"""Each attack against its formula, worked out in another way."""

import pytest
import torch
from torch.nn import functional

from models.noise import KeyedNoise, image_keys
from worker.attacks import Target, build_attack
from worker.attacks.ball import acceptable, direction, lengths, project
from worker.attacks.fab import to_plane
from worker.attacks.loss import correct_share, cross_entropy, margin
from worker.attacks.noise import gaussian_on_sphere, uniform_in_ball, uniform_in_length
from worker.attacks.search import Search
from worker.attacks.square import HALVINGS, bump, bump_length


def gradient(model, x, labels):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(functional.cross_entropy(model(x), labels, reduction="sum"), x)[0]


def attack(name, model, images, *, norm="linf", epsilon=0.1, **given):
    radii = torch.full((len(images),), epsilon)
    found = build_attack(name, norm=norm, **given)
    return found(Target(model), images.x, images.labels, epsilon=radii, ids=images.ids, seed=0)


def test_fgsm_is_one_step_of_the_sign(net, images):
    g = gradient(net, images.x, images.labels)
    expected = (images.x + 0.1 * g.sign()).clamp(0, 1)
    assert torch.allclose(attack("fgsm", net, images).x, expected, atol=1e-7)


def test_fgsm_l2_is_one_step_along_the_gradient(net, images):
    g = gradient(net, images.x, images.labels)
    expected = (images.x + 0.5 * g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).clamp(0, 1)
    assert torch.allclose(attack("fgsm", net, images, norm="l2", epsilon=0.5).x, expected, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_takes_its_steps_and_stops_at_the_first_that_fools(norm, net, images):
    epsilon = {"linf": 0.1, "l2": 0.6}[norm]
    found = attack("pgd", net, images, norm=norm, epsilon=epsilon, steps=5, random_start=False)
    for i in range(len(images)):
        x0, label = images.x[i : i + 1], images.labels[i : i + 1]
        x = x0
        for _ in range(5):
            if net(x).argmax(1) != label:
                break
            g = gradient(net, x, label)
            if norm == "linf":
                x = (x + 0.25 * epsilon * g.sign()).clamp(x0 - epsilon, x0 + epsilon).clamp(0, 1)
            else:
                delta = x + 0.25 * epsilon * g / g.norm() - x0
                x = (x0 + delta * min(1, epsilon / delta.norm())).clamp(0, 1)
        assert torch.allclose(found.x[i : i + 1], x, atol=1e-5)


def test_noise_fills_the_ball_and_pgd_in_l2_starts_at_every_distance():
    keys = image_keys(0, "start", torch.arange(4000))
    x0 = torch.full((4000, 1, 2, 2), 0.5)
    cube = uniform_in_ball(x0, torch.full((4000,), 0.2), "linf", KeyedNoise(keys))
    assert abs(float(cube.std()) - 0.2 / 3**0.5) < 0.003
    ball = uniform_in_ball(x0, torch.full((4000,), 0.2), "l2", KeyedNoise(keys))
    inside = (lengths(ball, "l2") < 0.1).double().mean()
    assert abs(float(inside) - 0.5**4) < 0.015  # volume grows with the fourth power of the radius
    start = uniform_in_length(x0, torch.full((4000,), 0.2), "l2", KeyedNoise(keys))
    assert abs(float((lengths(start, "l2") < 0.1).double().mean()) - 0.5) < 0.03
    assert abs(float(start.mean())) < 0.005
    assert float(lengths(start, "l2").max()) <= 0.2 + 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_gaussian_noise_has_the_length_of_the_radius(norm, images):
    noise = KeyedNoise(image_keys(0, "g", images.ids))
    delta = gaussian_on_sphere(images.x, torch.full((len(images),), 0.3), norm, noise)
    assert torch.allclose(lengths(delta, norm), torch.tensor(0.3).double(), atol=1e-6)


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_deepfool_finds_the_nearest_plane_of_a_linear_model(norm, dual, linear_net, images):
    x0 = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.02 + 0.49  # far from the box
    z, weight = linear_net(x0), linear_net.linear.weight
    labels = z.argmax(1)
    apart = (z - z.gather(1, labels[:, None])).abs()
    planes = torch.stack([apart[i] / (weight - weight[labels[i]]).norm(dual, dim=1) for i in range(20)])
    nearest = torch.nan_to_num(planes, nan=torch.inf).amin(1)
    some = type(images)(x0, labels, torch.arange(20))
    found = attack("deepfool", linear_net, some, norm=norm, epsilon=10.0)
    assert (linear_net(found.x).argmax(1) != labels).all()
    # 1e-4 of length is added to a step, and the sum goes 2 % past the boundary
    assert torch.allclose(lengths(found.x - x0, norm).float(), 1.02 * (nearest + 1e-4), rtol=2e-3)


def planes(model, x0):
    """Labels and distance of each image to the nearest boundary of a linear model, Linf and L2."""
    z, weight = model(x0), model.linear.weight
    labels = z.argmax(1)
    apart = (z - z.gather(1, labels[:, None])).abs()
    found = {}
    for norm, dual in (("linf", 1), ("l2", 2)):
        far = torch.stack([apart[i] / (weight - weight[y]).norm(dual, dim=1) for i, y in enumerate(labels)])
        found[norm] = torch.nan_to_num(far, nan=torch.inf).amin(1)
    return labels, found


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "dlr", "ce-targeted", "dlr-targeted"])
def test_apgd_reaches_the_nearest_plane_of_a_linear_model(norm, loss, linear_net, images):
    x0 = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.02 + 0.49
    labels, nearest = planes(linear_net, x0)
    for share, broken in ((1.02, True), (0.98, False)):
        found = build_attack("apgd", norm=norm, loss=loss, steps=40)(
            Target(linear_net), x0, labels, epsilon=share * nearest[norm], ids=torch.arange(20), seed=0
        )
        assert ((linear_net(found.x).argmax(1) != labels) == broken).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("given", [{}, {"restarts": 2, "steps": 40}], ids=["one", "restarts"])
def test_fab_reaches_the_nearest_plane_of_a_linear_model(norm, given, linear_net, images):
    x0 = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.02 + 0.49
    labels, nearest = planes(linear_net, x0)
    found = attack("fab", linear_net, type(images)(x0, labels, torch.arange(20)), norm=norm, epsilon=10.0, **given)
    assert (linear_net(found.x).argmax(1) != labels).all()
    ratio = lengths(found.x - x0, norm).float() / nearest[norm]
    assert ratio.min() > 0.9999
    assert ratio.max() < 1.02


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_shortest_way_to_a_plane_within_the_box(norm):
    """Against the dual, solved by bisection for each image: d_i = clip(s r_i sign) with <w, d> = gap."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(200, 1, 4, 5, generator=generator)
    w = torch.randn(200, 1, 4, 5, generator=generator) * 10 ** torch.randint(-3, 4, (200, 1, 1, 1), generator=generator)
    w[:, :, 0, 0] = 0
    reach = torch.where(w > 0, w * (1 - x), -w * x).flatten(1).sum(1).double()
    gap = reach * torch.rand(200, generator=generator, dtype=torch.float64)
    d = to_plane(x, w, gap, norm)
    moved = (d.double() * w).flatten(1).sum(1)
    torch.testing.assert_close(moved, gap, rtol=1e-5, atol=1e-7)
    assert (x + d >= -1e-6).all()
    assert (x + d <= 1 + 1e-6).all()
    assert (d[:, :, 0, 0] == 0).all()
    for i in range(200):
        low, high = 0.0, 1e7
        rate = torch.ones_like(w[i]) if norm == "linf" else w[i].abs()
        room = torch.where(w[i] > 0, 1 - x[i], x[i])
        for _ in range(100):
            s = (low + high) / 2
            low, high = (low, s) if (torch.minimum(s * rate, room) * w[i].abs()).sum() > gap[i] else (s, high)
        expected = torch.minimum(high * rate, room) * w[i].sign()
        torch.testing.assert_close(d[i], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_plane_out_of_reach_is_approached_as_far_as_the_box_goes_and_either_way(norm):
    x, w = torch.tensor([0.25, 0.5, 1.0]).view(1, 1, 1, 3), torch.tensor([1.0, -2.0, 3.0]).view(1, 1, 1, 3)
    for gap, corner in ((9.0, [1, 0, 1]), (-9.0, [0, 1, 0])):
        d = to_plane(x, w, torch.tensor([gap]).double(), norm)
        torch.testing.assert_close(x + d, torch.tensor(corner).float().view_as(x))
    assert (to_plane(x, torch.zeros_like(w), torch.tensor([1.0]).double(), norm) == 0).all()
    assert (to_plane(x, w, torch.tensor([0.0]).double(), norm) == 0).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_mifgsm_takes_its_steps(norm, net, images):
    epsilon = {"linf": 0.1, "l2": 0.6}[norm]
    found = attack("mifgsm", net, images, norm=norm, epsilon=epsilon, steps=6, step_size=0.25, momentum=0.7)
    for i in range(len(images)):
        x0, label = images.x[i : i + 1], images.labels[i : i + 1]
        x, total = x0, torch.zeros_like(x0)
        for _ in range(6):
            if net(x).argmax(1) != label:
                break
            g = gradient(net, x, label)
            total = 0.7 * total + g / g.abs().sum()
            step = total.sign() if norm == "linf" else total / total.norm()
            delta = x + 0.25 * epsilon * step - x0
            size = delta.norm()
            delta = delta.clamp(-epsilon, epsilon) if norm == "linf" else delta * min(1, epsilon / size)
            x = (x0 + delta).clamp(0, 1)
        assert torch.allclose(found.x[i : i + 1], x, atol=1e-5)


def test_deepfool_considers_as_many_classes_as_it_is_told(net, images):
    some = type(images)(images.x, net(images.x).argmax(1), images.ids)  # at first all are right
    few = attack("deepfool", net, some, candidates=2, steps=1)
    assert (few.gradients == 1).all()
    assert (attack("deepfool", net, some, candidates=10, steps=1).gradients == 9).all()


@pytest.mark.parametrize("query", [0, 1, 10, 11, 50, 51, 200, 201, 500, 501, 4000, 4001, 8001])
def test_square_halves_p_after_fixed_queries(query):
    square = build_attack("square", norm="linf", queries=10_000, schedule="standard")
    assert square.share(query) == 0.8 / 2 ** len([q for q in HALVINGS if query > q])
    assert {0: 0.8, 10: 0.8, 11: 0.4, 51: 0.2, 8001: 0.8 / 512}.get(query, square.share(query)) == square.share(query)


def test_square_scales_its_schedule_to_a_small_budget():
    scaled = build_attack("square", norm="linf", queries=100, schedule="scaled")
    standard = build_attack("square", norm="linf", queries=100, schedule="standard")
    assert scaled.share(99) == 0.8 / 512
    assert standard.share(99) == 0.8 / 4
    assert scaled.share(1) == 0.8 / 4  # query 1 of 100 stands for query 100 of 10,000


@pytest.mark.parametrize(("query", "side"), [(0, 29), (15, 21), (99, 3)])
def test_square_has_an_odd_side_for_l2(query, side):
    square = build_attack("square", norm="l2", queries=100, schedule="standard" if query == 15 else "scaled")
    assert square.side(query, 32, 32) == side  # sqrt(.8 * 1024) = 28.6, sqrt(.4 * 1024) = 20.2
    assert square.side(0, 2, 2) == 2


def test_a_bump_is_two_pyramids_of_opposite_sign():
    shape = bump(5)  # 2 rows up, 3 down
    assert shape.norm() == pytest.approx(1)
    upper, lower = shape[:2], -shape[2:]
    assert (upper > 0).all()
    assert (lower > 0).all()
    heights = torch.tensor([1 + 1 / 4 + 1 / 9, 1 / 4 + 1 / 9, 1 / 9])
    torch.testing.assert_close(lower[1] / lower[1, 2], heights[[2, 1, 0, 1, 2]] / heights[0])
    torch.testing.assert_close(lower[:, 2] / lower[1, 2], heights[[1, 0, 1]] / heights[0])
    assert upper.norm() == pytest.approx(float(lower.norm()))


def square_search(norm="l2", count=30):
    square = build_attack("square", norm=norm, queries=100)
    x0 = torch.full((count, 3, 20, 20), 0.5)
    return square, Search(
        Target(Constant().eval()), x0, torch.zeros(count).long(), epsilon=torch.linspace(0.5, 2, count),
        ids=torch.arange(count), norm=norm, seed=0, stream="square",
    )


def test_square_l2_starts_from_a_lattice_of_bumps_of_length_epsilon():
    square, search = square_search()
    delta = square._start(search) - search.x0
    torch.testing.assert_close(lengths(delta, "l2").float(), search.epsilon, atol=1e-5, rtol=0)
    tile = delta[:, :, :4, :4] / delta[:, :, :4, :4].square().sum((2, 3), keepdim=True).sqrt()
    upright = (tile.abs() - bump(4).abs()).abs().amax((1, 2, 3)) < 1e-4
    lying = (tile.abs() - bump(4).T.abs()).abs().amax((1, 2, 3)) < 1e-4
    assert (upright | lying).all()
    assert upright.any()
    assert lying.any()
    assert len({tuple(row) for row in tile[:, :, 0, 0].sign().tolist()}) > 4  # signs by channel


def test_square_l2_moves_the_length_of_one_square_into_another():
    square, search = square_search()
    x = square._start(search)
    for query in (1, 5, 30):
        new = square._propose(search, x, query)
        torch.testing.assert_close(lengths(new - search.x0, "l2").float(), search.epsilon, atol=1e-4, rtol=0)
        side = square.side(query, 20, 20)
        before, after = x - search.x0, new - search.x0
        ratio = torch.where(before.abs() > 1e-4, after / before, torch.nan).flatten(1).nanmedian(1).values
        assert (ratio < 1 + 1e-4).all(), "what is in neither square makes room"
        changed = (after - ratio[:, None, None, None] * before).abs().amax(1) > 1e-5  # (batch, 20, 20)
        assert changed.any((1, 2)).all()
        emptied = ((new - search.x0).abs().amax(1) < 1e-7) & changed
        assert (changed & ~emptied).sum((1, 2)).amax() <= 2 * side**2
        apart = emptied.any((1, 2))
        assert apart.any(), "no length came from elsewhere"
        x = new


def test_square_l2_gives_a_channels_bump_the_length_of_both_squares_over_all_channels():
    either = torch.zeros(2, 3, 5, 5)
    either[0, :, 1, 1] = torch.tensor([1.0, 2.0, 3.0])
    found = bump_length(torch.tensor([0.3, 1.2]), either)
    torch.testing.assert_close(found.flatten(), torch.tensor([0.1 + 14, 0.4]).sqrt())


@pytest.mark.parametrize(("query", "side"), [(0, 29), (99, 1)])
def test_square_has_the_side_that_covers_p(query, side):
    square = build_attack("square", norm="linf", queries=100)
    assert square.side(query, 32, 32) == side  # sqrt(.8 * 1024) = 28.6
    assert square.side(0, 1, 1) == 1


def test_square_starts_from_vertical_stripes(net, images):
    found = attack("square", net, images, queries=1, epsilon=1e-3)
    step = (found.x - images.x)[:, 0]
    free = (images.x > 0.01) & (images.x < 0.99)
    assert torch.allclose(step.abs()[free[:, 0]], torch.tensor(1e-3), atol=1e-6)
    for image, inner in zip(step, free[:, 0], strict=True):
        for column in range(8):
            assert len(image[:, column][inner[:, column]].sign().unique()) <= 1


def test_square_never_raises_the_margin_and_puts_pixels_on_the_corners(net, images):
    last = torch.full((len(images),), torch.inf)
    for queries in (1, 10, 40):
        found = attack("square", net, images, queries=queries, epsilon=0.05, schedule="standard")
        now = margin(net(found.x)[None], images.labels)
        assert (now <= last + 1e-5).all()
        last = now
        edge = torch.minimum((images.x + 0.05).clamp(max=1) - found.x, found.x - (images.x - 0.05).clamp(min=0))
        assert edge.abs().max() < 1e-6


def test_a_square_always_changes_something(images):
    square = build_attack("square", norm="linf", queries=100)
    search = Search(
        Target(Constant().eval()), torch.full_like(images.x, 0.5), images.labels,
        epsilon=torch.full((len(images),), 0.1), ids=images.ids, norm="linf", seed=0, stream="square",
    )
    x = square._stripes(search)
    for query in range(1, 100):
        changed = (square._propose(search, x, query) != x).flatten(1).any(1)
        assert changed.all()


class Constant(torch.nn.Module):
    """Asked nothing."""

    stochastic = False


def test_square_reaches_every_corner():
    square = build_attack("square", norm="linf", queries=100)
    places = torch.tensor([[0.0, 0.0], [0.999999, 0.999999]])
    masks = square._window(places, 99, torch.zeros(2, 1, 8, 8))
    assert masks[0, 0, 0, 0]
    assert masks[1, 0, 7, 7]
    assert masks.sum() == 2


@pytest.mark.parametrize(("norm", "size", "query", "first", "last"), [
    ("linf", 8, 99, 0, 7), ("linf", 32, 99, 0, 31), ("l2", 8, 99, 0, 7), ("l2", 28, 99, 1, 26), ("l2", 32, 99, 1, 30),
    ("l2", 224, 99, 7, 216), ("l2", 32, 0, 1, 30), ("l2", 9, 0, 0, 8),
])
def test_square_leaves_the_edge_of_large_images_alone_in_l2(norm, size, query, first, last):
    square = build_attack("square", norm=norm, queries=100)
    places = torch.tensor([[0.0, 0.0], [0.999999, 0.999999]])
    masks = square._window(places, query, torch.zeros(2, 1, size, size))
    assert masks[0, 0].nonzero().amin().item() == first
    assert masks[1, 0].nonzero().amax().item() == last


def test_losses_are_means_over_the_draws():
    logits = torch.tensor([[[2.0, 0.0, 1.0]], [[0.0, 3.0, 0.0]]])
    labels = torch.tensor([0])
    assert margin(logits, labels) == (1.0 - 3.0) / 2
    assert correct_share(logits, labels) == 0.5
    both = [functional.cross_entropy(logits[i], labels) for i in range(2)]
    assert torch.allclose(cross_entropy(logits, labels), torch.stack(both).mean())


def test_direction_survives_gradients_too_small_to_square():
    tiny = torch.full((1, 1, 2, 2), 1e-30)
    assert torch.allclose(direction(tiny, "l2"), torch.full((1, 1, 2, 2), 0.5))
    assert (direction(torch.zeros(1, 1, 2, 2), "l2") == 0).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_shortens_only_what_is_too_long(norm):
    x0 = torch.full((2, 1, 2, 2), 0.5)
    x = x0 + torch.tensor([0.4, 0.01]).view(2, 1, 1, 1)
    found = project(x, x0, torch.tensor([0.1, 0.1]), norm)
    assert torch.allclose(lengths(found - x0, norm)[0], torch.tensor(0.1).double())
    assert torch.allclose(found[1], x[1])


@pytest.mark.parametrize("worth", [0.6 + 2e-6, torch.nan, torch.inf, 1.5, -0.1])
def test_the_recheck_refuses_what_does_not_count(worth):
    x0 = torch.full((2, 1, 2, 2), 0.5)
    x = x0 + 0.1
    x[1, 0, 0, 0] = worth
    assert acceptable(x, x0, torch.tensor([0.1, 0.1]), "linf").tolist() == [True, False]
