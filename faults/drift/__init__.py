"""Drift: in the records of a target, and as pure functions of values and absolute positions.

from monkeyproof.faults.drift import CovariateShift

CovariateShift(columns=(0,), shifts=(30.0,), shape="gradual", over_records=10_000).of(values, positions)
"""

from monkeyproof.faults.drift.streamed import benign_shift, concept_shift, covariate_shift, prior_shift
from monkeyproof.faults.drift.transforms import ConceptShift, CovariateShift, PriorShift

__all__ = [
    "ConceptShift",
    "CovariateShift",
    "PriorShift",
    "benign_shift",
    "concept_shift",
    "covariate_shift",
    "prior_shift",
]
