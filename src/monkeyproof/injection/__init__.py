"""Injecting one fault. ``revert`` is an action for experiments."""

from monkeyproof.injection.inject import revert

__all__ = ["revert"]
