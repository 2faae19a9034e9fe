"""Pages with keys: how one signs in and out, what each role sees, and how a refusal is told."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from app.storage import api_keys
from tests.browser.conftest import Guarded, picture, serious_faults

SOON = 60_000  # ms, for a first prediction, which loads torch, on a machine that has other work


def test_a_page_is_seen_with_a_key_alone_and_until_one_signs_out(guarded: Guarded, visit: Callable[..., Page]) -> None:
    page = visit(f"{guarded.url}/ui/leaderboard?dataset=digits&variant=lif", refused=(401,))
    expect(page.locator("h1")).to_have_text("A key, please")
    expect(page.get_by_role("button", name="Sign out")).to_have_count(0)
    assert serious_faults(page) == []
    guarded.signed_in(page, "spk_wrong")
    expect(page.get_by_role("alert")).to_contain_text("not known here")
    guarded.signed_in(page, guarded.key("reader", "somebody"))
    expect(page.locator("table.board tbody tr")).to_have_count(1)  # with the filters that were asked for
    assert "spikeproof_key" not in page.evaluate("document.cookie")
    page.goto(f"{guarded.url}/ui/sign-in")
    expect(page.locator("main")).to_contain_text("signed in as somebody, with the role reader")
    page.get_by_role("banner").get_by_role("button", name="Sign out").click()
    expect(page.locator("main")).not_to_contain_text("signed in as")
    page.goto(f"{guarded.url}/ui/experiments")
    expect(page.locator("h1")).to_have_text("A key, please")


def is_told(page: Page, role: str | None) -> None:
    """That something on the page needs this role; None: that nothing needs another one."""
    missing = page.locator("[data-missing]")
    expect(missing).to_have_count(0 if role is None else 1)
    if role is not None:
        expect(missing).to_contain_text(f"needs the role {role}")


@pytest.mark.parametrize(("role", "refused"), [
    ("reader", ("POST", "/experiments", "submitter")), ("submitter", ("DELETE", "/experiments/{id}", "admin")),
    ("admin", None),
])  # fmt: skip
def test_a_role_is_offered_what_it_may_do_and_told_what_the_rest_needs(
    guarded: Guarded, visit: Callable[..., Page], role: str, refused: tuple[str, str, str] | None
) -> None:
    submits, archives = role != "reader", role == "admin"
    page = visit(f"{guarded.url}/ui/sign-in?then=/ui/experiments", refused=(409,))  # no worker has fetched test images
    guarded.signed_in(page, guarded.key(role, f"my {role}"))
    expect(page.get_by_role("link", name="New experiment")).to_have_count(int(submits))
    is_told(page, None if submits else "submitter")

    page.goto(f"{guarded.url}/ui/experiments/{guarded.experiment}")
    expect(page.get_by_role("link", name="Use as a template")).to_have_count(int(submits))
    expect(page.get_by_role("button", name="Archive")).to_be_enabled(enabled=archives)
    is_told(page, None if archives else "admin" if submits else "submitter")

    page.goto(f"{guarded.url}/ui/experiments/new")
    expect(page.locator("#runs-text")).to_contain_text("18 runs")  # what it would cost, anyone may ask
    expect(page.get_by_role("button", name="Submit")).to_be_enabled(enabled=submits)
    is_told(page, None if submits else "submitter")
    assert submits or serious_faults(page) == []

    page.goto(f"{guarded.url}/ui/checkpoints/{guarded.checkpoint}")
    expect(page.locator("[data-verify]")).to_have_count(int(submits))
    expect(page.get_by_text("to verify it takes the role submitter")).to_have_count(int(not submits))

    page.goto(f"{guarded.url}/ui/playground?checkpoint={guarded.checkpoint}")
    expect(page.get_by_role("status")).to_contain_text("decoded when the first run uses them")
    page.get_by_label(re.compile("PNG or JPEG")).set_input_files([picture()])
    expect(page.locator("#before tbody tr")).to_have_count(5, timeout=SOON)  # to classify, anyone may ask
    expect(page.get_by_role("button", name="Attack it")).to_have_count(int(submits))
    expect(page.get_by_text("to attack takes the role submitter")).to_have_count(int(not submits))

    if refused is not None:  # what no page offers
        method, path, needed = refused
        answer = page.request.fetch(guarded.url + path.format(id=guarded.experiment), method=method)
        told = f"this needs the role {needed}; the key 'my {role}' has the role {role}"
        assert (answer.status, answer.json()["detail"]) == (403, told)


def test_whose_key_is_revoked_is_told_at_the_next_button_and_asked_for_another(
    guarded: Guarded, visit: Callable[..., Page]
) -> None:
    page = visit(f"{guarded.url}/ui/sign-in?then=/ui/experiments/{guarded.experiment}", refused=(401,))
    guarded.signed_in(page, guarded.key("admin", "leaving"))
    page.get_by_role("button", name="Archive").click()
    restore = page.get_by_role("button", name="Show in lists again")
    expect(restore).to_be_enabled()
    guarded.queue.do(api_keys.revoke, "leaving")
    restore.click()
    expect(page.get_by_role("alert")).to_have_text(re.compile("was revoked. Sign in at /ui/sign-in$"))
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("was revoked")
    guarded.signed_in(page, guarded.key("admin"))
    restore.click()
    expect(page.get_by_role("button", name="Archive")).to_be_enabled()
