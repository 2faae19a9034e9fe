"""Pure Python: what an experiment is, without torch, a database or a web framework."""
