"""The process that serves the API."""

import subprocess
import sys

SELDOM = """
import gc, time, weakref
from app.api import server

class Ring:
    pass

server.COLLECT_SECONDS = 0.2
server._collect_seldom()
assert gc.get_freeze_count() > 10_000
gc.disable()  # what remains is the collector's work
ring = Ring()
ring.itself, gone = ring, weakref.ref(ring)
del ring
assert gone() is not None
deadline = time.monotonic() + 20
while gone() is not None and time.monotonic() < deadline:
    time.sleep(0.05)
assert gone() is None
lists = [[] for _ in range(200_000)]
gc.enable()
before = gc.get_stats()[2]["collections"]
server.COLLECT_SECONDS = 1e6
lists += [[] for _ in range(500_000)]
print("all", gc.get_stats()[2]["collections"] - before, "young", gc.get_stats()[0]["collections"] > 0)
"""


def test_what_refers_to_itself_goes_in_time_and_a_long_list_stops_nobody_for_it() -> None:
    said = subprocess.run([sys.executable, "-c", SELDOM], capture_output=True, text=True, timeout=120)
    assert said.stdout.split()[:1] == ["all"], said.stderr
    assert int(said.stdout.split()[1]) <= 2, "those of the collector itself, between two lines"
    assert said.stdout.split()[2:] == ["young", "True"]
