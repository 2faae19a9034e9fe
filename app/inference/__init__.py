"""Checkpoints that answer: loading, safe image decoding, prediction. torch is loaded at the first call."""
