"""Protocols: how a job asks a model, one file per protocol, found by name in `registry.PROTOCOLS`."""
