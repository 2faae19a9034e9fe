"""How long a leaderboard of 500 rows takes, from the click to the drawn page.

    python -m benchmarks.pages [--rows 500] [--looks 10] [--folder /tmp/board] [--chromium /usr/bin/chromium]

Makes a database of so many rows (3 variants, 3 seeds, three radii), starts `spikeproof serve --api-only` on it, and
opens the boards in a real browser. The first look is at a service that was just started and has read nothing yet. For
each page: the server's time until the last byte, then the browser's until it has laid the page out, and their sum; the
target of the leaderboard is a second. On a machine that has other work these are longer than they need be, and only the
CPU times beside them mean something: of the API's process, and of the browser's main thread. `--folder` keeps the
database from one time to the next.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from playwright.sync_api import Browser, sync_playwright

from app.storage import migrate
from app.storage.engine import Database
from app.storage.tables import Run
from tests.app.work import Queue
from tests.end_to_end.conftest import Service

PAGES = ("/ui/leaderboard?dataset=digits", "/ui/leaderboard?dataset=digits&eps=8/255", "/ui/curves?dataset=digits",
         "/ui/matrix?dataset=digits", "/")  # fmt: skip
TIMES = """() => {
  const { requestStart, responseEnd, loadEventEnd } = performance.getEntriesByType("navigation")[0];
  return [responseEnd - requestStart, loadEventEnd - responseEnd];
}"""
TICK = os.sysconf("SC_CLK_TCK")


def measure(run: Run) -> dict[str, float]:
    """Figures that differ from row to row and from seed to seed."""
    subject = run.spec["subject"]
    share = hash((subject["variant"], subject["epochs"], subject["seed"])) % 1000 / 1000
    return {"robust_accuracy": 0.2 + 0.3 * share, "clean_accuracy": 0.9 + 0.05 * share}


def fill(data_dir: Path, rows: int) -> None:
    """Three rows an experiment, as the API and the workers would have made them, without computing anything."""
    database = Database(f"sqlite:///{data_dir / 'spikeproof.db'}")
    migrate.upgrade(database)
    began, queue = time.monotonic(), Queue(database, data_dir)
    for number in range((rows + 2) // 3):
        queue.submit(variants=["default", "lif", "paralif"], seeds=[0, 1, 2], name=f"experiment {number}",
                     training={"epochs": 1 + number})  # fmt: skip
        queue.work_off(measure)
    database.close()
    print(f"{rows} rows: made in {time.monotonic() - began:.0f} s", flush=True)


def look(browser: Browser, url: str, pid: int) -> list[float]:
    """Milliseconds of the server and of the browser, then of CPU of both, in a fresh context: nothing is cached but by
    the server."""
    context = browser.new_context()
    page, before = context.new_page(), cpu_seconds(pid)
    thread = context.new_cdp_session(page)
    thread.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(url)
    page.evaluate("document.body.offsetHeight")
    page.wait_for_function("performance.getEntriesByType('navigation')[0].loadEventEnd > 0")
    spent = {metric["name"]: metric["value"] for metric in thread.send("Performance.getMetrics")["metrics"]}
    times = [*page.evaluate(TIMES), 1000 * (cpu_seconds(pid) - before), 1000 * spent["TaskDuration"]]
    context.close()
    return times


def cpu_seconds(pid: int) -> float:
    """Of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def shown(times: Sequence[float]) -> str:
    """In a line."""
    server, own, server_cpu, own_cpu = times
    return f"{server:7.0f} +{own:6.0f} ={server + own:6.0f} ms, CPU{server_cpu:6.0f} +{own_cpu:6.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--looks", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="data folder of an earlier time, or an empty one")
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = given.folder or Path(temporary)
        if not (folder / "spikeproof.db").exists():
            fill(folder, given.rows)
        flags = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=given.chromium, args=flags)
        service = Service(folder, options=["--api-only"]).start()
        try:
            assert service.process is not None
            children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
            for path in PAGES:
                first, *later = [look(browser, service.url + path, int(children[0])) for _ in range(1 + given.looks)]
                again = [median(times) for times in zip(*later, strict=True)]
                print(f"{path}\n  first look {shown(first)}\n  median     {shown(again)}", flush=True)
        finally:
            service.stop()
            browser.close()


if __name__ == "__main__":
    main()
