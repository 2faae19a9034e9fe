"""The jobs, one a kind of run: the science of `worker.training` and `worker.evaluation` meets the
database and the files here."""
