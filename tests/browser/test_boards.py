"""The boards in a browser: filters without JavaScript, columns that sort, rows that are compared and drawn."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Lab, column, scrolls_sideways, serious_faults

PATIENCE = 60_000  # milliseconds, for plotly.js on a machine that has other work
BOARD = "/ui/leaderboard?dataset=digits&eps=8/255"


def test_filters_work_without_javascript(lab: Lab, chromium: Browser) -> None:
    page = chromium.new_context(java_script_enabled=False).new_page()
    page.goto(lab.url + "/ui/leaderboard")
    page.get_by_label("variant").select_option("paralif")
    page.get_by_role("button", name="Show").click()
    assert page.url == lab.url + "/ui/leaderboard?dataset=digits&norm=linf&variant=paralif&sort=robust_accuracy"
    assert column(page, "variant") == ["ParaLIF"]
    page.get_by_text("2 seeds").click()
    expect(page.get_by_text("seed 1: clean")).to_be_visible()
    page.context.close()


def test_columns_sort_by_keyboard_and_say_how(lab: Lab, visit: Callable[..., Page]) -> None:
    page = visit(lab.url + BOARD)
    header = page.get_by_role("columnheader", name="variant", exact=True)
    header.get_by_role("button").focus()
    page.keyboard.press("Enter")
    expect(header).to_have_attribute("aria-sort", "ascending")
    assert column(page, "variant") == ["default", "ParaLIF"]
    page.keyboard.press("Enter")
    expect(header).to_have_attribute("aria-sort", "descending")
    assert column(page, "variant") == ["ParaLIF", "default"]


def test_who_follows_a_link_sees_the_order_that_was_chosen(lab: Lab, visit: Callable[..., Page]) -> None:
    page = visit(lab.url + BOARD)
    for _ in range(2):
        page.get_by_role("columnheader", name="variant", exact=True).get_by_role("button").click()
    assert page.url == lab.url + BOARD + "#by=-variant"
    followed = visit(page.url)
    header = followed.get_by_role("columnheader", name="variant", exact=True)
    expect(header).to_have_attribute("aria-sort", "descending")
    assert column(followed, "variant") == ["ParaLIF", "default"]
    page.get_by_role("columnheader", name="seeds", exact=True).get_by_role("button").click()
    assert column(page, "variant") == column(visit(page.url), "variant"), "of equals, as a new page has them"
    unknown = visit(lab.url + BOARD + "#by=nothing")
    assert column(unknown, "variant") == ["default", "ParaLIF"]


def test_the_variant_stays_beside_the_figures_of_a_wide_board(lab: Lab, visit: Callable[..., Page]) -> None:
    page = visit(lab.url + BOARD, width=390)
    page.get_by_label("all columns").check()
    page.get_by_role("region", name="Leaderboard").evaluate("region => { region.scrollLeft = region.scrollWidth; }")
    shown = """cell => {
      const { left, right, top, bottom } = cell.getBoundingClientRect();
      return cell.contains(document.elementFromPoint((left + right) / 2, (top + bottom) / 2));
    }"""
    for name in ("variant", "pgd %"):
        header = page.get_by_role("columnheader", name=name, exact=True)
        header.scroll_into_view_if_needed()
        assert header.evaluate(shown), name
    variant = page.locator("table.board tbody .variant").first
    variant.evaluate("cell => window.scrollBy(0, cell.getBoundingClientRect().top - innerHeight / 2)")  # not sideways
    assert variant.evaluate(shown)


def test_two_ticked_rows_are_compared(lab: Lab, visit: Callable[..., Page]) -> None:
    page = visit(lab.url + BOARD)
    button = page.get_by_role("button", name="Compare two")
    expect(button).to_be_disabled()
    for box in page.get_by_role("checkbox").all():
        box.check()
    expect(page.locator("#ticked")).to_have_text("2 rows ticked")
    button.click()
    expect(page.locator(".finding")).to_contain_text("On the same 20 images")
    expect(page.locator("#curves .scatterlayer .trace")).to_have_count(4, timeout=PATIENCE)  # a band and a line each
    assert serious_faults(page) == []
    page.set_viewport_size({"width": 390, "height": 844})
    assert not scrolls_sideways(page)


def test_who_comes_back_to_ticked_rows_may_compare_them(lab: Lab, visit: Callable[..., Page]) -> None:
    page = visit(lab.url + BOARD)
    for box in page.get_by_role("checkbox", name="resnet20").all():
        box.check()
    page.get_by_role("button", name="Compare two").click()
    page.wait_for_url("**/ui/compare?**")
    page.go_back()
    for box in page.get_by_role("checkbox", name="resnet20").all():
        expect(box).to_be_checked()
    expect(page.get_by_role("button", name="Compare two")).to_be_enabled()


def test_ticked_rows_are_drawn_and_the_chart_follows_the_theme(lab: Lab, visit: Callable[..., Page]) -> None:
    page = visit(lab.url + BOARD)
    page.get_by_role("checkbox", name="ParaLIF").check()
    page.get_by_role("button", name="Draw curves").click()
    traces = page.locator("#curves .scatterlayer .trace")
    expect(traces).to_have_count(2, timeout=PATIENCE)
    line = page.locator("#curves .lines path.js-line").last
    before = line.evaluate("path => getComputedStyle(path).stroke")
    page.locator("#theme").click()
    expect(line).not_to_have_css("stroke", before)
    page.get_by_role("link", name="Draw all rows").click()
    expect(traces).to_have_count(4, timeout=PATIENCE)


def test_a_board_without_figures_says_how_to_get_some(lab: Lab, visit: Callable[..., Page]) -> None:
    for path in ("leaderboard", "curves", "matrix", "compare"):
        page = visit(f"{lab.url}/ui/{path}?dataset=cifar10")
        expect(page.locator("main")).to_contain_text("Nothing has been measured on cifar10 yet. Set up an experiment")


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_an_attack_has_its_curves(lab: Lab, visit: Callable[..., Page], attack: str) -> None:
    page = visit(lab.url + "/ui/curves?dataset=digits")
    page.get_by_label("attack").select_option(attack)
    page.get_by_role("button", name="Show").click()
    expect(page.locator("h1")).to_have_text(f"digits: accuracy under {attack} against eps")
    expect(page.locator("#curves .scatterlayer .trace")).to_have_count(4, timeout=PATIENCE)


def test_a_phone_shows_robust_accuracy_and_verdict_first_and_the_rest_when_asked(
    lab: Lab, visit: Callable[..., Page]
) -> None:
    page = visit(f"{lab.url}/ui/leaderboard?dataset=digits", width=390)
    region = page.get_by_role("region", name="Leaderboard")
    assert region.evaluate("one => one.scrollWidth <= one.clientWidth")
    for name in ("rank", "variant", "robust %", "verdict"):
        expect(page.get_by_role("columnheader", name=name, exact=True)).to_be_visible()
    clean = page.get_by_role("columnheader", name="clean %", exact=True)
    expect(clean).to_be_hidden()
    page.get_by_label("all columns").check()
    expect(clean).to_be_visible()
    assert region.evaluate("one => getComputedStyle(one).backgroundAttachment").startswith("local")
