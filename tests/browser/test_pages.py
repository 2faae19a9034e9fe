"""What holds for every page: no error, no other host, nothing that axe finds serious, on any screen and theme."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Lab, scrolls_sideways, serious_faults

PAGES = [
    "/", "/leaderboard?dataset=digits&format=html", "/ui/sign-in", "/ui/experiments", "/ui/experiments/new",
    "/ui/leaderboard?dataset=digits", "/ui/leaderboard?dataset=cifar10",
    "/ui/curves?dataset=digits", "/ui/matrix?dataset=digits", "/ui/compare?dataset=digits",
    "/ui/checkpoints", "/ui/checkpoints/{paralif}", "/ui/checkpoints/{default}",
    "/ui/playground?checkpoint={paralif}", "/ui/neurons?checkpoint={paralif}",
    "/ui/architectures", "/ui/architectures/resnet50?variant=paralif",
]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_accessible_on_a_desk_and_on_a_phone(
    lab: Lab, visit: Callable[..., Page], path: str, scheme: str
) -> None:
    page = visit(lab.url + lab.filled(path), scheme=scheme)
    expect(page.locator("h1")).to_have_count(1)
    assert serious_faults(page) == []
    page.set_viewport_size({"width": 390, "height": 844})
    assert not scrolls_sideways(page)


@pytest.mark.parametrize(("path", "shown"), [("/docs", ".opblock"), ("/redoc", "[data-section-id]")])
def test_the_documentation_draws_itself_without_an_error_or_another_host(
    lab: Lab, visit: Callable[..., Page], path: str, shown: str
) -> None:
    page = visit(lab.url + path)
    expect(page.locator(shown).first).to_be_visible(timeout=30_000)
    page.wait_for_load_state("networkidle")


def test_the_colours_can_be_chosen_and_stay(lab: Lab, visit: Callable[..., Page]) -> None:
    page = visit(lab.url)
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.locator("#theme").click()
    assert page.evaluate(background) != light
    page.reload()
    assert page.evaluate(background) != light
    page.locator("#theme").click()
    assert page.evaluate(background) == light
