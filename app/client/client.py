"""The client: a method a call of the API."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from app.client.connection import Connection, Document, given
from app.client.errors import ServiceError, Unreachable
from app.client.events import Event, events_in
from app.client.frames import frame_of
from app.domain.lifecycle import TERMINAL

if TYPE_CHECKING:
    from pandas import DataFrame

FINAL = TERMINAL | {"partial"}
PATIENCE_SECONDS = 120.0
What = Literal["leaderboard", "leaderboard/matrix", "curves", "compare"]
OnUpdate = Callable[[Document], None]


def _nothing(_: Document) -> None:
    pass


class Client(Connection):
    """Every call raises a ServiceError with the service's own words when it does not succeed.

    Without `url` and `api_key`: SPIKEPROOF_URL and SPIKEPROOF_API_KEY. Answers are the API's JSON; `iter_...` go
    through a list page by page, and the `..._frame` methods answer pandas data frames.
    """

    # Experiments

    def submit(self, spec: Mapping[str, Any], idempotency_key: str | None = None) -> Document:
        """`POST /experiments`."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._json("POST", "/experiments", json=spec, headers=headers)

    def plan(self, spec: Mapping[str, Any]) -> Document:
        """`POST /experiments/plan`: the runs that it would be, and how long they would take; nothing is queued."""
        return self._json("POST", "/experiments/plan", json=spec)

    def experiment(self, experiment_id: str) -> Document:
        """`GET /experiments/{id}`."""
        return self._get(f"/experiments/{experiment_id}")

    def experiments(self, **filters: Any) -> list[Document]:
        """`GET /experiments`, the first page."""
        return list(self._get("/experiments", **filters)["items"])

    def iter_experiments(
        self, *, dataset: str | None = None, state: str | None = None, archived: bool | None = None
    ) -> Iterator[Document]:
        """All of them, newest first."""
        return self._pages("/experiments", dataset=dataset, state=state, archived=archived)

    def cancel(self, experiment_id: str) -> Document:
        """`POST /experiments/{id}/cancel`."""
        return self._json("POST", f"/experiments/{experiment_id}/cancel")

    def delete(self, experiment_id: str, *, files: bool = False) -> Document:
        """`DELETE /experiments/{id}`: archives it, or with `files` deletes it for good; needs an admin's key."""
        return self._json("DELETE", f"/experiments/{experiment_id}", params={"files": files})

    def wait(self, experiment_id: str, on_update: OnUpdate = _nothing, every: float = 0.5) -> Document:
        """Until the experiment has ended; `on_update` sees it each time. Rides out a restart of the service
        of up to PATIENCE_SECONDS."""
        return self._wait(lambda: self.experiment(experiment_id), on_update, every)

    def events(self, experiment_id: str, last_id: str | None = None) -> Iterator[Event]:
        """`GET /experiments/{id}/events` until it has ended. After a break it goes on where it was, with no numbered
        event lost or doubled; `last_id`: go on after this one."""
        heard = time.monotonic()
        while True:
            try:
                for event in self._stream(experiment_id, last_id):
                    heard, last_id = time.monotonic(), event.id
                    yield event
                    if event.kind == "end":
                        return
                if last_id is not None and self.experiment(experiment_id)["state"] in FINAL:
                    return  # it had ended before, and nothing was missed
            except ServiceError as error:
                if not _passes(error) or time.monotonic() - heard > PATIENCE_SECONDS:
                    raise
            time.sleep(0.5)

    def _stream(self, experiment_id: str, last_id: str | None) -> Iterator[Event]:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        with self._answer("GET", f"/experiments/{experiment_id}/events", headers=headers, timeout=None) as response:
            yield from events_in(response.iter_lines(), last_id)

    def report(self, experiment_id: str) -> str:
        """`GET /experiments/{id}/report`: all about it as one HTML page that needs nothing else."""
        return self._request("GET", f"/experiments/{experiment_id}/report").text

    # Runs

    def run(self, run_id: str) -> Document:
        """`GET /runs/{id}`."""
        return self._get(f"/runs/{run_id}")

    def iter_runs(
        self, *, experiment: str | None = None, kind: str | None = None, state: str | None = None
    ) -> Iterator[Document]:
        """All of them, newest first."""
        return self._pages("/runs", experiment=experiment, kind=kind, state=state)

    def wait_for_run(self, run_id: str, on_update: OnUpdate = _nothing, every: float = 0.5) -> Document:
        """As `wait`, for a single run."""
        return self._wait(lambda: self.run(run_id), on_update, every)

    def cancel_run(self, run_id: str) -> Document:
        """`POST /runs/{id}/cancel`."""
        return self._json("POST", f"/runs/{run_id}/cancel")

    def retry(self, run_id: str) -> Document:
        """`POST /runs/{id}/retry`."""
        return self._json("POST", f"/runs/{run_id}/retry")

    def log(self, run_id: str, tail: int | None = None) -> str:
        """`GET /runs/{id}/log`: what it printed, or the last `tail` lines of it."""
        return self._request("GET", f"/runs/{run_id}/log", params=given({"tail": tail})).text

    def iter_images(self, run_id: str) -> Iterator[Document]:
        """What each attack did to each image at each radius."""
        return self._pages(f"/runs/{run_id}/images", limit=10_000)

    def iter_verdicts(self, run_id: str, eps: str | float | None = None) -> Iterator[Document]:
        """What stands of each image after all attacks."""
        return self._pages(f"/runs/{run_id}/verdicts", limit=10_000, eps=eps)

    def gallery(self, run_id: str, file: Path | str, eps: str | float | None = None) -> Path:
        """`GET /runs/{id}/gallery.png` as a file."""
        return self._save(f"/runs/{run_id}/gallery.png", file, eps=eps)

    def adversarial(self, run_id: str, file: Path | str) -> Path:
        """`GET /runs/{id}/adversarial.npz` as a file, for `numpy.load`."""
        return self._save(f"/runs/{run_id}/adversarial.npz", file)

    # Results

    def leaderboard(self, dataset: str, **filters: Any) -> Document:
        """`GET /leaderboard`."""
        return self._get("/leaderboard", dataset=dataset, **filters, format="json")

    def leaderboard_text(self, dataset: str, form: str, **filters: Any) -> str:
        """`GET /leaderboard` as csv, md or latex."""
        return self.table("leaderboard", form, dataset=dataset, **filters)

    def matrix(self, dataset: str, **filters: Any) -> Document:
        """`GET /leaderboard/matrix`."""
        return self._get("/leaderboard/matrix", dataset=dataset, **filters, format="json")

    def curves(self, dataset: str, **filters: Any) -> Document:
        """`GET /curves`."""
        return self._get("/curves", dataset=dataset, **filters, format="json")

    def compare(self, a: str, b: str) -> Document:
        """`GET /compare` of two leaderboard rows, by their ids."""
        return self._get("/compare", a=a, b=b, format="json")

    def table(self, what: What, form: str, **params: Any) -> str:
        """Any of the four as csv, md or latex."""
        return self._request("GET", f"/{what}", params=given({**params, "format": form})).text

    def picture(self, what: What, file: Path | str, **params: Any) -> Path:
        """Any of the four as a picture: PNG or SVG, as the file's name ends."""
        file = Path(file)
        return self._save(f"/{what}", file, **params, format=file.suffix.removeprefix(".").lower())

    def leaderboard_frame(self, dataset: str, **filters: Any) -> "DataFrame":
        """The leaderboard, a row a row."""
        return frame_of(self.table("leaderboard", "csv", dataset=dataset, **filters))

    def matrix_frame(self, dataset: str, **filters: Any) -> "DataFrame":
        """The matrix, a row a cell."""
        return frame_of(self.table("leaderboard/matrix", "csv", dataset=dataset, **filters))

    def curves_frame(self, dataset: str, **filters: Any) -> "DataFrame":
        """The curves, a row a point."""
        return frame_of(self.table("curves", "csv", dataset=dataset, **filters))

    def compare_frame(self, a: str, b: str) -> "DataFrame":
        """A comparison, a row a figure over all seeds (`seed` is empty there), and one a seed."""
        return frame_of(self.table("compare", "csv", a=a, b=b))

    # Checkpoints

    def checkpoint(self, checkpoint_id: str) -> Document:
        """`GET /checkpoints/{id}`."""
        return self._get(f"/checkpoints/{checkpoint_id}")

    def checkpoints(self, **filters: Any) -> list[Document]:
        """`GET /checkpoints`, the first page."""
        return list(self._get("/checkpoints", **filters)["items"])

    def iter_checkpoints(
        self, *, dataset: str | None = None, architecture: str | None = None, variant: str | None = None
    ) -> Iterator[Document]:
        """All of them, newest first."""
        return self._pages("/checkpoints", dataset=dataset, architecture=architecture, variant=variant)

    def card(self, checkpoint_id: str) -> str:
        """`GET /checkpoints/{id}/card`: its model card, as Markdown."""
        return self._request("GET", f"/checkpoints/{checkpoint_id}/card").text

    def download(self, checkpoint_id: str, file: Path | str) -> Path:
        """`GET /checkpoints/{id}/file`. Raises Damaged where what arrived has another sha256."""
        return self._save(f"/checkpoints/{checkpoint_id}/file", file)

    def upload(self, file: Path | str, **fields: str) -> Document:
        """`POST /checkpoints`: weights of one's own as safetensors, with what the file does not say itself."""
        file = Path(file)
        with file.open("rb") as content:
            return self._json("POST", "/checkpoints", files={"file": (file.name, content)}, data=fields)

    def verify(self, checkpoint_id: str, **wanted: Any) -> Document:
        """`POST /checkpoints/{id}/verify`: the run that does it."""
        return self._json("POST", f"/checkpoints/{checkpoint_id}/verify", json=wanted)

    def predict(self, checkpoint_id: str, images: Sequence[Path | str], **options: Any) -> Document:
        """`POST /checkpoints/{id}/predict` with PNG or JPEG files; options are `draws`, `seed`, `top`."""
        files = [("images", (path.name, path.read_bytes())) for path in map(Path, images)]
        return self._json("POST", f"/checkpoints/{checkpoint_id}/predict", files=files, params=options)

    def predict_pixels(self, checkpoint_id: str, images: Any, **options: Any) -> Document:
        """The same with pixels in 0..1: nested lists or an array (n, C, H, W), or (n, H, W) of grey ones."""
        pixels = images.tolist() if hasattr(images, "tolist") else images
        return self._json("POST", f"/checkpoints/{checkpoint_id}/predict", json={"images": pixels, **options})

    def attack(self, checkpoint_id: str, image: Any = None, **wanted: Any) -> Document:
        """`POST /checkpoints/{id}/attack`: the run that looks for the worst image within `eps` of this one.

        `image`: a PNG or JPEG file, or pixels in 0..1 as nested lists or an array (C, H, W); none with `test_image`.
        Other fields are `attack`, `parameters`, `norm`, `eps`, `label`, `seed`, `fresh`.
        """
        address = f"/checkpoints/{checkpoint_id}/attack"
        if isinstance(image, Path | str):
            form = {name: json.dumps(value) if name == "parameters" else value for name, value in wanted.items()}
            return self._json("POST", address, files={"image": (Path(image).name, Path(image).read_bytes())}, data=form)
        if image is not None:
            wanted["image"] = image.tolist() if hasattr(image, "tolist") else image
        return self._json("POST", address, json=wanted)

    # What there is to choose from

    def datasets(self) -> list[Document]:
        """`GET /datasets`."""
        return list(self._get("/datasets")["items"])

    def dataset(self, name: str) -> Document:
        """`GET /datasets/{name}`."""
        return self._get(f"/datasets/{name}")

    def architectures(self) -> list[Document]:
        """`GET /architectures`."""
        return list(self._get("/architectures")["items"])

    def architecture(self, name: str) -> Document:
        """`GET /architectures/{name}`: layer by layer."""
        return self._get(f"/architectures/{name}")

    def attacks(self) -> list[Document]:
        """`GET /attacks`."""
        return list(self._get("/attacks")["items"])

    def suites(self) -> list[Document]:
        """`GET /suites`."""
        return list(self._get("/suites")["items"])

    def presets(self) -> list[Document]:
        """`GET /presets`."""
        return list(self._get("/presets")["items"])

    def healthy(self) -> bool:
        """Whether the API answers."""
        try:
            return bool(self._get("/healthz")["status"] == "ok")
        except ServiceError:
            return False

    def _wait(self, look: Callable[[], Document], on_update: OnUpdate, every: float) -> Document:
        heard = time.monotonic()
        while True:
            try:
                seen = look()
            except ServiceError as error:
                if not _passes(error) or time.monotonic() - heard > PATIENCE_SECONDS:
                    raise
                time.sleep(every)
                continue
            heard = time.monotonic()
            on_update(seen)
            if seen["state"] in FINAL:
                return seen
            time.sleep(every)


def _passes(error: ServiceError) -> bool:
    """Whether it is of a service that may be there again soon."""
    return isinstance(error, Unreachable) or error.status in (429, 503)
