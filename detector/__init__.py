"""Trajectories, scores, thresholds, and the engine that makes trajectories.

Importing this package loads neither torch nor transformers: import the module you need.
"""
