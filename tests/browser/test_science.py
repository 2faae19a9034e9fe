"""Checkpoints, playground, architectures, neurons: what people do there, in a real browser on a real service."""

import re
from collections.abc import Callable
from typing import Any

import httpx
from playwright.sync_api import FilePayload, Page, expect

from tests.browser.conftest import Lab, picture

WORK = 60_000  # ms that a run may take on a busy machine


def ask(lab: Lab, path: str) -> Any:
    return httpx.get(f"{lab.url}{path}").raise_for_status().json()


def test_checkpoints_are_filtered_by_the_address_and_lead_to_their_pages(lab: Lab, visit: Callable[..., Page]) -> None:
    page = visit(f"{lab.url}/ui/checkpoints")
    variants = [one["variant"] for one in ask(lab, "/checkpoints")["items"]]  # other tests make some too
    expect(page.locator("tbody tr")).to_have_count(len(variants))
    assert set(variants) == {"default", "paralif"}
    page.get_by_label("variant").select_option("paralif")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("tbody tr")).to_have_count(variants.count("paralif"))
    assert "variant=paralif" in page.url
    page.locator("tbody a").first.click()
    expect(page.locator("h1")).to_contain_text("resnet20 ParaLIF on digits")
    page.goto(f"{lab.url}/ui/checkpoints?architecture=resnet50")
    expect(page.locator("main")).to_contain_text("No checkpoint is like this")


def test_a_checkpoints_page_has_what_was_measured(lab: Lab, visit: Callable[..., Page]) -> None:
    checkpoint = lab.checkpoint("paralif")
    page = visit(f"{lab.url}/ui/checkpoints/{checkpoint}")
    measured = ask(lab, f"/checkpoints/{checkpoint}/evaluations")["items"][0]
    counts = page.locator("table.confusion td").all_inner_texts()
    assert sum(int(text or 0) for text in counts) == measured["clean"]["images"] == 359
    figures = page.get_by_role("region", name="Figures of").locator("tbody tr")
    expect(figures).to_have_count(2 + len(measured["figures"]))
    assert [text.split("\t")[0] for text in figures.all_inner_texts()[:2]] == ["clean, all 359", "clean, these 20"]
    expect(figures.nth(2)).to_contain_text(f"{100 * measured['figures'][0]['robust_accuracy']:.1f}")
    rate = measured["clean"]["spike_rates"]["input"]
    expect(page.get_by_role("region", name="Spike rates")).to_contain_text(f"{rate:.3f}")
    sheet = page.locator("img.sheet")
    sheet.scroll_into_view_if_needed()
    expect(sheet).to_have_js_property("complete", True)
    assert sheet.evaluate("image => image.naturalWidth") > 100
    page.get_by_role("link", name="8/255", exact=True).click()
    expect(page.locator("a.chip[aria-current]")).to_have_text("8/255")


def test_figures_are_verified_from_the_page(lab: Lab, visit: Callable[..., Page]) -> None:
    page = visit(f"{lab.url}/ui/checkpoints/{lab.checkpoint('default')}")
    page.get_by_role("button", name="Compute them again from the file").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Agrees: all", timeout=WORK)
    page.reload()
    expect(page.locator("#verified")).to_contain_text("Agrees: all")


def test_a_test_image_is_attacked_with_parameters_of_ones_own_once_they_are_right(
    lab: Lab, visit: Callable[..., Page]
) -> None:
    address = f"{lab.url}/ui/playground?checkpoint={lab.checkpoint('paralif')}&test_image=9&eps=64/0"
    page = visit(address, refused=(422,))
    expect(page.locator("#before tbody tr")).to_have_count(5, timeout=WORK)  # the first answer loads torch
    expect(page.get_by_role("status")).to_contain_text("Test image 9")
    page.locator("select[name=attack]").select_option("mifgsm")
    steps, momentum = (page.get_by_label(name, exact=True) for name in ("steps", "momentum"))
    eps = page.locator("input[name=eps]")
    page.get_by_text("Its parameters").click()
    steps.fill("0")
    momentum.fill("much")
    page.get_by_role("button", name="Attack it").click()
    expect(page.locator("#eps-fault")).to_contain_text("64/0")
    expect(page.get_by_role("status")).to_contain_text("What is marked above cannot be done")
    eps.fill("64/255")
    eps.press("Enter")
    expect(page.locator("#eps-fault")).to_be_hidden()
    expect(page.locator("#parameter-steps-fault")).to_contain_text("1")
    expect(page.locator("#parameter-momentum-fault")).to_contain_text("number")
    expect(steps).to_be_focused()
    steps.fill("3")
    momentum.fill("0.5")
    steps.press("Enter")
    expect(page.locator("#after caption")).to_contain_text("100 fresh draws", timeout=WORK)
    expect(page.locator("#before caption")).to_contain_text("Answer before")
    expect(page.locator("#facts")).to_contain_text("mifgsm")
    expect(page.locator("#facts")).to_contain_text("64/255")
    assert page.locator("#attacked").evaluate("image => image.decode().then(() => image.naturalWidth)") == 8
    expect(page.locator("#after td.number").first).to_contain_text("±")
    file = page.get_by_role("link", name="exact values").get_attribute("href") or ""
    used = ask(lab, file.removesuffix("/adversarial.npz"))["spec"]["parameters"]
    assert (used["steps"], used["momentum"]) == (3, 0.5)


