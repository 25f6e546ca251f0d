"""What a guard makes of questions around its scope: `python -m calibration.bench.scope`."""
