"""The Elephant's remedies: one file each, with all that belongs to it. A new file needs no entry anywhere else."""

from __future__ import annotations

from monkeyproof.healing.remedy import discover

REMEDIES = discover(__name__, __path__)
"""Every remedy, by name."""