def test_an_image_of_ones_own_is_predicted_and_attacked(lab: Lab, visit: Callable[..., Page]) -> None:
    page = visit(f"{lab.url}/ui/playground?checkpoint={lab.checkpoint('default')}")
    page.get_by_label(re.compile("PNG or JPEG")).set_input_files([picture()])
    expect(page.locator("#before tbody tr")).to_have_count(5, timeout=WORK)
    page.get_by_label("true class").select_option("3")
    page.get_by_role("button", name="Attack it").click()
    expect(page.locator("#after tbody tr").first).to_be_visible(timeout=WORK)
    run = ask(lab, "/runs?kind=attack&limit=1")["items"][0]
    spec = ask(lab, f"/runs/{run['id']}")["spec"]
    assert (spec["label"], list(spec["image"])) == (3, ["sha256"])
    page = visit(f"{lab.url}/ui/runs/{run['id']}")
    expect(page.locator("#outcome p")).to_contain_text(f"({spec['attack']} within {spec['norm']} ")
    for title in ("Image", "What changed, magnified", "Attacked"):
        picture_of = page.get_by_role("img", name=title, exact=True)
        assert picture_of.evaluate("image => image.decode().then(() => image.naturalWidth)") == 8


def test_an_answer_is_not_called_true_where_nobody_knows_the_class(lab: Lab, visit: Callable[..., Page]) -> None:
    page = visit(f"{lab.url}/ui/playground?checkpoint={lab.checkpoint('default')}&eps=64/255")
    page.get_by_label(re.compile("PNG or JPEG")).set_input_files([picture()])
    expect(page.locator("#before tbody tr")).to_have_count(5, timeout=WORK)
    assert "true" not in page.locator("#before").inner_text()
    page.get_by_role("button", name="Attack it").click()
    for side in ("#before", "#after"):
        expect(page.locator(f"{side} caption")).to_contain_text("Answer", timeout=WORK)
        expect(page.locator(f"{side} tbody")).to_contain_text("answered before", timeout=WORK)
        assert "true" not in page.locator(side).inner_text()
        shares = [float(text.split()[0]) for text in page.locator(f"{side} td.number").all_inner_texts()]
        assert shares == sorted(shares, reverse=True)
    expect(page.locator("#facts")).to_contain_text("answered so before")
    expect(page.locator("#change-caption")).to_contain_text("Perturbation, ×")
    page.get_by_label(re.compile("PNG or JPEG")).set_input_files([picture()])
    expect(page.locator("#change-caption")).to_have_text("Perturbation, magnified")


def test_enter_in_the_number_shows_that_image_and_attacks_none(lab: Lab, visit: Callable[..., Page]) -> None:
    page = visit(f"{lab.url}/ui/playground?checkpoint={lab.checkpoint('default')}")
    expect(page.locator("#before tbody tr")).to_have_count(5, timeout=WORK)
    number = page.get_by_label("test image number")
    number.fill("5")
    number.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Test image 5", timeout=WORK)
    expect(page.locator("#after tbody tr")).to_have_count(0)
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()


def test_what_is_no_image_leaves_no_broken_one(lab: Lab, visit: Callable[..., Page]) -> None:
    page = visit(f"{lab.url}/ui/playground?checkpoint={lab.checkpoint('default')}", refused=(415, 422))
    expect(page.locator("#before tbody tr")).to_have_count(5, timeout=WORK)
    broken: FilePayload = {"name": "mine.png", "mimeType": "image/png", "buffer": b"no image"}
    page.get_by_label(re.compile("PNG or JPEG")).set_input_files([broken])
    expect(page.locator("#status .bad, #image-fault:visible").first).to_be_visible(timeout=WORK)
    expect(page.locator("#original")).to_be_hidden()


def test_layers_follow_the_variant_and_the_size(lab: Lab, visit: Callable[..., Page]) -> None:
    page = visit(f"{lab.url}/ui/architectures/resnet18")
    page.get_by_label("variant").select_option("lif")
    page.locator("select[name=stem]").select_option("cifar")
    page.get_by_label("image size").select_option("32")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("h1")).to_have_text("ResNet-18 LIF")
    expect(page.locator("table.layers tbody tr").filter(has_text="decoder.lif")).to_contain_text("20×256")
    expect(page.locator("svg.net path.arc")).to_have_count(8)
    expect(page.locator("svg.net path.projection")).to_have_count(3)
    expect(page.locator("svg.net")).to_contain_text("freeze depth 4")


def test_neurons_are_drawn_with_what_the_route_says(lab: Lab, visit: Callable[..., Page]) -> None:
    checkpoint = lab.checkpoint("paralif")
    page = visit(f"{lab.url}/ui/neurons?checkpoint={checkpoint}&test_image=5&seed=2&count=4")
    expect(page.locator("#figures tr")).to_have_count(4, timeout=WORK)
    wanted = {"test_image": 5, "seed": 2, "count": 4}
    seen = httpx.post(f"{lab.url}/checkpoints/{checkpoint}/neurons", json=wanted).json()
    trains = ["".join("|" if spike else "·" for spike in one["spikes"]) for one in seen["neurons"]]
    assert page.locator("#figures td.mono").all_inner_texts() == trains
    points = page.evaluate("document.getElementById('raster').data[0].x.length")
    assert points == sum(train.count("|") for train in trains)
    drawn = page.evaluate("document.getElementById('membrane').data.map((trace) => trace.y)")
    assert drawn == [one["potential"] for one in seen["neurons"]]
    expect(page.locator("#explained")).to_contain_text("even chance")
