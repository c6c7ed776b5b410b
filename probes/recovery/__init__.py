"""Computes a recovery from readings and events. Pure functions."""
