import torch

from models.latency import prediction_latency, processor
from models.registry import build


def test_a_latency_says_where_and_how_it_was_measured(spec):
    model = build(spec("resnet20", "paralif")).train()
    found = prediction_latency(model)
    assert 0 < found["p50_ms"] < 60_000
    assert (found["batch"], found["threads"], found["machine"]) == (1, torch.get_num_threads(), processor())
    assert found["kernels"] == "float32"
    assert found["predictions"] >= 5
    assert model.training


def test_no_random_number_of_others_is_used_up(spec):
    model = build(spec("resnet20", "lif")).eval()
    before = torch.random.get_rng_state()
    prediction_latency(model)
    assert torch.equal(torch.random.get_rng_state(), before)
