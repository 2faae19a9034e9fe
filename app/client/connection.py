"""Requests, and what becomes of their answers."""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from app.client.errors import BY_STATUS, Damaged, ServiceError, Unreachable

Document = dict[str, Any]
PAGE = 500  # items, as many as the service gives at once
_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/=]+):")


class Connection:
    """Where a service is, and with which key it is asked. Every call raises a ServiceError when it does not succeed."""

    def __init__(self, url: str | None = None, api_key: str | None = None, timeout: float = 60.0) -> None:
        if url is None or api_key is None:
            from app.settings import settings  # only now: it reads the environment and `.env`

            url, api_key = url or settings().url, settings().api_key if api_key is None else api_key
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        local = httpx.URL(url).host in _LOCAL  # a proxy of the environment does not lead there
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, trust_env=not local)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def close(self) -> None:
        """Closes the connections; a `with` statement does it."""
        self._http.close()

    def _json(self, method: str, path: str, **options: Any) -> Document:
        answer: Document = self._request(method, path, **options).json()
        return answer

    def _get(self, path: str, **params: Any) -> Document:
        return self._json("GET", path, params=given(params))

    def _pages(self, path: str, **params: Any) -> Iterator[Document]:
        """Every item of a list, a page at a time."""
        cursor: str | None = None
        while True:
            page = self._get(path, **{"limit": PAGE, **params, "cursor": cursor})
            yield from page["items"]
            if (cursor := page["next"]) is None:
                return

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        with self._answer(method, path, **options) as response:
            response.read()
            return response

    @contextmanager
    def _answer(self, method: str, path: str, **options: Any) -> Iterator[httpx.Response]:
        """An answer that succeeded, its body still to be read."""
        try:
            with self._http.stream(method, path, **options) as response:
                if not response.is_success:
                    response.read()
                    raise refusal(response)
                yield response
        except httpx.HTTPError as error:
            where = self._http.base_url
            raise Unreachable(f"no service answers at {where} ({error}); start one, or set SPIKEPROOF_URL") from error

    def _save(self, path: str, file: Path | str, **params: Any) -> Path:
        """The body as a file, which is whole or not there; checked against `Repr-Digest`, where the answer has it."""
        file = Path(file)
        beside, seen = file.with_name(f".{file.name}.part"), hashlib.sha256()
        try:
            with self._answer("GET", path, params=given(params)) as response, beside.open("wb") as target:
                for chunk in response.iter_bytes():
                    seen.update(chunk)
                    target.write(chunk)
            _check(path, response.headers.get("repr-digest", ""), seen.digest())
            beside.replace(file)
        finally:
            beside.unlink(missing_ok=True)
        return file


def given(params: Mapping[str, Any]) -> dict[str, Any]:
    """Without those that are None."""
    return {name: value for name, value in params.items() if value is not None}


def refusal(response: httpx.Response) -> ServiceError:
    """What an answer that did not succeed is raised as."""
    kind = BY_STATUS.get(response.status_code, ServiceError)
    try:
        problem = response.json()
        detail = str(problem.get("detail", problem))
    except (ValueError, AttributeError):
        return kind(f"the service answered {response.status_code}", response.status_code)
    after = response.headers.get("retry-after", "")
    seconds = float(after) if after.isdigit() else None
    return kind(detail, response.status_code, problem.get("errors", []), problem, seconds)


def _check(path: str, header: str, seen: bytes) -> None:
    told = _DIGEST.search(header)
    if told is not None and base64.b64decode(told[1]) != seen:
        raise Damaged(f"what arrived from {path} has the sha256 {seen.hex()}, and the service has another")
