"""What the commands of `spikeproof` do; `app.cli` names them."""
