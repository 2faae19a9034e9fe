"""The jobs: data, training, attacks, evaluation, and the processes that run them."""
