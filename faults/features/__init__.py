"""Faults of the online feature store, as those who read from it see them: out of reach, slow, or wrong."""

from monkeyproof.faults.features.answers import partial_answers, schema_mismatch, stale_values, wrong_entity
from monkeyproof.faults.features.reach import outage, slow

__all__ = ["outage", "partial_answers", "schema_mismatch", "slow", "stale_values", "wrong_entity"]
