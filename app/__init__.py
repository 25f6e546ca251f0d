"""The guard as an HTTP service. Run as `python -m app`."""
