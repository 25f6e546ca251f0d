"""Offline calibration: questions in, artifact out. Run as `trajguard`."""
