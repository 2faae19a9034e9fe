"""`spikeproof submit --preset NAME`."""

from typing import Any

from app.client import Client
from app.commands.progress_bars import follow
from app.domain.errors import SpikeproofError
from app.domain.presets import FIRST_CHECKPOINT, Body, stages


def submit_preset(
    client: Client, name: str, *, offline: bool, small: bool, as_published: bool, wait: bool
) -> bool:
    """Prints the id of each experiment as it is submitted; whether all that was waited for has succeeded.

    A stage that starts from the one before is waited for, whether or not `wait` says so. Raises NotFound.
    """
    planned = stages(name, offline=offline, small=small, as_published=as_published)
    start, good = None, True
    for number, stage in enumerate(planned, 1):
        submitted = [client.submit(_from(body, start)) for body in stage]
        for experiment in submitted:
            print(experiment["id"], flush=True)
        if wait or number < len(planned):
            ended = [follow(client, experiment) for experiment in submitted]
            good = all(experiment["state"] == "succeeded" for experiment in ended)
            if not good:
                return False
            start = _first_checkpoint(ended[0])
    return good


def _from(body: Body, start: str | None) -> Body:
    if body.get("training", {}).get("weights") != FIRST_CHECKPOINT:
        return body
    return {**body, "training": {**body["training"], "weights": start}}


def _first_checkpoint(experiment: dict[str, Any]) -> str:
    found = [run["checkpoint"] for run in experiment["runs"] if run["kind"] == "train" and run["checkpoint"]]
    if not found:
        raise SpikeproofError(f"experiment {experiment['id']} left no checkpoint to go on from")
    return str(found[0])
