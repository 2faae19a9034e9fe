"""Networks of 8 bits on the pages, beside those of 32 that they were made of."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from models.int8_kernels import available
from tests.browser.conftest import SPEC, Lab, column
from tests.end_to_end.conftest import finished, run_of

# Of fewer images than the lab's other figures: on a board of their own.
EVALUATION = {"images": 10, "eps": ["16/255"], "attacks": [{"name": "pgd", "parameters": {"steps": 5}}]}
BOARD = "/ui/leaderboard?dataset=digits&eps=16/255&images=10"
WORK = 60_000  # ms that an answer may take on a busy machine


@pytest.fixture(scope="module")
def quantised(lab: Lab) -> dict[str, Any]:
    """An experiment on the lab that has ended: its first network, in both precisions."""
    both = {**SPEC, "name": "eight bits", "seeds": [0], "variants": ["default"], "precision": ["float32", "int8"]}
    return finished(lab.service.client(), {**both, "evaluation": EVALUATION})


def test_rows_of_both_precisions_are_told_apart_filtered_and_compared(
    lab: Lab, quantised: dict[str, Any], visit: Callable[..., Page]
) -> None:
    page = visit(lab.url + BOARD)
    row = page.locator("table.board > tbody > tr")
    page.get_by_role("columnheader", name="precision", exact=True).get_by_role("button").click()
    expect(row.nth(1)).to_contain_text("ptq")
    assert column(page, "precision") == ["float32", "int8"]
    full, rounded = map(float, column(page, "MB"))
    assert rounded < full / 3
    for box in page.get_by_role("checkbox").all():
        box.check()
    page.get_by_role("button", name="Compare two").click()
    expect(page.get_by_role("region", name="Accuracies").get_by_role("columnheader")).to_contain_text(
        ["", "<2>, float32", "<2>, int8, ptq", "", "", ""]
    )
    page.goto(lab.url + BOARD)
    page.get_by_label("precision").select_option("int8")
    page.get_by_role("button", name="Show").click()
    expect(row).to_have_count(1)
    expect(page.locator(".protocol")).to_contain_text("seeds. All rows: int8. Each attack")


def test_a_quantised_checkpoint_says_so_on_its_page_its_card_and_where_it_is_chosen(
    lab: Lab, quantised: dict[str, Any], visit: Callable[..., Page]
) -> None:
    run = run_of(quantised, "quantise")
    page = visit(f"{lab.url}/ui/experiments/{quantised['id']}")
    expect(page.locator(f"#node-{run['id']}")).to_contain_text("int8")
    page.goto(f"{lab.url}/ui/checkpoints/{run['checkpoint']}")
    expect(page.locator("h1")).to_have_text("resnet20 default int8 on digits, seed 0")
    facts = page.locator("main > dl.facts").first
    expect(facts).to_contain_text("int8 kernels" if available() else "simulated kernels")  # as the processor has them
    facts.get_by_text("quantised from").locator("+ dd").get_by_role("link").click()
    expect(page.locator("h1")).to_have_text("resnet20 default on digits, seed 0")
    page.goto(f"{lab.url}/ui/checkpoints")
    listed = page.get_by_role("row").filter(has=page.get_by_role("link", name=run["checkpoint"]))
    expect(listed.get_by_role("cell", name="default int8", exact=True)).to_have_count(1)
    page.goto(f"{lab.url}/ui/playground?checkpoint={run['checkpoint']}")
    expect(page.get_by_label("checkpoint").locator("option:checked")).to_have_text(
        re.compile(r"^resnet20 default int8, seed 0, <2>, \.\.\.\w{4}$")
    )
    expect(page.locator("#before tbody tr")).to_have_count(5, timeout=WORK)
    card = httpx.get(f"{lab.url}/checkpoints/{run['checkpoint']}/card").raise_for_status().text
    assert re.search(r"\*\*precision\*\*: int8\n- \*\*quantised by\*\*: .*method ptq", card)


def test_a_template_keeps_the_precision(lab: Lab, quantised: dict[str, Any], visit: Callable[..., Page]) -> None:
    page = visit(f"{lab.url}/ui/experiments/new?from={quantised['id']}")
    expect(page.locator("#runs-text")).to_have_text("4 runs: 0 new, 4 reused.")
    expect(page.locator("#body")).to_contain_text('"precision": ["float32", "int8"]')
