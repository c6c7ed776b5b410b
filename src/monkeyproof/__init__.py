"""Chaos engineering for machine-learning systems, with recovery times that can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monkeyproof.trial.manual import Injected, Monkey, break_target

__version__ = "0.1.0"
__all__ = ["Injected", "Monkey", "__version__", "break_target"]


def __getattr__(name: str) -> object:
    """Import manual injection on first use, so that the command line starts without it."""
    if name in ("Injected", "Monkey", "break_target"):
        from monkeyproof.trial import manual

        return getattr(manual, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
