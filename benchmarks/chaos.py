"""Chaos from many seeds: a line a seed.

    python benchmarks/chaos.py --seeds 1 20 [--back-end embedded | lab]

Each runs tests/end_to_end/test_chaos.py in a process of its own; ends with 1 where one has failed.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEST = "tests/end_to_end/test_chaos.py::test_after_chaos_every_run_has_ended_once_as_a_quiet_one_and_nothing_lies_about"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs=2, type=int, default=(1, 10), metavar=("FIRST", "LAST"))
    parser.add_argument("--back-end", choices=("embedded", "lab"), default="embedded")
    given = parser.parse_args()
    first, last = given.seeds
    return max([try_seed(seed, given.back_end) for seed in range(first, last + 1)], default=0)


def try_seed(seed: int, back_end: str) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", f"{TEST}[{back_end}]"]
    chaos = {"SPIKEPROOF_CHAOS_RUNS": "40", "OMP_NUM_THREADS": "1"}
    environment = {**chaos, **os.environ, "SPIKEPROOF_CHAOS_SEED": str(seed)}
    began = time.monotonic()
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = ran.stdout.splitlines()
    told = next((line for line in lines if line.startswith("chaos seed")), f"chaos seed {seed}: did not get far")
    why = next((line for line in lines if line.startswith("E  ")), "")
    print(f"{'ok    ' if ran.returncode == 0 else 'FAILED'} {told}, in all {time.monotonic() - began:.0f} s {why}",
          flush=True)
    return min(ran.returncode, 1)


if __name__ == "__main__":
    sys.exit(main())
