"""What the Elephant can do: each remedy is one function of its hands and a subject, bounded in time.

A remedy says what it did, or raises what kept it from doing so. It works through the target's port alone, and
trusts nothing that it did not check: a snapshot is compared with the reference before it is served, a model is
checked against its digest and asked for known answers, in a process that may die, before it becomes champion.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

from monkeyproof.clock import Clock
from monkeyproof.errors import NotThere, TargetError
from monkeyproof.healing.policy import Remedy
from monkeyproof.healing.samples import Canary
from monkeyproof.targets.port import (
    Features,
    Models,
    ModelVersion,
    Pipeline,
    Registry,
    Replicas,
    Serving,
    Snapshots,
    Target,
    Telemetry,
)

C = TypeVar("C")
T = TypeVar("T")

REGISTRY_WITHIN_S = 8.0
REGISTRY_TRIES = 6
FIRST_BACKOFF_S = 0.1
ACCURACY_MARGIN = 0.02
MOST_CANDIDATES = 10
SNAPSHOTS_TRIED = 5
MOST_STRAY_VALUES = 0.005
"""Share of a snapshot's values that may lie outside what the reference saw: none would forbid all change."""
RANGE_MARGIN = 0.5
"""How far outside, as a share of the reference's own range."""

Vectors = Mapping[str, Sequence[float]]


class CannotHeal(TargetError):
    """A remedy found that it cannot help; the message says why."""


@dataclass(frozen=True, slots=True)
class Actuators:
    """What remedies work with: the target, and what was known of it while all was well."""

    target: Target
    clock: Clock
    canaries: Sequence[Canary]
    known: Vectors
    """Features of the canaries' entities while all was well."""
    version: str
    """The champion while all was well."""
    accuracy: float
    """Its accuracy on the canaries."""

    def of(self, capability: type[C]) -> C:
        """The target's implementation of a capability.

        Raises:
            CannotHeal: it has none.
        """
        found = self.target.find(capability)
        if found is None:
            raise CannotHeal(f"the target offers no {capability.__name__.lower()} control")
        return found


def read_known(features: Features | None, canaries: Sequence[Canary]) -> Vectors:
    """Features of the canaries' entities, as the store has them now; nothing where there is no store to ask."""
    entities = [canary.entity for canary in canaries if canary.entity]
    if features is None or not entities:
        return {}
    return {entity: vector for entity, vector in features.read(entities).items() if vector is not None}


def drain(hands: Actuators, subject: str) -> str:
    hands.of(Replicas).drain(subject)
    return f"{subject} gets no more requests"


def undrain(hands: Actuators, subject: str) -> str:
    hands.of(Replicas).undrain(subject)
    return f"{subject} gets requests again"


def restart(hands: Actuators, subject: str) -> str:
    hands.of(Replicas).restart(subject)
    return f"{subject} was started anew"


def serve_live(hands: Actuators, subject: str) -> str:  # noqa: ARG001
    hands.of(Serving).set_feature_mode("live")
    return "replicas ask the feature store again"


def end_quarantine(hands: Actuators, subject: str) -> str:  # noqa: ARG001
    hands.of(Pipeline).quarantine(False)
    return "new records reach the feature store again"


# --- features ------------------------------------------------------------------------------------------------


def serve_snapshot(hands: Actuators, subject: str) -> str:  # noqa: ARG001
    """Have the replicas use the newest good snapshot instead of the store."""
    name = good_snapshot(hands)
    hands.of(Serving).set_feature_mode("snapshot", name)
    return f"replicas use the snapshot {name}"


def quarantine_and_restore(hands: Actuators, subject: str) -> str:  # noqa: ARG001
    """Stop what comes in, put the last good features back, and drop what replicas remember of the bad ones."""
    hands.of(Pipeline).quarantine(True)
    name = good_snapshot(hands)
    count = hands.of(Features).restore(name)
    hands.of(Serving).forget_features()
    return f"stray batches are set aside; {count} entities were restored from the snapshot {name}"


def good_snapshot(hands: Actuators) -> str:
    """The newest snapshot that looks like the reference.

    Raises:
        CannotHeal: there is none.
    """
    features, contents = hands.of(Features), hands.of(Snapshots)
    if not hands.known:
        raise CannotHeal(
            "nothing is known of how features looked while all was well, so no snapshot can be checked"
        )
    reasons = []
    for name in list(reversed(features.snapshots()))[:SNAPSHOTS_TRIED]:
        why = strays(contents.read_snapshot(name, tuple(hands.known)), hands.known)
        if not why:
            return name
        reasons.append(f"{name}: {why}")
    raise CannotHeal("no snapshot is good: " + ("; ".join(reasons) or "there are none"))


