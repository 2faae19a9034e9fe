"""The database and the files: the truth about experiments, runs and results."""
