"""Plugins: what extends this package from outside. ``undo`` marks a plugin's undo functions."""

from monkeyproof.plugins.registry import undo

__all__ = ["undo"]
