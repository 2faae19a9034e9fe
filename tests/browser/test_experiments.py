"""Experiments and runs in a browser: submitting, watching, cancelling, trying again."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.conftest import Lab, scrolls_sideways, serious_faults
from tests.end_to_end.conftest import run_of

SOON = 240_000  # ms, for what waits for a job, on a machine that has other work
STAY = "window.stays = true"  # gone after a reload


def body_of(page: Page) -> Any:
    return page.evaluate("JSON.parse(document.getElementById('body').textContent)")


def state_of(page: Page) -> Any:
    return page.locator("#status .state")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_experiment_and_its_runs_are_accessible_on_a_desk_and_on_a_phone(
    lab: Lab, visit: Callable[..., Page], scheme: str
) -> None:
    runs = [run_of(lab.experiment, kind, variant) for kind, variant in (("branch", "paralif"), ("evaluate", "paralif"))]
    for path in (f"experiments/{lab.experiment['id']}", *(f"runs/{run['id']}" for run in runs)):
        page = visit(f"{lab.url}/ui/{path}", scheme=scheme)
        expect(page.locator("#log")).to_contain_text(re.compile("train|branch|evaluate"))
        assert serious_faults(page) == []
        page.set_viewport_size({"width": 390, "height": 844})
        assert not scrolls_sideways(page)


def test_what_the_form_submits_is_watched_to_its_end_without_reloading(lab: Lab, visit: Callable[..., Page]) -> None:
    page = visit(f"{lab.url}/ui/experiments/new", refused=(422,))  # while no attack is chosen yet
    page.get_by_label("LIF", exact=True).uncheck()
    page.get_by_label("ParaLIF").uncheck()
    for label, text in (("seeds", "7"), ("epochs", "2"), ("eps", "8/255"), ("images", "5")):
        page.get_by_label(label, exact=True).fill(text)
    page.get_by_label("chosen attacks").check()
    page.locator("[data-attack=fgsm]").check()
    expect(page.locator("#runs-text")).to_have_text("2 runs: 2 new, 0 reused.")
    expect(page.locator("#time-text")).to_contain_text(re.compile("^At least|^About"))  # the lab has trained before
    assert body_of(page) == {
        "dataset": "digits", "variants": ["default"], "seeds": [7], "training": {"epochs": 2},
        "evaluation": {"attacks": [{"name": "fgsm"}], "eps": ["8/255"], "images": 5},
    }
    page.get_by_label("name", exact=True).fill("by form")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/ui/experiments/exp_"))
    page.evaluate(STAY)
    listed = visit(f"{lab.url}/ui/experiments?dataset=digits&state=")
    expect(listed.get_by_role("row", name="by form")).to_contain_text(re.compile("queued|running"))
    expect(page.locator("#charts .legend")).to_have_count(2, timeout=SOON)  # an epoch has ended
    expect(state_of(page)).to_contain_text("succeeded", timeout=SOON)
    expect(page.locator("#percent")).to_have_text("100 %")
    expect(page.locator(".node .word")).to_have_text(["succeeded", "succeeded"])
    expect(page.get_by_role("region", name="Results").get_by_role("link", name="checkpoint")).to_have_count(1)
    expect(page.get_by_role("region", name="Training by run").get_by_role("row")).to_contain_text(["epochs", "seed 7"])
    assert page.evaluate("window.stays") is True
    expect(listed.get_by_role("row", name="by form")).to_contain_text("succeeded")


def test_the_fault_of_a_field_stands_at_the_field(lab: Lab, visit: Callable[..., Page]) -> None:
    page = visit(f"{lab.url}/ui/experiments/new", refused=(422,))
    page.get_by_label("epochs", exact=True).fill("many")
    page.get_by_label("eps", exact=True).fill("8/255, 8/0")
    page.locator("[data-pointer='/decoder/timesteps']").evaluate("e => { e.value = '0'; }")  # in closed details
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#training-epochs-fault")).to_contain_text("integer")
    expect(page.locator("#evaluation-eps-fault")).to_contain_text("8/0")
    expect(page.locator("#decoder-timesteps-fault")).to_be_visible()
    expect(page.get_by_label("epochs", exact=True)).to_have_attribute("aria-invalid", "true")
    assert "/ui/experiments/new" in page.url


def test_a_template_is_the_same_experiment(lab: Lab, visit: Callable[..., Page]) -> None:
    page = visit(f"{lab.url}/ui/experiments/new?from={lab.experiment['id']}")
    expect(page.locator("#runs-text")).to_have_text(re.compile(r"^\d+ runs: 0 new"))
    assert body_of(page) == {
        "name": "browser", "dataset": "digits", "seeds": [0, 1], "variants": ["default", "paralif"],
        "training": {"epochs": 2, "branch_epochs": 1},
        "evaluation": {"images": 20, "attacks": [{"name": "fgsm"}, {"name": "pgd", "parameters": {"steps": 5}}]},
    }


def test_cancelling_asks_first_and_is_seen_without_reloading(lab: Lab, visit: Callable[..., Page]) -> None:
    body = {"dataset": "digits", "variants": ["default"], "seeds": [8], "training": {"epochs": 1000}}
    page = visit(f"{lab.url}/ui/experiments/{lab.service.client().submit(body)['id']}")
    page.evaluate(STAY)
    expect(page.locator(".node").first).to_contain_text("running", timeout=SOON)
    page.get_by_role("button", name="Cancel …").click()
    page.get_by_role("button", name="Let it run").click()
    expect(state_of(page)).to_contain_text("running")
    page.get_by_role("button", name="Cancel …").click()
    page.get_by_role("button", name="Cancel the experiment").click()
    expect(state_of(page)).to_contain_text("cancelled")
    expect(page.locator("#status")).to_contain_text("UTC by local")
    expect(page.locator(".node .word")).to_have_text(["cancelled", "cancelled"], timeout=SOON)
    expect(page.get_by_role("button", name="Try 2 runs again")).to_be_enabled()
    assert page.evaluate("window.stays") is True


@pytest.fixture
def damaged(lab: Lab) -> Path:
    """An image that cannot be read, in a data set `damaged` of the lab."""
    folder, generator = lab.service.data_dir / "datasets" / "damaged", np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 2)):
        for name in ("dark", "light"):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 128, (8, 8)) + (128 if name == "light" else 0)
                Image.fromarray(pixels.astype("uint8")).save(folder / split / name / f"{number}.png")
    image = folder / "train" / "light" / "3.png"
    image.write_bytes(b"damaged")
    return image


def test_a_failed_run_says_why_and_goes_on_when_tried_again(
    lab: Lab, visit: Callable[..., Page], damaged: Path
) -> None:
    body = {"dataset": "damaged", "variants": ["default"], "seeds": [0], "training": {"epochs": 1, "batch_size": 4},
            "evaluation": {"attacks": [{"name": "fgsm"}], "eps": ["8/255"], "images": 4}}  # fmt: skip
    experiment = lab.service.client().submit(body)
    page = visit(f"{lab.url}/ui/experiments/{experiment['id']}")
    page.evaluate(STAY)
    expect(state_of(page)).to_contain_text("failed", timeout=SOON)
    expect(page.locator("#status .error")).to_contain_text("3.png")  # once, not for all that depend on it
    run = visit(f"{lab.url}/ui/runs/{run_of(experiment, 'train')['id']}")
    expect(run.get_by_role("region", name="Error")).to_contain_text("3.png")
    Image.new("L", (8, 8), 200).save(damaged)
    page.get_by_role("button", name="Try 2 runs again").click()
    expect(state_of(page)).to_contain_text("succeeded", timeout=SOON)
    assert page.evaluate("window.stays") is True


def test_an_evaluation_shows_its_figures_checks_and_pictures(lab: Lab, visit: Callable[..., Page]) -> None:
    page = visit(f"{lab.url}/ui/runs/{run_of(lab.experiment, 'evaluate', 'paralif')['id']}")
    expect(page.get_by_role("region", name="Robustness by radius").get_by_role("row")).to_have_count(4)
    expect(page.get_by_role("region", name="Checks")).to_contain_text("faulty gradients")
    page.get_by_role("link", name="linf 8/255").click()
    picture = page.get_by_role("img", name="within linf 8/255")
    picture.scroll_into_view_if_needed()
    page.wait_for_function("document.getElementById('picture').naturalWidth > 100")
    expect(picture).to_have_attribute("src", re.compile("eps=8"))
