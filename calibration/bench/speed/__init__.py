"""What scoring and the engine cost: `python -m calibration.bench.speed`."""
