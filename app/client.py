"""A typed client of the API.

    client = Client("http://127.0.0.1:8000")
    experiment = client.submit({"dataset": "digits"})
    client.wait(experiment["id"])
    client.leaderboard("digits")["rows"]
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from app.domain.errors import SpikeproofError
from app.domain.lifecycle import TERMINAL

FINAL = TERMINAL | {"partial"}
PATIENCE_SECONDS = 120.0
_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})


class ServiceError(SpikeproofError):
    """The service refused, or cannot be reached; the text is its problem document's."""

    def __init__(self, detail: str, status: int = 0, problems: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(detail)
        self.status, self.problems = status, list(problems)


class Client:
    """Every call raises ServiceError with the service's own words when it does not succeed."""

    def __init__(self, url: str, api_key: str = "", timeout: float = 60.0) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        local = httpx.URL(url).host in _LOCAL  # a proxy of the environment does not lead there
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, trust_env=not local)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def submit(self, spec: Mapping[str, Any], idempotency_key: str | None = None) -> dict[str, Any]:
        """`POST /experiments`."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._json("POST", "/experiments", json=spec, headers=headers)

    def experiment(self, experiment_id: str) -> dict[str, Any]:
        """`GET /experiments/{id}`."""
        return self._json("GET", f"/experiments/{experiment_id}")

    def experiments(self, **filters: Any) -> list[dict[str, Any]]:
        """`GET /experiments`, the first page."""
        items: list[dict[str, Any]] = self._json("GET", "/experiments", params=filters)["items"]
        return items

    def cancel(self, experiment_id: str) -> dict[str, Any]:
        """`POST /experiments/{id}/cancel`."""
        return self._json("POST", f"/experiments/{experiment_id}/cancel")

    def run(self, run_id: str) -> dict[str, Any]:
        """`GET /runs/{id}`."""
        return self._json("GET", f"/runs/{run_id}")

    def cancel_run(self, run_id: str) -> dict[str, Any]:
        """`POST /runs/{id}/cancel`."""
        return self._json("POST", f"/runs/{run_id}/cancel")

    def verify(self, checkpoint_id: str, **wanted: Any) -> dict[str, Any]:
        """`POST /checkpoints/{id}/verify`: the run that does it."""
        return self._json("POST", f"/checkpoints/{checkpoint_id}/verify", json=wanted)

    def wait(
        self, experiment_id: str, on_update: Callable[[dict[str, Any]], None] = lambda _: None, every: float = 0.5
    ) -> dict[str, Any]:
        """Until the experiment has ended; `on_update` sees it each time. Rides out a restart of the service
        of up to PATIENCE_SECONDS."""
        return self._wait(lambda: self.experiment(experiment_id), on_update, every)

    def wait_for_run(
        self, run_id: str, on_update: Callable[[dict[str, Any]], None] = lambda _: None, every: float = 0.5
    ) -> dict[str, Any]:
        """As `wait`, for a single run."""
        return self._wait(lambda: self.run(run_id), on_update, every)

    def _wait(
        self, look: Callable[[], dict[str, Any]], on_update: Callable[[dict[str, Any]], None], every: float
    ) -> dict[str, Any]:
        heard = time.monotonic()
        while True:
            try:
                seen = look()
            except ServiceError as error:
                if error.status not in (0, 503) or time.monotonic() - heard > PATIENCE_SECONDS:
                    raise
                time.sleep(every)
                continue
            heard = time.monotonic()
            on_update(seen)
            if seen["state"] in FINAL:
                return seen
            time.sleep(every)

    def leaderboard(self, dataset: str, **filters: Any) -> dict[str, Any]:
        """`GET /leaderboard` as JSON."""
        return self._json("GET", "/leaderboard", params={"dataset": dataset, **filters, "format": "json"})

    def leaderboard_text(self, dataset: str, form: str, **filters: Any) -> str:
        """`GET /leaderboard` as csv, md or latex."""
        return self._request("GET", "/leaderboard", params={"dataset": dataset, **filters, "format": form}).text

    def checkpoints(self, **filters: Any) -> list[dict[str, Any]]:
        """`GET /checkpoints`, the first page."""
        items: list[dict[str, Any]] = self._json("GET", "/checkpoints", params=filters)["items"]
        return items

    def predict(self, checkpoint_id: str, images: Sequence[Path], **options: Any) -> dict[str, Any]:
        """`POST /checkpoints/{id}/predict` with PNG or JPEG files."""
        files = [("images", (path.name, path.read_bytes())) for path in images]
        return self._json("POST", f"/checkpoints/{checkpoint_id}/predict", files=files, params=options)

    def upload(self, file: Path, **fields: str) -> dict[str, Any]:
        """`POST /checkpoints`: weights of one's own as safetensors, with what the file does not say itself."""
        with file.open("rb") as content:
            return self._json("POST", "/checkpoints", files={"file": (file.name, content)}, data=fields)

    def download(self, checkpoint_id: str, file: Path) -> None:
        """`GET /checkpoints/{id}/file`."""
        file.write_bytes(self._request("GET", f"/checkpoints/{checkpoint_id}/file").content)

    def healthy(self) -> bool:
        """Whether the API answers."""
        try:
            return bool(self._json("GET", "/healthz")["status"] == "ok")
        except ServiceError:
            return False

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._request(method, path, **options).json()
        return answer

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            where = self._http.base_url
            raise ServiceError(f"no service answers at {where} ({error}); start one, or set SPIKEPROOF_URL") from error
        if response.is_success:
            return response
        raise _refusal(response)


def _refusal(response: httpx.Response) -> ServiceError:
    try:
        problem = response.json()
    except ValueError:
        return ServiceError(f"the service answered {response.status_code}", response.status_code)
    problems = problem.get("errors", [])
    return ServiceError(str(problem.get("detail", problem)), response.status_code, problems)
