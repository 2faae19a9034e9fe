"""Real Chromium on a real service with a real experiment. A page that logs an error, misses a file or asks another
host for anything fails the test that opened it.

SPIKEPROOF_TEST_CHROMIUM names the browser, else it is `chromium` on PATH, else the one that Playwright installed.
"""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Error, FilePayload, Page, Request, Response, sync_playwright

from app.storage import api_keys
from app.storage.engine import Database
from app.storage.tables import Run
from tests.app.work import Queue
from tests.conftest import skip_or_fail
from tests.end_to_end.conftest import Service, finished
from tests.service import make_settings, serving

SPEC: dict[str, Any] = {
    "name": "browser", "dataset": "digits", "seeds": [0, 1], "variants": ["default", "paralif"],
    "training": {"epochs": 2, "branch_epochs": 1},
    "evaluation": {"images": 20, "attacks": [{"name": "fgsm"}, {"name": "pgd", "parameters": {"steps": 5}}]},
}  # fmt: skip
SERIOUS = ("serious", "critical")


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.slow)  # making the lab takes half a minute


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    named = os.environ.get("SPIKEPROOF_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=named, args=["--no-sandbox", "--disable-dev-shm-usage", "--force-color-profile=srgb"]
            )
        except Error as error:
            skip_or_fail(f"no Chromium can be started here: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@dataclass
class Lab:
    """A running service, and an experiment on it that has ended."""

    service: Service
    experiment: dict[str, Any]

    @property
    def url(self) -> str:
        return self.service.url

    def checkpoint(self, variant: str) -> str:
        """The id of the first seed's."""
        return next(
            str(run["checkpoint"]) for run in self.experiment["runs"]
            if run["kind"] == "evaluate" and run["variant"] == variant and run["seed"] == 0
        )

    def filled(self, path: str) -> str:
        """A path with `{paralif}` or `{default}` in the place of a checkpoint's id."""
        ids = {f"{{{variant}}}": self.checkpoint(variant) for variant in SPEC["variants"]}
        for name, checkpoint in ids.items():
            path = path.replace(name, checkpoint)
        return path


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    service = Service(tmp_path_factory.mktemp("lab")).start()
    try:
        yield Lab(service, finished(service.client(), SPEC))
    finally:
        service.stop()


@dataclass
class Guarded:
    """A service that asks for keys, without workers, and an experiment on it whose figures are made up."""

    url: str
    queue: Queue
    experiment: str
    checkpoint: str

    def key(self, role: Any, name: str = "") -> str:
        """A new key."""
        return str(self.queue.do(api_keys.create, name or f"a {role} {os.urandom(3).hex()}", role)[1])

    def signed_in(self, page: Page, key: str) -> None:
        """From the page that asks for a key."""
        page.get_by_label("Key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_load_state()  # and with it the scripts


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    shutil.copyfile(sqlite_template, folder / "spikeproof.db")
    settings = make_settings(data_dir=folder, keys="always")
    database = Database(settings.resolved_database_url)
    queue = Queue(database, folder)
    checkpoint = queue.trained()
    experiment = queue.submit(name="made up", variants=["default", "lif"], seeds=[1, 2])
    queue.work_off(_made_up)
    with serving(settings) as client:
        yield Guarded(str(client.base_url), queue, experiment, checkpoint)
    database.close()


def _made_up(run: Run) -> dict[str, float]:
    return {"robust_accuracy": {"default": 0.3, "lif": 0.6}[run.spec["subject"]["variant"]]}


@dataclass
class Watched:
    """What a page did that it should not have."""

    page: Page
    own: str
    refused: tuple[int, ...] = ()  # statuses that the test expects
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("request", self._request)
        self.page.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        expected = any(f"status of {status} " in message.text for status in self.refused)
        if message.type in ("error", "warning") and not expected:
            self.faults.append(f"{message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.netloc != self.own:
            self.faults.append(f"asks another host: {request.url}")

    def _response(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self.refused:
            self.faults.append(f"{response.status}: {response.url}")


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """`visit(url, scheme="dark", width=390)`: an open page, watched until the test ends."""
    watched: list[Watched] = []

    def open_page(
        url: str, *, scheme: Any = "light", width: int = 1280, height: int = 900, refused: tuple[int, ...] = ()
    ) -> Page:
        context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": height})
        page = context.new_page()
        watched.append(Watched(page, urlsplit(url).netloc, refused))
        page.goto(url)
        return page

    yield open_page
    for one in watched:
        one.page.context.close()
    assert [fault for one in watched for fault in one.faults] == []


@cache
def _axe() -> str:
    return files("axe_playwright_python").joinpath("axe.min.js").read_text()


def serious_faults(page: Page) -> list[str]:
    """What axe finds serious or worse: rule, and where."""
    page.evaluate(_axe())
    found = page.evaluate("axe.run({resultTypes: ['violations']})")
    return [
        f"{fault['id']}: {json.dumps(node['target'])} {node['failureSummary']}"
        for fault in found["violations"] if fault["impact"] in SERIOUS
        for node in fault["nodes"]
    ]


def column(page: Page, header: str) -> list[str]:
    """The first words of a column of a board, top down."""
    at = page.get_by_role("columnheader", name=header, exact=True).evaluate("cell => cell.cellIndex")
    cells = page.locator(f"table.board > tbody > tr > :nth-child({at + 1})")
    return [text.split()[0] for text in cells.all_inner_texts()]


def picture() -> FilePayload:
    """An image of one's own, of the size of digits."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)).save(out, "PNG")
    return {"name": "mine.png", "mimeType": "image/png", "buffer": out.getvalue()}


def scrolls_sideways(page: Page) -> bool:
    """Whether the page as a whole is wider than the screen."""
    wider: bool = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    return wider
