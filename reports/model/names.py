"""How reports name arms, and turn a reason into a sentence."""

from __future__ import annotations

from monkeyproof.reports import text
from monkeyproof.reports.stats.comparison import NO_HEALER


def healer_name(arm: str) -> str:
    """The arm for people: ``no healer`` for the arm ``none``."""
    return "no healer" if arm == NO_HEALER else text.clean(arm)


def sentence(reason: str) -> str:
    """A reason as a sentence of its own: a capital first letter, and a full stop."""
    words = text.clean(reason).strip()
    return words[:1].upper() + words[1:] + ("" if not words or words[-1] in ".!?" else ".")
