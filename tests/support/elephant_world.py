"""A small world for the controller: a target that implements the port, fails on demand, and is sampled.

Its numbers are noisy in the way that real ones are; its state changes only through the port or by the test.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from monkeyproof.clock import Anchor, ManualClock
from monkeyproof.config.target_file import Predict, TargetFile
from monkeyproof.errors import NotThere, TargetError
from monkeyproof.healing.actuators import Actuators, read_known
from monkeyproof.healing.controller import Controller
from monkeyproof.healing.policy import Attempt
from monkeyproof.healing.reference import TargetReference
from monkeyproof.healing.samples import Canary, CanaryResult, Metrics, ReplicaSample, Sample
from monkeyproof.record.history import Event, HistoryWriter, Kind, parse_events
from monkeyproof.targets.port import (
    Features,
    ModelVersion,
    PipelineStatus,
    Registry,
    Replica,
    Snapshots,
    TrialLoad,
)

C = TypeVar("C")
TICK_S = 0.25
N_FEATURES = 3
CANARIES = tuple(
    Canary({"dataframe_records": [{"entity": f"e{n}"}]}, float(n % 2), 0.0, f"e{n}") for n in range(32)
)


def good_vector(entity: str) -> list[float]:
    """Odd entities are anomalies, and their first feature says so."""
    number = int(entity[1:])
    return [10.0 * (number % 2), 50.0 + number, -3.0]


def predict(model: str, row: Sequence[float]) -> float:
    """``good`` reads the first feature; ``degraded`` answers 0 to every question."""
    return float(row[0] > 5.0) if model == "good" else 0.0


@dataclass
class World:
    """The target, its faults, and every call that changed it."""

    clock: ManualClock = field(default_factory=ManualClock)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))
    file: TargetFile = field(default_factory=lambda: TargetFile("fake", Predict("http://127.0.0.1:1/", Path("g"))))
    noise: bool = True
    calls: list[str] = field(default_factory=list)
    # faults
    slow_link: str = ""
    dead: str = ""
    platform_restarts: bool = True
    corrupt_source: bool = False
    store_down: bool = False
    registry_fails: int = 0
    missing: set[str] = field(default_factory=set)
    """Versions whose artifacts are missing."""
    silent: bool = False
    # state
    model: str = "3"
    mode: str = "live"
    quarantining: bool = False
    drained: set[str] = field(default_factory=set)
    starts: dict[str, int] = field(default_factory=lambda: {f"replica-{n}": 1 for n in (1, 2, 3)})
    bad_features: bool = False
    poisoned: set[str] = field(default_factory=set)
    models: dict[str, str] = field(default_factory=lambda: {"1": "degraded", "2": "good", "3": "good"})
    counts: dict[str, float] = field(default_factory=dict)
    records: int = 0

    # --- the port --------------------------------------------------------------------------------------------

    def find(self, capability: type[C]) -> C | None:
        return self if isinstance(self, capability) else None

    def close(self) -> None:
        pass

    def list(self) -> Sequence[Replica]:
        return self._replicas()

    def _replicas(self) -> Sequence[Replica]:
        return [
            Replica(name, 1, self._state(name), name in self.drained, f"gateway->{name}", "", starts)
            for name, starts in self.starts.items()
        ]

    def _state(self, name: str) -> str:
        return "down" if name == self.dead else "ready"

    def kill(self, name: str) -> Replica:
        raise NotImplementedError

    def pause(self, name: str) -> None:
        raise NotImplementedError

    def resume(self, name: str) -> None:
        raise NotImplementedError

    def restart(self, name: str) -> None:
        self.calls.append(f"restart {name}")
        self.starts[name] += 1
        self.dead = ""

    def drain(self, name: str) -> None:
        self.calls.append(f"drain {name}")
        self.drained.add(name)

    def undrain(self, name: str) -> None:
        self.calls.append(f"undrain {name}")
        self.drained.discard(name)

    def metrics_urls(self) -> Mapping[str, str]:
        return {}

    def canary(self) -> Path:
        raise NotImplementedError

    def canary_url(self) -> str:
        return self.file.predict.url

    def healer_registry(self) -> Registry:
        return FakeRegistry(self)

    def trial_load(self, model: Path, rows: Sequence[Sequence[float]]) -> TrialLoad:
        kind = model.read_text()
        if kind == "crashes":
            return TrialLoad(False, "the process died by signal 11")
        return TrialLoad(True, "", [predict(kind, row) for row in rows])

    def read(self, entities: Sequence[str]) -> Mapping[str, Sequence[float] | None]:
        return {entity: self._vector(entity, self.bad_features) for entity in entities}

    def snapshots(self) -> Sequence[str]:
        return ["old", "new"]

    def read_snapshot(self, snapshot: str, entities: Sequence[str]) -> Mapping[str, Sequence[float] | None]:
        return {entity: self._vector(entity, snapshot in self.poisoned) for entity in entities}

    def take_snapshot(self) -> str:
        raise NotImplementedError

    def restore(self, snapshot: str) -> int:
        self.calls.append(f"restore {snapshot}")
        self.bad_features = snapshot in self.poisoned
        return len(CANARIES)

    def feature_mode(self) -> str:
        return self.mode

    def set_feature_mode(self, mode: str, snapshot: str = "") -> None:
        self.calls.append(f"mode {mode} {snapshot}".strip())
        self.mode = mode

    def forget_features(self) -> None:
        self.calls.append("forget")

    def status(self) -> PipelineStatus:
        return PipelineStatus(self.quarantining, 0, 0, 0, 0)

    def quarantine(self, on: bool) -> None:
        self.calls.append(f"quarantine {on}")
        self.quarantining = on

    # --- how it behaves --------------------------------------------------------------------------------------

    def _vector(self, entity: str, bad: bool) -> Sequence[float]:
        vector = good_vector(entity)
        return [-9.0 * value for value in vector] if bad else vector

    def _ask(self, replica: str, rows: int = 8) -> CanaryResult:
        slow_ms = float(self.rng.uniform(500, 2000)) if replica == self.slow_link else 0.0
        if replica == self.dead:
            return CanaryResult(failed=1, latency_ms=1.0, why="connection refused")
        if slow_ms > 1000.0:
            return CanaryResult(failed=1, latency_ms=1000.0, why="no answer in time")
        canaries = [CANARIES[int(n)] for n in self.rng.integers(0, len(CANARIES), rows)]
        fallback = self.store_down and self.mode == "live"
        wrong = 0
        for canary in canaries:
            vector = [0.0] * N_FEATURES if fallback else self._vector(canary.entity, self.bad_features)
            wrong += predict(self.models[self.model], vector) != canary.expect
        origin = "fallback" if fallback else self.mode
        key = f"{replica}/replica_features_total/{origin}"
        self.counts[key] = self.counts.get(key, 0.0) + rows
        stall_ms = float(self.rng.exponential(4.0)) + (float(self.rng.random() < 0.01) * 150.0) * self.noise
        return CanaryResult(rows - wrong, wrong, 0, slow_ms + 3.0 + stall_ms, frozenset({self.model}), fallback)

    def _metrics(self, replica: str) -> Metrics | None:
        if replica == self.dead or (self.noise and self.rng.random() < 0.01):
            return None
        counters = {
            f"replica_features_total/{origin}": self.counts.get(f"{replica}/replica_features_total/{origin}", 0.0)
            for origin in ("live", "snapshot", "fallback")
        }
        shift = -40.0 if self.store_down and self.mode == "live" else 0.0
        means = {
            f"replica_feature_value_mean/f{n}": 40.0 + shift + float(self.rng.normal(0, 0.5))
            for n in range(N_FEATURES)
        }
        spreads = {f"replica_feature_value_robust_spread/f{n}": 5.0 for n in range(N_FEATURES)}
        return {**counters, **means, **spreads}

    def _pipeline(self) -> Metrics | None:
        if self.noise and self.rng.random() < 0.01:
            return None
        self.records += 150 * int(self.rng.random() < 0.6)
        z = {
            f"pipeline_feature_robust_z/f{n}": float(self.rng.normal(0, 1)) + 12.0 * self.corrupt_source
            for n in range(N_FEATURES)
        }
        share = float(self.rng.uniform(0.0, 0.007)) + 0.05 * self.corrupt_source
        return {**z, "pipeline_feature_out_of_range_share": share, "pipeline_records_total": float(self.records)}

    def sample(self) -> Sample:
        """Let a tick pass, and take a sample."""
        self.clock.now_s += TICK_S
        if self.corrupt_source and not self.quarantining:
            self.bad_features = True
        if self.dead and self.platform_restarts:
            self.starts[self.dead] += 1
            self.dead = ""
        serving = [name for name in self.starts if name not in self.drained]
        if self.silent:
            return Sample(self.clock.now_s)
        seen = {
            one.name: ReplicaSample(
                one.name, one.state, one.drained, one.starts, self._ask(one.name), self._metrics(one.name)
            )
            for one in self._replicas()
        }
        gateway = self._ask(str(self.rng.choice(serving)))
        late_ms = 200.0 if self.noise and self.rng.random() < 0.01 else 0.0
        return Sample(self.clock.now_s, gateway, seen, self._pipeline(), not self.store_down, late_ms)


class FakeRegistry:
    """The world's registry: it fails as often as the world says, then works."""

    def __init__(self, world: World) -> None:
        self._world = world

    def _may_fail(self) -> None:
        if self._world.registry_fails > 0:
            self._world.registry_fails -= 1
            raise TargetError("the registry answers 503")

    def champion(self) -> str:
        self._may_fail()
        return self._world.model

    def set_champion(self, version: str) -> None:
        self._may_fail()
        self._world.calls.append(f"champion {version}")
        self._world.model = version

    def versions(self) -> Sequence[ModelVersion]:
        self._may_fail()
        return [
            ModelVersion(version, hashlib.sha256(kind.encode()).hexdigest(), "", None)
            for version, kind in sorted(self._world.models.items(), reverse=True)
        ]

    def download(self, version: str, to: Path) -> Path:
        self._may_fail()
        if version in self._world.missing:
            raise NotThere("HTTP 404: no such artifact")
        path = to / "model.pkl"
        path.write_text(self._world.models[version])
        return path


