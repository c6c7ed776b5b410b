"""Drift in the records of a target. Tables of yours have theirs in monkeyproof.faults.data."""

from monkeyproof.faults.drift.records import benign_shift, concept_shift, covariate_shift, prior_shift

__all__ = ["benign_shift", "concept_shift", "covariate_shift", "prior_shift"]
