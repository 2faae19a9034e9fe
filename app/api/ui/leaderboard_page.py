"""The leaderboard's page, at `/ui/leaderboard` and for whoever asks `/leaderboard` for HTML."""

import hashlib
import json

from fastapi import Request, Response

from app.api.choices import choices_of
from app.api.dependencies import Services
from app.api.ui.boards import data_sets
from app.api.ui.html import page
from app.dashboard import leaderboard


def leaderboard_page(request: Request, services: Services, dataset: str, answer: Response) -> Response:
    """`answer` is the API's, in JSON. The page is the same for all who ask, and kept for as long as the answers that it
    shows are the same: of 500 rows it takes .3 s to write."""
    choices = choices_of(services, dataset)
    datasets = data_sets(services, dataset)
    query = tuple((name, value) for name, value in request.query_params.multi_items() if name != "format")
    url = str(request.base_url)

    def make(_: object) -> Response:
        board, offered = json.loads(bytes(answer.body)), json.loads(choices)
        return page(leaderboard.leaderboard_page(board, offered, datasets, query, url))

    shown = tuple(hashlib.sha256(part).digest() for part in (bytes(answer.body), choices))
    key = ("leaderboard page", query, tuple(datasets), url)
    kept = services.answers.get(key, lambda: shown, lambda: shown, make)
    return Response(kept.body, headers=kept.headers)
