"""The leaderboard's page, at `/ui/leaderboard` and for whoever asks `/leaderboard` for HTML."""

import json

from fastapi import Request, Response
from fastapi.responses import HTMLResponse

from app.api.choices import choices_of
from app.api.dependencies import Services
from app.api.ui.boards import data_sets
from app.api.ui.html import page
from app.dashboard import leaderboard


def leaderboard_page(request: Request, services: Services, answer: Response) -> HTMLResponse:
    """`answer` is the API's, in JSON."""
    board = json.loads(bytes(answer.body))
    offered = json.loads(bytes(choices_of(services, board["dataset"]).body))
    datasets = data_sets(services, board["dataset"])
    query = [(name, value) for name, value in request.query_params.multi_items() if name != "format"]
    return page(leaderboard.leaderboard_page(board, offered, datasets, query, str(request.base_url)))
