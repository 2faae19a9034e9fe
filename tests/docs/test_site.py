"""The documentation site builds: every link and anchor leads somewhere, and pages load nothing from elsewhere."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
pytestmark = pytest.mark.xdist_group("site")  # built once


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    wrong = [line for line in (built.stdout + built.stderr).splitlines() if not line.startswith("INFO")]
    if built.returncode:
        told = "`make docs` stops; links are relative to the page they are on:"
        pytest.fail("\n".join([told, *wrong]), pytrace=False)
    return folder


def pages(site: Path) -> dict[str, str]:
    return {page.relative_to(site).as_posix(): page.read_text() for page in site.rglob("*.html")}


def test_it_builds_strictly_with_every_page(site: Path) -> None:
    written = {page.relative_to(DOCS).with_suffix(".html").as_posix() for page in DOCS.rglob("*.md")}
    assert written <= set(pages(site))


def test_every_page_is_in_the_navigation(site: Path) -> None:
    navigation = (site / "index.html").read_text().partition('class="md-content"')[0]
    for page in DOCS.rglob("*.md"):
        address = page.relative_to(DOCS).with_suffix(".html").as_posix()
        assert re.search(rf'href="(\./)?{re.escape(address)}"', navigation), address


def test_it_loads_nothing_from_elsewhere(site: Path) -> None:
    for name, html in pages(site).items():
        loaded = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=[\"']?(https?:[^\"'> ]+)", html)
        assert loaded == [], name


def test_what_is_written_from_the_code_is_there(site: Path) -> None:
    assert "<!-- from the code" not in "".join(pages(site).values())
    reference = {name: html for name, html in pages(site).items() if name.startswith("reference/")}
    assert "272,474 parameters" in reference["reference/architectures.html"]
    assert "SPIKEPROOF_LEASE_SECONDS" in reference["reference/settings.html"]
    assert 'id="hopskipjump"' in reference["reference/attacks.html"]
    assert "POST /experiments/plan" in reference["reference/api.html"]
    assert "spikeproof leaderboard" in reference["reference/commands.html"]


def test_equations_are_drawn_without_a_script(site: Path) -> None:
    assert pages(site)["reference/attacks.html"].count("<math") > 10
    assert 'class="arithmatex"' not in "".join(pages(site).values())


def links(page: Path) -> Iterator[str]:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    yield from re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text)


@pytest.mark.parametrize("page", sorted([*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md")]), ids=lambda p: p.name)
def test_links_lead_somewhere_on_a_code_hosting_site_too(page: Path) -> None:
    for target in links(page):
        file, _, _ = target.partition("#")
        assert not file or (page.parent / file).exists(), f"{page.relative_to(REPOSITORY)} has a link to {target}"


def test_each_decision_has_a_number_of_its_own() -> None:
    records = [page for page in sorted((DOCS / "decisions").glob("*.md")) if page.name != "index.md"]
    numbers = [page.name[:4] for page in records]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    assert twice == [], "the later one takes the next free number, in its name and its title"
    for page in records:
        assert page.read_text().startswith(f"# {int(page.name[:4])}. "), page.name
