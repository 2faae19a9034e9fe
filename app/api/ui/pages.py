"""Every page of the dashboard: modules with a `router` each."""

from app.api.ui import (
    architectures,
    assets,
    checkpoints,
    comparison,
    curves,
    experiments,
    home,
    leaderboard,
    matrix,
    neurons,
    playground,
    runs,
    sign_in,
)

PAGES = (
    home, sign_in, assets, leaderboard, matrix, curves, comparison, experiments, runs, checkpoints, playground,
    architectures, neurons,
)  # fmt: skip
