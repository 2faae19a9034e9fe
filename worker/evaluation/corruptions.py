"""Accuracy under common corruptions: noise, blur, weather and digital damage at five severities.

    corrupted = corrupt(images, ids, "fog", 3, seed=0)                      # uint8 in, uint8 out
    found = corruption_accuracy(model, images, labels, ids, seed=0)         # JSON-safe

Hendrycks, Dietterich 2019, "Benchmarking neural network robustness to common corruptions and perturbations",
arXiv:1903.12261, with the severities of CIFAR-10-C. The images are *generated* here, not the published files, and
figures on them are not to be set beside figures on those: noise is keyed by (seed, corruption, severity, image id);
frost is a texture of our own, where the paper has photographs; glass blur swaps pixels, where the published code
overwrites one with the other; motion is a blur of our own. Lengths in pixels are those for 32 x 32 images.
"""

import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, special

from models.noise import KeyedNoise, image_keys
from worker.attacks import Classifier
from worker.attacks.search import Progress
from worker.evaluation.clean import evaluate_clean

SEVERITIES = (1, 2, 3, 4, 5)
AT_ONCE = 512  # images corrupted at a time

Floats: TypeAlias = NDArray[np.float64]
Change: TypeAlias = Callable[[Floats, Any, KeyedNoise], Floats]  # x (n, H, W, C) in [0, 1], the severity's settings


