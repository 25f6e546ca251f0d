"""Offline calibration: questions in, artifact out. Run as `python -m calibration`."""
