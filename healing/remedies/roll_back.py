"""Make a model version champion that proves itself, though the registry fails for a while.

A version's bytes are compared with its digest, and it is asked for known answers in a process that may die, before
it becomes champion. Nothing of this stays in force, so nothing has to be lifted.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from monkeyproof.clock import Clock
from monkeyproof.errors import NotThere, TargetError
from monkeyproof.healing.actuators import Actuators, CannotHeal
from monkeyproof.healing.remedy import remedy
from monkeyproof.targets.port import Models, ModelVersion, Registry, Telemetry

T = TypeVar("T")

REGISTRY_WITHIN_S = 8.0
REGISTRY_TRIES = 6
FIRST_BACKOFF_S = 0.1
ACCURACY_MARGIN = 0.02
MOST_CANDIDATES = 10


@remedy("roll_back", needs=(Telemetry, Models))
def roll_back(actuators: Actuators, subject: str) -> str:  # noqa: ARG001
    """Make the first version champion that proves itself: the last known good one first, then the newest.

    Where the last known good one is champion already, and proves itself, nothing is changed: what answers wrongly
    is a replica that does not follow, and another version would only make the others wrong as well.
    """
    registry = actuators.of(Telemetry).healer_registry()
    retry = Retry(actuators.clock, actuators.clock.monotonic_s() + REGISTRY_WITHIN_S)
    champion = retry(registry.champion)
    known = retry(registry.versions)
    if champion == actuators.version and any(
        one.version == champion and not why_unfit(actuators, registry, one, retry) for one in known
    ):
        raise CannotHeal(f"version {champion} is champion and proves itself: some replica does not follow it")
    candidates = [version for version in known if version.version != champion]
    candidates.sort(key=lambda version: version.version != actuators.version)
    rejected: list[str] = []
    for version in candidates[:MOST_CANDIDATES]:
        why = why_unfit(actuators, registry, version, retry)
        if not why:
            retry(partial(registry.set_champion, version.version))
            failures = [f"{retry.failures} calls to the registry failed on the way"] if retry.failures else []
            return "; ".join(
                [f"version {version.version} is champion instead of {champion}", *rejected, *failures]
            )
        rejected.append(f"version {version.version}: {why}")
    raise CannotHeal("no version is fit to be champion: " + ("; ".join(rejected) or "there is no other"))


def why_unfit(actuators: Actuators, registry: Registry, version: ModelVersion, retry: Retry) -> str:
    """Say why a version must not become champion; "" if its bytes and its answers are right."""
    with tempfile.TemporaryDirectory(prefix="mp-candidate-") as folder:
        try:
            model = retry(lambda: registry.download(version.version, Path(folder)))
        except TargetError as error:
            return f"its bytes cannot be had ({error})"
        digest = hashlib.sha256(model.read_bytes()).hexdigest()
        if not version.sha256 or digest != version.sha256:
            return "its bytes are not those that were published" if version.sha256 else "it has no digest to check"
        canaries = [canary for canary in actuators.canaries if canary.entity in actuators.known]
        rows = [actuators.known[canary.entity] for canary in canaries]
        loaded = actuators.of(Models).trial_load(model, rows)
    if not loaded.ok:
        return f"it does not load: {loaded.why}"
    if not canaries or len(loaded.predictions) != len(canaries):
        return "it could not be asked for known answers"
    right = sum(
        abs(float(prediction) - canary.expect) <= canary.tolerance
        for prediction, canary in zip(loaded.predictions, canaries, strict=True)
    )
    enough = actuators.accuracy - ACCURACY_MARGIN
    return "" if right / len(canaries) >= enough else f"only {right} of {len(canaries)} known answers are right"


class Retry:
    """Repeats a call that fails, with growing pauses, until a deadline that all calls share."""

    def __init__(self, clock: Clock, deadline_s: float) -> None:
        self._clock = clock
        self._deadline_s = deadline_s
        self.failures = 0

    def __call__(self, call: Callable[[], T]) -> T:
        """Return what the call returns.

        Raises:
            NotThere: what the call asks for does not exist; no second try would find it.
            TargetError: the last try failed.
        """
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
