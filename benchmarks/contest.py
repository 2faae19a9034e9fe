"""Ours and the peers' in turn, by the process's CPU time; on a GPU by the clock, between synchronisations.

    row = play(Contest("PGD-20", ours=..., peers={"torchattacks": ...}, target=2.8))
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

Work = Callable[[int], Any]  # of a seed; what it returns is scored


def _no_score(result: Any) -> float | None:
    return None


@dataclass(frozen=True)
class Contest:
    """One row. `target`: how many times our time the peer shall take. `score`: robust accuracy of what was returned.

    The row's peer is the fastest of those that are `eligible` by their scores. `limit`: the least seconds that what
    ours returned can have taken. `repeats`: pairs after the first round, in which each of them runs once.
    """

    name: str
    ours: Work
    peers: dict[str, Work]
    target: float
    score: Callable[[Any], float | None] = _no_score
    eligible: Callable[[dict[str, float | None]], Sequence[str]] = list
    limit: Callable[[Any], float] | None = None
    repeats: int = 3
    device: str = "cpu"


@dataclass(frozen=True)
class Row:
    """A line of the table. Seconds; ratio: how many times our time the peer took, the median over pairs."""

    name: str
    ours: float
    peer: float
    peer_name: str
    ratio: float
    target: float
    limit_share: float | None
    ours_accuracy: float | None
    peer_accuracy: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def seconds(work: Callable[[], Any], device: str = "cpu") -> tuple[float, Any]:
    """What it took, and what it returned."""
    if device == "cpu":
        start = time.process_time()
        result = work()
        return time.process_time() - start, result
    torch.cuda.synchronize()
    start = time.perf_counter()
    result = work()
    torch.cuda.synchronize()
    return time.perf_counter() - start, result


def play(contest: Contest) -> Row:
    """The first round finds the peer, and counts where it is the only one; seeds are the numbers of the rounds."""
    first = {name: _turn(contest, work, 0) for name, work in {"ours": contest.ours, **contest.peers}.items()}
    scores = {name: contest.score(result) for name, (_, result) in first.items()}
    chosen = min(contest.eligible({name: scores[name] for name in contest.peers}), key=lambda name: first[name][0])
    turns, limits, found = [(first["ours"][0], first[chosen][0])], _limits(contest, first["ours"][1]), {
        "ours": [scores["ours"]], "peer": [scores[chosen]]}
    for seed in range(1, contest.repeats + 1):
        ours, result = _turn(contest, contest.ours, seed)
        peer, theirs = _turn(contest, contest.peers[chosen], seed)
        turns.append((ours, peer))
        found["ours"].append(contest.score(result))
        found["peer"].append(contest.score(theirs))
        limits += _limits(contest, result)
    timed = turns[1:] or turns  # the first round warms up, where there are others
    shares = [limit / ours for limit, (ours, _) in zip(limits, turns, strict=False)]
    return Row(
        contest.name, statistics.median(t[0] for t in timed), statistics.median(t[1] for t in timed), chosen,
        statistics.median(peer / ours for ours, peer in timed), contest.target,
        statistics.median(shares) if shares else None, _mean(found["ours"]), _mean(found["peer"]),
    )


def _turn(contest: Contest, work: Work, seed: int) -> tuple[float, Any]:
    torch.manual_seed(seed)
    return seconds(lambda: work(seed), contest.device)


def _limits(contest: Contest, result: Any) -> list[float]:
    return [contest.limit(result)] if contest.limit else []


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None
