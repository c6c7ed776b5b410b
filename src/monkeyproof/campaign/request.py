"""What a user asks of a campaign: checked values, before any target or experiment is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from monkeyproof.experiment.activity_roles import ActivityNames


@dataclass(frozen=True, slots=True)
class CampaignRequest:
    """The words of ``monkeyproof run``, ``gate`` and ``plan``. Each is valid by itself."""

    names: tuple[str, ...]
    """Experiments of the catalogue, or paths of files; empty for the tour."""
    target: Path | None
    """The target file; None for the embedded target."""
    arms: tuple[str, ...]
    """Empty for the default of the target."""
    trials_count: int | None
    """Of each experiment and arm; None to run trials until the verdict is decided."""
    max_trials: int
    """The limit where ``trials_count`` is None."""
    shams_count: int
    max_minutes: float | None
    seed: int
    activities: ActivityNames
    """The activities that inject, prove and undo, where the request names them."""
    out: Path | None
    """The campaign's folder; None for one that is named by the time."""
    given: frozenset[str] = frozenset()
    """The names of the options that the user wrote; the others have their defaults."""