class Watched:
    """A world, a controller that heals it, and the events that the controller wrote."""

    def __init__(self, folder: Path, world: World, submit: Callable[..., Future[Attempt]] | None = None) -> None:
        self.world = world
        self.folder = folder
        self._history = HistoryWriter(folder, Anchor(0.0, ""), "elephant", world.clock)
        self.controller = Controller(self._history, self._prepare, submit or at_once, world.clock)

    def _prepare(self, reference: TargetReference) -> Actuators:
        features = self.world.find(Features)
        known = read_known(features, CANARIES)
        return Actuators(self.world, self.world.clock, CANARIES, known, reference.version, reference.accuracy)

    def run(self, duration_s: float) -> None:
        for _ in range(round(duration_s / TICK_S)):
            self.controller.step(self.world.sample())

    def until(self, kind: Kind, within_s: float = 10.0) -> Event:
        """Run until the controller writes such an event; returns the first one since the call."""
        already = len(self.events(kind))
        for _ in range(round(within_s / TICK_S)):
            self.run(TICK_S)
            if len(found := self.events(kind)) > already:
                return found[already]
        raise AssertionError(f"no {kind} within {within_s:g} s; {self.lines()}")

    def events(self, *kinds: Kind) -> list[Event]:
        events = parse_events((self.folder / "events.jsonl").read_bytes())
        return [event for event in events if not kinds or event.kind in kinds]

    def lines(self) -> list[str]:
        return [
            f"{event.t_s:.2f} {event.kind} {event.subject} {json.dumps(event.data)}" for event in self.events()
        ]

    def close(self) -> None:
        self._history.close()


def at_once(work: Callable[[], Attempt]) -> Future[Attempt]:
    future: Future[Attempt] = Future()
    future.set_result(work())
    return future


def calm(world: World) -> World:
    """The same world without noise."""
    return replace(world, noise=False)


assert isinstance(World(), Snapshots)
