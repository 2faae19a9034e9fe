"""Pictures of a running service's pages, for the README: `docs/images/NAME-light.png` and `NAME-dark.png`.

    python docs/screenshots.py --url http://127.0.0.1:8000 [--dataset cifar10] [--only leaderboard curves]

Shows what the service has: the data set measured last unless one is named, its best rows, the newest experiment and
checkpoint. Needs the test tools (`make install`) and a Chromium. Each picture is kept below 200 kB.
"""

import argparse
import io
import shutil
import sys
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

# A line a page. Words in braces are found through the API.
PAGES = {
    "home": "/",
    "leaderboard": "/ui/leaderboard?dataset={dataset}",
    "curves": "/ui/curves?dataset={dataset}",
    "compare": "/ui/compare?a={a}&b={b}",
    "experiment": "/ui/experiments/{experiment}",
    "checkpoint": "/ui/checkpoints/{checkpoint}",
    "playground": "/ui/playground",
    "neurons": "/ui/neurons",
    "architecture": "/ui/architectures/resnet20",
}
FOLDER = Path(__file__).parent / "images"
WIDTH, HEIGHT = 1280, 860
LARGEST = 200_000  # bytes
SETTLED = 1_500  # milliseconds without which a chart may still be growing


def found(api: httpx.Client, dataset: str | None) -> dict[str, str]:
    """What stands for the words in braces; a word of which the service has nothing is left out."""
    if dataset is None:
        dataset = api.get("/ui/leaderboard", follow_redirects=False).headers["location"].rpartition("=")[2]
    rows = api.get("/leaderboard", params={"dataset": dataset}).raise_for_status().json()["rows"]
    known = {"dataset": dataset} | {letter: row["id"] for letter, row in zip("ab", rows, strict=False)}
    for name in ("experiment", "checkpoint"):
        newest = api.get(f"/{name}s", params={"limit": 1, "dataset": dataset}).raise_for_status().json()["items"]
        if newest:
            known[name] = newest[0]["id"]
    return known


def taken(browser: Browser, url: str, scheme: Any) -> bytes:
    """The page's first screen as a PNG. Raises RuntimeError where the service has no such page."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": WIDTH, "height": HEIGHT})
    page = context.new_page()
    answer = page.goto(url, wait_until="load")
    if answer is None or not answer.ok:
        raise RuntimeError(f"{url} answers {answer and answer.status}")
    page.wait_for_timeout(SETTLED)
    picture = page.screenshot()
    context.close()
    return picture


def small(picture: bytes) -> bytes:
    """The same in at most 256 colours; smaller where that is not enough."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    while True:
        out = io.BytesIO()
        image.quantize(256, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        if out.tell() <= LARGEST:
            return out.getvalue()
        image = image.resize((image.width * 9 // 10, image.height * 9 // 10), Image.Resampling.LANCZOS)


def main() -> None:
    """Takes the pictures; ends with status 1 where a page could not be had."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="of the running service")
    parser.add_argument("--dataset")
    parser.add_argument("--only", nargs="+", choices=PAGES, default=[*PAGES])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    missing = []
    with httpx.Client(base_url=given.url, timeout=60) as api, sync_playwright() as playwright:
        known = found(api, given.dataset)
        flags = ["--no-sandbox", "--disable-dev-shm-usage", "--force-color-profile=srgb"]
        browser = playwright.chromium.launch(executable_path=given.chromium, args=flags)
        for name in given.only:
            try:
                for scheme in ("light", "dark"):
                    file = given.folder / f"{name}-{scheme}.png"
                    file.write_bytes(small(taken(browser, given.url.rstrip("/") + PAGES[name].format(**known), scheme)))
                    print(f"{file}: {file.stat().st_size / 1000:.0f} kB", flush=True)
            except KeyError as error:
                missing.append(f"{name}: the service has no {error}")
            except RuntimeError as error:
                missing.append(f"{name}: {error}")
        browser.close()
    if missing:
        sys.exit("not taken: " + "; ".join(missing))


if __name__ == "__main__":
    main()
