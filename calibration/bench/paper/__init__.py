"""The benchmark of arXiv 2405.14039 and what it needs: `python -m calibration.bench.paper`."""
