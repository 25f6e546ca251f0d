"""Instruments: what a paper claims and what the engine costs. Not part of the package."""
