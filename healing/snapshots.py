"""Which snapshot of the features a remedy may use: the newest that resembles what was known while all was well."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from monkeyproof.healing.actuators import Actuators, CannotHeal, Vectors
from monkeyproof.targets.port import Features, Snapshots

SNAPSHOTS_TRIED = 5
MOST_STRAY_VALUES = 0.005
"""Share of a snapshot's values that may lie outside what the reference saw: none would forbid all change."""
RANGE_MARGIN = 0.5
"""How far outside, as a share of the reference's own range."""


def good_snapshot(actuators: Actuators) -> str:
    """Return the name of the newest snapshot that resembles the reference.

    Raises:
        CannotHeal: there is none.
    """
    features, contents = actuators.of(Features), actuators.of(Snapshots)
    if not actuators.known:
        raise CannotHeal(
            "nothing is known of how features looked while all was well, so no snapshot can be checked"
        )
    reasons = []
    for name in list(reversed(features.snapshots()))[:SNAPSHOTS_TRIED]:
        why = why_it_strays(contents.read_snapshot(name, tuple(actuators.known)), actuators.known)
        if not why:
            return name
        reasons.append(f"{name}: {why}")
    raise CannotHeal("no snapshot is good: " + ("; ".join(reasons) or "there are none"))


def why_it_strays(vectors: Mapping[str, Sequence[float] | None], known: Vectors) -> str:
    """Say why the same entities' features are unlike the known ones; "" if they are not."""
    rows = [vector for vector in vectors.values() if vector is not None]
    if len(rows) < 0.9 * len(known):
        return f"it lacks {len(known) - len(rows)} of {len(known)} known entities"
    if unreal := sum(not math.isfinite(value) for row in rows for value in row):
        return f"{unreal} of its values are not numbers"
    columns, seen = list(zip(*known.values(), strict=True)), list(zip(*rows, strict=True))
    if len(columns) != len(seen):
        return f"it has {len(seen)} features an entity, not {len(columns)}"
    outside = 0
    for number, (usual, values) in enumerate(zip(columns, seen, strict=True), start=1):
        low, high = min(usual), max(usual)
        margin = RANGE_MARGIN * (high - low)
        outside += sum(not low - margin <= value <= high + margin for value in values)
        shift, room = abs(median(values) - median(usual)), (high - low) / 4
        if shift > room:
            return f"the median of feature {number} is {shift:g} off"
    share = outside / (len(rows) * len(columns)) if columns else 0.0
    return f"{share:.1%} of its values are out of range" if share > MOST_STRAY_VALUES else ""
