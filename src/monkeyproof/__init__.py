"""Chaos engineering for machine-learning systems, with recovery times that can be trusted."""

__version__ = "0.1.0"
