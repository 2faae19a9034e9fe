"""Every page of the dashboard: modules with a `router` each."""

from app.api.ui import assets, comparison, curves, experiments, home, leaderboard, matrix, runs, sign_in

PAGES = (home, sign_in, assets, experiments, runs, leaderboard, matrix, curves, comparison)
