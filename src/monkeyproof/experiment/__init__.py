"""Experiment files: the catalogue, and the checks before a run."""
