"""Resets the embedded target between trials, so that no change leaks from one into the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from monkeyproof.clock import wait_for
from monkeyproof.errors import TargetError
from monkeyproof.targets.local.adapter.reconnecting_client import ReconnectingClient
from monkeyproof.targets.local.control_plane.configuration import first_question
from monkeyproof.targets.local.control_plane.layout import PRIMED, REPLICAS
from monkeyproof.targets.local.workload.feature_store import FeatureStore
from monkeyproof.targets.port import Pins, Pipeline, Registry, Serving
from monkeyproof.types import Json

SETTLE_CALL_S = 20.0
FOLLOW_WITHIN_S = 10.0
REFILL_TRIES = 3


@dataclass(frozen=True, slots=True)
class TargetReset:
    """``port.Resettable``: restores the state that was declared when the target came up."""

    control: ReconnectingClient
    registry: Registry
    champion: str
    features: FeatureStore
    serving: Serving
    pins: Pins
    pipeline: Pipeline
    quarantine: Path
    questions: Path
    """A golden or canary file with questions to ask."""
    replica_urls: Mapping[str, str]
    """Of the replicas themselves, past every link."""

    def reset(self) -> Sequence[str]:
        done: list[str] = []
        if self.pipeline.status().quarantining:
            self.pipeline.quarantine(False)
            done.append("quarantine was on: off")
        if (found := self.registry.champion()) != self.champion:
            self.registry.set_champion(self.champion)
            done.append(f"the champion was version {found}: {self.champion} again")
        for name, version in self.pins.pinned().items():
            self.pins.unpin(name)
            done.append(f"{name} was pinned to version {version}: no more")
        done += self.control.call("replicas.settle", timeout_s=SETTLE_CALL_S)
        done += self._features_as_primed()
        done += self._live_serving(forget=bool(done))
        done += self._leftovers()
        self._await_served()
        return done

    def _features_as_primed(self) -> list[str]:
        """Check several times, because a batch from before the reset may still be on its way into the store."""
        entities, values = self.features.load_snapshot(PRIMED)
        wrong_first = 0
        for _ in range(REFILL_TRIES):
            stored = self.features.read(entities)
            wrong = [
                row for row, entity in enumerate(entities) if not _equal(stored[entity], values[row].tolist())
            ]
            if not wrong:
                done = [f"{wrong_first} entities had wrong features: restored"] if wrong_first else []
                others = self.features.forget_all_but(entities)
                return done + ([f"{others} entities were unknown: forgotten"] if others else [])
            wrong_first = wrong_first or len(wrong)
            self.features.write([entities[row] for row in wrong], values[wrong])
        raise TargetError(
            "the features in the store do not stay as they were restored: something still writes others"
        )

    def _live_serving(self, *, forget: bool) -> list[str]:
        if (mode := self.serving.feature_mode()) != "live":
            self.serving.set_feature_mode("live")
            return [f"features were served from the {mode}: live again"]
        if forget:
            self.serving.forget_features()
        return []

    def _leftovers(self) -> list[str]:
        done = []
        taken = [name for name in self.features.snapshots() if name != PRIMED]
        for name in taken:
            self.features.delete_snapshot(name)
        if taken:
            done.append(f"{len(taken)} snapshots had been taken: deleted")
        batches = list(self.quarantine.glob("*.json"))
        for path in batches:
            path.unlink(missing_ok=True)
        if batches:
            done.append(f"{len(batches)} batches lay in quarantine: deleted")
        return done

    def _await_served(self) -> None:
        """Wait until each replica answers with the champion and live features, as it does within 0.5 s."""
        question = first_question(self.questions)
        last: dict[str, str] = {}

        def all_serve() -> bool:
            for name in REPLICAS:
                last[name] = _served(client, self.replica_urls[name], question)
            return set(last.values()) == {f"version {self.champion}"}

        with httpx.Client(timeout=2.0, trust_env=False, verify=False) as client:
            if not wait_for(all_serve, within_s=FOLLOW_WITHIN_S, every_s=0.05):
                raise TargetError(f"not all replicas serve version {self.champion} with live features: {last}")


def _served(client: httpx.Client, url: str, question: Json) -> str:
    """The model version and the state of a replica's answer, in a few words."""
    try:
        answer = client.post(f"{url}/invocations", json=question)
    except httpx.HTTPError as error:
        return f"no answer ({error!r})"
    if not answer.is_success:
        return f"HTTP {answer.status_code}"
    degraded = answer.headers.get("X-Degraded")
    return f"version {answer.headers.get('X-Model-Version')}" + (f", degraded: {degraded}" if degraded else "")


def _equal(stored: Sequence[float] | None, wanted: Sequence[float]) -> bool:
    return stored is not None and list(stored) == list(wanted)
