"""The engine: runs a causal language model and collects trajectories as it goes.

Beside fine-tuning and the engines it is compared with, the only part of TrajGuard that
imports transformers. Serving and calibration share it, so that a calibrated threshold speaks
of the same numbers that serving computes.
"""
