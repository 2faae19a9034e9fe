"""By keyboard alone: every stop of the Tab key is seen, and leads to all that can be done."""

import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Guarded

MOST_STOPS = 70
# Whether the target has the focus, and why the focus cannot be seen, if so.
STOP = """target => {
  const at = document.activeElement, style = getComputedStyle(at), box = at.getBoundingClientRect();
  const name = `${at.tagName} ${at.id} ${at.textContent.slice(0, 30)}`;
  const across = box.width && box.right > 0 && box.left < innerWidth;
  const shown = across && box.height && box.bottom > 0 && box.top < innerHeight;
  let unseen = shown ? null : `not on the screen: ${name}`;
  if (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2) unseen = `no outline: ${name}`;
  if (at === document.body) unseen = "nothing has the focus";
  return [at === target, unseen];
}"""


def go_to(page: Page, target: Locator, key: str = "Tab") -> None:
    """Presses the key until `target` has the focus; each stop on the way must be seen."""
    for _ in range(MOST_STOPS):
        page.keyboard.press(key)
        there, unseen = target.evaluate(STOP)
        assert unseen is None
        if there:
            return
    raise AssertionError(f"{MOST_STOPS} stops do not lead to {target}")


def signed_in(guarded: Guarded, visit: Callable[..., Page], role: Any, then: str, **options: Any) -> Page:
    """The key is typed where the focus is already."""
    page = visit(f"{guarded.url}/ui/sign-in?then={then}", **options)
    page.keyboard.type(guarded.key(role))
    page.keyboard.press("Enter")
    page.wait_for_url(guarded.url + then)
    return page


def test_a_board_is_sorted_and_two_of_its_rows_compared(guarded: Guarded, visit: Callable[..., Page]) -> None:
    page = signed_in(guarded, visit, "reader", "/ui/leaderboard?dataset=digits")
    go_to(page, page.get_by_role("link", name="Skip to the content"))
    page.keyboard.press("Enter")
    go_to(page, page.get_by_label("data set"))
    assert page.locator("#main").evaluate("main => main.contains(document.activeElement)")
    header = page.get_by_role("columnheader", name="variant", exact=True)
    names = page.locator("table.board tbody .variant")
    expect(names).to_have_text(["LIF", "default"])
    go_to(page, header.get_by_role("button"))
    page.keyboard.press("Enter")
    expect(header).to_have_attribute("aria-sort", "ascending")
    expect(names).to_have_text(["default", "LIF"])
    for box in page.get_by_role("checkbox").all():
        go_to(page, box)
        page.keyboard.press("Space")
    go_to(page, page.get_by_role("button", name="Compare two"), "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".finding")).to_contain_text("30.0 points")
    expect(page.locator("h1")).to_have_text("digits: resnet20 default against resnet20 LIF")


def test_an_experiment_is_submitted_mended_and_cancelled(guarded: Guarded, visit: Callable[..., Page]) -> None:
    page = signed_in(guarded, visit, "submitter", "/ui/experiments", refused=(422,))
    go_to(page, page.get_by_role("link", name="New experiment"))
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/new$"))
    go_to(page, page.get_by_label("name", exact=True))
    page.keyboard.type("typed")
    for variant in ("LIF", "ParaLIF"):
        go_to(page, page.get_by_label(variant, exact=True))
        page.keyboard.press("Space")
    images = page.get_by_label("images", exact=True)
    go_to(page, images)
    page.keyboard.type("0")
    submit = page.get_by_role("button", name="Submit")
    go_to(page, submit)
    page.keyboard.press("Enter")
    expect(page.locator("#evaluation-images-fault")).to_contain_text("greater than or equal to 1")
    expect(images).to_be_focused()  # where the fault is
    expect(submit).to_be_enabled()
    page.keyboard.press("ControlOrMeta+A")
    page.keyboard.type("5")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/ui/experiments/exp_"))
    expect(page.locator("h1")).to_have_text("typed")
    cancel = page.get_by_role("button", name="Cancel …")
    go_to(page, cancel)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Let it run")).to_be_focused()
    page.keyboard.press("Escape")
    expect(cancel).to_be_focused()
    page.keyboard.press("Enter")
    go_to(page, page.get_by_role("button", name="Cancel the experiment"))
    page.keyboard.press("Enter")
    expect(page.locator("#status .state")).to_contain_text("cancelled")
