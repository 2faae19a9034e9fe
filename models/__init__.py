"""The networks: encoders, spiking decoders, their parts. Torch only; nothing of the service is imported."""
