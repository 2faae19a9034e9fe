"""Fetches published data sets ahead of their first use, and decodes them as a job would.

    python -m worker.fetch NAME... | all

Ends with 0 when all of them are here, else with 1 and a line on standard error for each that is not.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console

from app.domain.datasets import KNOWN, Dataset, official_fingerprint
from app.domain.errors import SpikeproofError
from app.settings import settings
from app.storage import datasets
from worker.data import load

ALL = "all"


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME")
    data_dir = settings().data_dir
    try:
        wanted = [datasets.find(name, data_dir) for name in _names(parser.parse_args().names)]
    except SpikeproofError as error:
        return _failed(error)
    return max([_fetch(dataset, data_dir) for dataset in wanted], default=0)


def _names(given: Iterable[str]) -> list[str]:
    """Each once; `all` stands for whatever can be downloaded."""
    downloadable = [name for name, facts in KNOWN.items() if facts.downloadable]
    return list(dict.fromkeys(one for name in given for one in (downloadable if name == ALL else [name])))


def _fetch(dataset: Dataset, data_dir: Path) -> int:
    name = dataset.name
    if dataset.fingerprint != official_fingerprint(name):
        built_in = dataset.facts is not None and dataset.facts.built_in
        print(f"{name}: {'built in' if built_in else f'DATA_DIR/datasets/{name} has images'}; nothing to download")
        return 0
    console = Console(stderr=True)
    try:
        with console.status(name) as status:
            tell = (lambda phase: status.update(f"{name}: {phase}")) if console.is_terminal else _teller(name)
            arrays = load(name, dataset.fingerprint, dataset.classes, dataset.shape, data_dir, tell)
    except SpikeproofError as error:
        return _failed(error)
    print(f"{name}: here, {len(arrays.train)} + {len(arrays.test)} images", flush=True)
    return 0


def _teller(name: str) -> Callable[[str], None]:
    """Without a terminal: a line for each thing begun, without how far it is."""
    told = ""

    def tell(phase: str) -> None:
        nonlocal told
        begun = phase.partition(",")[0]
        if begun != told:
            told = begun
            print(f"{name}: {begun}", flush=True)

    return tell


def _failed(error: SpikeproofError) -> int:
    print(f"spikeproof: {error.detail}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