def corruption_accuracy(
    model: Classifier, images: NDArray[np.uint8], labels: NDArray[np.int64], ids: NDArray[np.int64], *, seed: int,
    names: Iterable[str] | None = None, done: Mapping[str, list[float]] | None = None, batch_size: int = 256,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Accuracy by corruption and severity, JSON-safe, and what `summarise_corruptions` makes of it.

    images: uint8 (n, H, W, C) or (n, H, W); labels, ids: int64 (n,). `done` holds what an earlier attempt found of
    some corruptions ("accuracy" of its result, or of `accuracy_under`), which are then not measured again.
    """
    wanted = tuple(names if names is not None else CORRUPTIONS)
    found = {name: list(values) for name, values in (done or {}).items() if name in wanted}
    clean = evaluate_clean(model, images, labels, ids, seed=seed, batch_size=batch_size).accuracy
    for number, name in enumerate(wanted):
        if name not in found:
            found[name] = accuracy_under(model, images, labels, ids, name, seed=seed, batch_size=batch_size)
        if progress is not None:
            progress((number + 1) / len(wanted))
    return summarise_corruptions(clean, {name: found[name] for name in wanted})


def accuracy_under(
    model: Classifier, images: NDArray[np.uint8], labels: NDArray[np.int64], ids: NDArray[np.int64], name: str, *,
    seed: int, batch_size: int = 256,
) -> list[float]:
    """Accuracy at each severity, over the fresh draws of `evaluate_clean`: the unit of resuming."""
    return [
        evaluate_clean(
            model, corrupt(images, ids, name, severity, seed=seed), labels, ids, seed=seed, batch_size=batch_size
        ).accuracy
        for severity in SEVERITIES
    ]


def summarise_corruptions(clean: float, accuracy: Mapping[str, list[float]]) -> dict[str, Any]:
    """Means over severities, corruptions and both (mCA), and mCA over clean accuracy; None where that is 0."""
    means = {name: float(np.mean(values)) for name, values in accuracy.items()}
    overall = float(np.mean(list(means.values())))
    return {
        "source": "generated", "severities": list(SEVERITIES), "clean": clean,
        "accuracy": {name: [float(v) for v in values] for name, values in accuracy.items()},
        "mean_by_corruption": means, "mean": overall, "relative": overall / clean if clean else None,
    }


def corrupt(
    images: NDArray[np.uint8], ids: NDArray[np.int64], name: str, severity: int, *, seed: int
) -> NDArray[np.uint8]:
    """Each image damaged, in the shape it came in. Raises ValueError for another name or severity."""
    if name not in CORRUPTIONS:
        raise ValueError(f"unknown corruption {name!r}; there are {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be 1 to 5, not {severity!r}")
    change, settings = CORRUPTIONS[name]
    result = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        part = np.asarray(images[rows])
        x = part.reshape(*part.shape[:3], -1) / 255.0
        keys = image_keys(seed, f"corruption/{name}/{severity}", torch.from_numpy(np.array(ids[rows], np.int64)))
        damaged = change(x, settings[severity - 1], KeyedNoise(keys))
        result[rows] = np.round(255 * damaged.clip(0, 1)).astype(np.uint8).reshape(part.shape)
    return result


def _uniform(noise: KeyedNoise, *shape: int) -> Floats:
    return noise.uniform_per_image(*shape).double().numpy()


def _normal(noise: KeyedNoise, *shape: int) -> Floats:
    return noise.normal_per_image(*shape).double().numpy()


def _gaussian_noise(x: Floats, scale: float, noise: KeyedNoise) -> Floats:
    return x + scale * _normal(noise, *x.shape[1:])


def _shot_noise(x: Floats, photons: float, noise: KeyedNoise) -> Floats:
    """Poisson counts by the inverse of their distribution; half a step of the uniform keeps it off 0."""
    u, mean = _uniform(noise, *x.shape[1:]) + 2.0**-25, photons * x
    counts = np.ceil(special.pdtrik(u, np.maximum(mean, 1e-12)).clip(0)) if x.size else mean
    return np.where(mean > 0, counts, 0) / photons


def _impulse_noise(x: Floats, share: float, noise: KeyedNoise) -> Floats:
    u = _uniform(noise, *x.shape[1:])
    return np.where(u < share / 2, 0.0, np.where(u < share, 1.0, x))


def _defocus_blur(x: Floats, settings: tuple[float, float], noise: KeyedNoise) -> Floats:
    """A disc of the radius, its edge softened by a 3 x 3 Gaussian."""
    radius, soft = settings
    reach = int(np.ceil(radius)) + 1
    steps = np.arange(-reach, reach + 1)
    disc = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(float)
    edge = np.exp(-np.arange(-1, 2) ** 2 / (2 * soft**2))
    edge /= edge.sum()
    kernel = ndimage.convolve(disc / disc.sum(), np.outer(edge, edge), mode="constant")
    blurred: Floats = ndimage.convolve(x, kernel[None, :, :, None], mode="mirror")
    return blurred


def _glass_blur(x: Floats, settings: tuple[float, int, int], noise: KeyedNoise) -> Floats:
    """Blurred, neighbours swapped from the lower right on, blurred again."""
    sigma, reach, rounds = settings
    x = _smooth(x, sigma)
    count, height, width, _ = x.shape
    image = np.arange(count)
    for _ in range(rounds):
        away = np.floor(2 * reach * _uniform(noise, height, width, 2)).astype(int) - reach
        for h in range(height - reach, reach, -1):
            for w in range(width - reach, reach, -1):
                other = (image, h + away[:, h, w, 0], w + away[:, h, w, 1])
                here = x[:, h, w].copy()
                x[:, h, w] = x[other]
                x[other] = here
    return _smooth(x, sigma)


def _smooth(x: Floats, sigma: float) -> Floats:
    smooth: Floats = ndimage.gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest")
    return smooth


def _motion_blur(x: Floats, settings: tuple[float, float], noise: KeyedNoise) -> Floats:
    return _along(x, *settings, degrees=90 * _uniform(noise) - 45)


def _along(x: Floats, radius: float, sigma: float, degrees: Floats) -> Floats:
    """Half a Gaussian of `radius` pixels along each image's direction, past the edge the edge's pixels."""
    count, height, width, _ = x.shape
    weights = np.exp(-np.arange(2 * int(radius) + 1) ** 2 / (2 * sigma**2))
    angle, image = np.deg2rad(degrees), np.arange(count)[:, None, None]
    total = np.zeros_like(x)
    for step, weight in enumerate(weights / weights.sum()):
        down, right = np.rint(step * np.sin(angle)).astype(int), np.rint(step * np.cos(angle)).astype(int)
        rows = (np.arange(height) + down[:, None]).clip(0, height - 1)[:, :, None]
        columns = (np.arange(width) + right[:, None]).clip(0, width - 1)[:, None, :]
        total += weight * x[image, rows, columns]
    return total


def _zoom_blur(x: Floats, largest: float, noise: KeyedNoise) -> Floats:
    zooms = np.arange(1, largest, 0.01)
    total = x + sum(_zoom(x, zoom) for zoom in zooms)
    return np.asarray(total / (len(zooms) + 1))


def _zoom(x: Floats, zoom: float) -> Floats:
    """Enlarged about the middle, bilinear."""
    rows, columns = _stretch(x.shape[1], zoom), _stretch(x.shape[2], zoom)
    return np.asarray(np.einsum("ah,nhwc,bw->nabc", rows, x, columns, optimize=True))


def _stretch(size: int, zoom: float) -> Floats:
    middle = (size - 1) / 2
    place = (np.arange(size) - middle) / zoom + middle
    return np.asarray(np.maximum(0, 1 - np.abs(place[:, None] - np.arange(size))))


def _snow(x: Floats, settings: tuple[float, ...], noise: KeyedNoise) -> Floats:
    """Flakes blown downwards over a paler image."""
    mean, spread, zoom, threshold, radius, sigma, keep = settings
    flakes = _zoom(mean + spread * _normal(noise, *x.shape[1:3], 1), zoom)
    flakes = np.where(flakes < threshold, 0, flakes).clip(0, 1)
    flakes = _along(flakes, radius, sigma, degrees=90 * _uniform(noise) - 135)
    grey = x @ np.array([[0.299], [0.587], [0.114]]) if x.shape[3] == 3 else x
    pale = keep * x + (1 - keep) * np.maximum(x, 1.5 * grey + 0.5)
    return np.asarray(pale + flakes + flakes[:, ::-1, ::-1])


def _frost(x: Floats, settings: tuple[float, float], noise: KeyedNoise) -> Floats:
    """Under ridges of white ice; the tint is left out of a grey image."""
    keep, weight = settings
    ridges = 1 - np.abs(2 * _plasma(noise, *x.shape[1:3], decay=1.75) - 1)
    tint = np.array([0.85, 0.93, 1.0]) if x.shape[3] == 3 else np.ones(x.shape[3])
    return np.asarray(keep * x + weight * (0.3 + 0.7 * ridges[..., None] ** 2) * tint)


def _fog(x: Floats, settings: tuple[float, float], noise: KeyedNoise) -> Floats:
    weight, decay = settings
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    fog = weight * _plasma(noise, *x.shape[1:3], decay=decay)[..., None]
    return np.asarray((x + fog) * brightest / (brightest + weight))


def _plasma(noise: KeyedNoise, height: int, width: int, *, decay: float) -> Floats:
    """Diamond-square clouds in [0, 1], (n, H, W): on a torus of a power of two, the corner cut out.

    Fournier, Fussell, Carpenter 1982, "Computer rendering of stochastic models", doi 10.1145/358523.358553.
    """
    size = 1 << (max(height, width) - 1).bit_length()
    clouds = np.zeros((len(noise.keys), size, size))
    step, spread = size, 1.0
    while step >= 2:
        half = step // 2
        corners = clouds[:, ::step, ::step]
        below = np.roll(corners, -1, 1)
        squares = (corners + below + np.roll(corners, -1, 2) + np.roll(below, -1, 2)) / 4
        middles = squares + spread * (2 * _uniform(noise, *squares.shape[1:]) - 1)
        clouds[:, half::step, half::step] = middles
        for axis, place in ((1, np.s_[:, half::step, ::step]), (2, np.s_[:, ::step, half::step])):
            ends = corners + np.roll(corners, -1, axis)
            sides = middles + np.roll(middles, 1, 3 - axis)
            clouds[place] = (ends + sides) / 4 + spread * (2 * _uniform(noise, *squares.shape[1:]) - 1)
        step, spread = half, spread / decay**2  # the published code draws spread x U(-spread, spread)
    clouds -= clouds.min(axis=(1, 2), keepdims=True)
    clouds /= np.maximum(clouds.max(axis=(1, 2), keepdims=True), 1e-12)
    return np.asarray(clouds[:, :height, :width])


def _brightness(x: Floats, more: float, noise: KeyedNoise) -> Floats:
    """The value of HSV raised; hue and saturation stay."""
    value = x.max(axis=3, keepdims=True)
    raised = np.minimum(value + more, 1)
    return np.asarray(np.where(value > 0, x * raised / np.maximum(value, 1e-12), raised))


def _contrast(x: Floats, share: float, noise: KeyedNoise) -> Floats:
    mean = x.mean(axis=(1, 2), keepdims=True)
    return np.asarray((x - mean) * share + mean)


def _elastic(x: Floats, settings: tuple[float, float, float], noise: KeyedNoise) -> Floats:
    """An affine map that moves three points, and a smooth field of displacements; settings as shares of the side."""
    side = min(x.shape[1:3])
    strength, smooth, jitter = (side * share for share in settings)
    middle, reach = np.array(x.shape[1:3]) // 2, side // 3
    points = middle + reach * np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    moved = points + jitter * (2 * _uniform(noise, 3, 2) - 1)
    field = strength * (2 * _uniform(noise, 2, *x.shape[1:3]) - 1)
    field = ndimage.gaussian_filter(field, (0, 0, smooth, smooth), mode="reflect", truncate=3)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in x.shape[1:3]), indexing="ij"), axis=-1).astype(float)
    result = np.empty_like(x)
    for i in range(len(x)):
        back = np.linalg.solve(np.c_[moved[i], np.ones(3)], points)  # (3, 2): where a moved point came from
        place = (grid + np.moveaxis(field[i], 0, -1)) @ back[:2] + back[2]
        for channel in range(x.shape[3]):
            result[i, ..., channel] = ndimage.map_coordinates(
                x[i, ..., channel], np.moveaxis(place, -1, 0), order=1, mode="mirror"
            )
    return result


def _pixelate(x: Floats, share: float, noise: KeyedNoise) -> Floats:
    height, width = x.shape[1:3]
    small = (max(int(width * share), 1), max(int(height * share), 1))
    return _by_pillow(x, lambda i: i.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX))


def _jpeg(x: Floats, quality: int, noise: KeyedNoise) -> Floats:
    def squeeze(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return _by_pillow(x, squeeze)


def _by_pillow(x: Floats, change: Callable[[Image.Image], Image.Image]) -> Floats:
    """Image by image; (n, H, W, C) of one or three channels."""
    bytes_ = np.round(255 * x).astype(np.uint8)
    bytes_ = bytes_[..., 0] if x.shape[3] == 1 else bytes_
    changed = [np.asarray(change(Image.fromarray(image))) for image in bytes_]
    return np.asarray((np.stack(changed) / 255.0).reshape(x.shape))


# CIFAR-10-C's settings, severity 1 to 5, in the order of the paper's table.
CORRUPTIONS: dict[str, tuple[Change, tuple[Any, ...]]] = {
    "gaussian_noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": (_shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": (_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": (_defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    "glass_blur": (_glass_blur, ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))),
    "motion_blur": (_motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom_blur": (_zoom_blur, (1.06, 1.11, 1.16, 1.21, 1.26)),
    "snow": (_snow, (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )),
    "frost": (_frost, ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    "fog": (_fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "elastic_transform": (_elastic, (
        (0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)
    )),
    "pixelate": (_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": (_jpeg, (80, 65, 58, 50, 40)),
}
