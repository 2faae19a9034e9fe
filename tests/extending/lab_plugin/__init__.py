"""A package that brings spikeproof one of each: an attack, an architecture, a data set and a decoder.

Entries are read by the API and the command line too, so this module imports no torch; the code they name may.
"""

from app.domain.architectures import Architecture, VariantFacts
from app.domain.attacks import Attack, Parameter
from app.domain.datasets import NATURAL_EPS, NATURAL_HEADLINE, Augmentation, DatasetFacts

STRIPES = Attack(
    "stripes", "Random vertical stripes", ("linf", "l2"), "black", "the start of Andriushchenko et al. 2020",
    {"tries": Parameter(10, "patterns an image", 1, 10_000)}, module="lab_plugin.stripes",
)

TINYNET = Architecture("tinynet", "Two blocks of convolutions", "ours", depths=2, features=32, minimum_size=8,
                       stems=("cifar",))  # fmt: skip

COUNTS = VariantFacts("counts", "Counts", "a linear layer on the mean of Bernoulli spikes", frozenset({"timesteps"}))

PATCHES = DatasetFacts(
    "patches", "Patches of two photographs", ("china", "flower"), (3, 16, 16), 1664, 416, "CC BY 2.0", "scikit-learn",
    NATURAL_EPS, NATURAL_HEADLINE, Augmentation(2, flip=True), reader="lab_plugin.patches:read_patches",
)
