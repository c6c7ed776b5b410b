"""A probe that an experiment can name."""

from __future__ import annotations

from pathlib import Path

__all__ = ["is_switched_back"]


def is_switched_back(switch: str) -> bool:
    """Whether the service's switch file is absent."""
    return not Path(switch).exists()