def strays(vectors: Mapping[str, Sequence[float] | None], known: Vectors) -> str:
    """Why the same entities' features are unlike the known ones, in words; "" if they are not."""
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


# --- the model -----------------------------------------------------------------------------------------------


def roll_back(hands: Actuators, subject: str) -> str:  # noqa: ARG001
    """Make the first version champion that proves itself: the last known good one first, then the newest.

    Where the last known good one is champion already, and proves itself, nothing is changed: what answers wrongly
    is a replica that does not follow, and another version would only make the others wrong as well.
    """
    registry = hands.of(Telemetry).healer_registry()
    deadline_s = hands.clock.monotonic_s() + REGISTRY_WITHIN_S
    retry = Retry(hands.clock, deadline_s)
    champion = retry(registry.champion)
    known = retry(registry.versions)
    if champion == hands.version and any(
        one.version == champion and not unfit(hands, registry, one, retry) for one in known
    ):
        raise CannotHeal(f"version {champion} is champion and proves itself: some replica does not follow it")
    versions = [version for version in known if version.version != champion]
    versions.sort(key=lambda version: version.version != hands.version)
    rejected: list[str] = []
    for version in versions[:MOST_CANDIDATES]:
        why = unfit(hands, registry, version, retry)
        if not why:
            retry(partial(registry.set_champion, version.version))
            told = [f"{retry.failures} calls to the registry failed on the way"] if retry.failures else []
            return "; ".join([f"version {version.version} is champion instead of {champion}", *rejected, *told])
        rejected.append(f"version {version.version}: {why}")
    raise CannotHeal("no version is fit to be champion: " + ("; ".join(rejected) or "there is no other"))


def unfit(hands: Actuators, registry: Registry, version: ModelVersion, retry: Retry) -> str:
    """Why a version must not become champion, in words; "" if its bytes and its answers are right."""
    with tempfile.TemporaryDirectory(prefix="mp-candidate-") as folder:
        try:
            model = retry(lambda: registry.download(version.version, Path(folder)))
        except TargetError as error:
            return f"its bytes cannot be had ({error})"
        digest = hashlib.sha256(model.read_bytes()).hexdigest()
        if not version.sha256 or digest != version.sha256:
            return "its bytes are not those that were published" if version.sha256 else "it has no digest to check"
        asked = [canary for canary in hands.canaries if canary.entity in hands.known]
        loaded = hands.of(Models).trial_load(model, [hands.known[canary.entity] for canary in asked])
    if not loaded.ok:
        return f"it does not load: {loaded.why}"
    if not asked or len(loaded.predictions) != len(asked):
        return "it could not be asked for known answers"
    right = sum(
        abs(float(got) - canary.expect) <= canary.tolerance
        for got, canary in zip(loaded.predictions, asked, strict=True)
    )
    enough = hands.accuracy - ACCURACY_MARGIN
    return "" if right / len(asked) >= enough else f"only {right} of {len(asked)} known answers are right"


class Retry:
    """Calls again what failed, with growing pauses, until a deadline that all calls share."""

    def __init__(self, clock: Clock, deadline_s: float) -> None:
        self._clock = clock
        self._deadline_s = deadline_s
        self.failures = 0

    def __call__(self, call: Callable[[], T]) -> T:
        """Raises what the last try raised; at once where what was asked for is not there."""
        for number in range(REGISTRY_TRIES):
            try:
                return call()
            except NotThere:
                raise
            except TargetError:
                self.failures += 1
                pause_s = FIRST_BACKOFF_S * 2**number
                if number + 1 == REGISTRY_TRIES or self._clock.monotonic_s() + pause_s > self._deadline_s:
                    raise
                self._clock.sleep_s(pause_s)
        raise AssertionError("unreachable: the last try returns or raises")


REMEDIES: Mapping[Remedy, Callable[[Actuators, str], str]] = {
    Remedy.DRAIN: drain,
    Remedy.RESTART: restart,
    Remedy.ROLL_BACK: roll_back,
    Remedy.SERVE_SNAPSHOT: serve_snapshot,
    Remedy.QUARANTINE_AND_RESTORE: quarantine_and_restore,
    Remedy.UNDRAIN: undrain,
    Remedy.SERVE_LIVE: serve_live,
    Remedy.END_QUARANTINE: end_quarantine,
}
