"""The embedded target, opened for control: implements the port's capabilities over the parts' control sockets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from monkeyproof.config.target_file import RegistryAddress, TargetFile
from monkeyproof.errors import TargetError, UsageError
from monkeyproof.record.history import write_json
from monkeyproof.targets.links import ProxyLinks
from monkeyproof.targets.local.adapter.artifacts import LocalArtifactFiles, LocalArtifacts, LocalProcesses
from monkeyproof.targets.local.adapter.reconnecting_client import ReconnectingClient
from monkeyproof.targets.local.adapter.resetting import TargetReset
from monkeyproof.targets.local.models.deletion import LocalDeletion
from monkeyproof.targets.local.models.other_models import LocalOtherModels
from monkeyproof.targets.local.models.publishing import ARTIFACTS, DATABASE
from monkeyproof.targets.local.workload.feature_store import FeatureStore
from monkeyproof.targets.local.workload.pins import LocalPins
from monkeyproof.targets.port import (
    ArtifactFiles,
    Artifacts,
    Deletion,
    Features,
    Feedback,
    Leases,
    Links,
    Models,
    OtherModels,
    Pins,
    Pipeline,
    PipelineStatus,
    Processes,
    Publishing,
    Registry,
    Replica,
    Replicas,
    Resettable,
    Serving,
    Snapshots,
    StartCondition,
    Starts,
    Telemetry,
    TrialLoad,
)
from monkeyproof.targets.registry import RegistryClient
from monkeyproof.types import Json

C = TypeVar("C")
REGISTRY_TIMEOUT_S = 3.0
HEALER_REGISTRY_TIMEOUT_S = 2.0
SLOW_CALL_S = 20.0


class LocalTarget:
    """``port.Target`` for a running embedded stack."""

    def __init__(self, file: TargetFile) -> None:
        if file.stack is None or file.registry is None:
            raise UsageError(f"{file.path}: describes no embedded target: it needs 'stack' and 'registry'")
        self._file = file
        self._registry_address = file.registry
        self._control = ReconnectingClient(file.stack.control)
        try:
            self._description: Mapping[str, Json] = self._control.call("describe")
        except TargetError as error:
            raise UsageError(
                f"{file.path}: the embedded target does not answer ({error}); 'monkeyproof target up' starts it"
            ) from None

    @property
    def file(self) -> TargetFile:
        return self._file

    def find(self, capability: type[C]) -> C | None:
        name = _ATTRIBUTES.get(capability)
        found: C | None = getattr(self, name) if name else None
        return found

    def close(self) -> None:
        for name in _ATTRIBUTES.values():
            if name in self.__dict__ and hasattr(self.__dict__[name], "close"):
                self.__dict__[name].close()
        self._control.close()

    @property
    def _folder(self) -> Path:
        return Path(self._description["folder"])

    @cached_property
    def replicas(self) -> LocalReplicas:
        return LocalReplicas(self._control)

    @cached_property
    def registry(self) -> RegistryClient:
        return self._registry_at(self._registry_address.uri, REGISTRY_TIMEOUT_S)

    @cached_property
    def artifacts(self) -> LocalArtifacts:
        return LocalArtifacts(self._folder / ARTIFACTS)

    @cached_property
    def artifact_files(self) -> LocalArtifactFiles:
        return LocalArtifactFiles(self._folder / ARTIFACTS, self.registry)

    @cached_property
    def deletion(self) -> LocalDeletion:
        return LocalDeletion(self._folder / DATABASE, self._registry_address.model, self.registry)

    @cached_property
    def other_models(self) -> LocalOtherModels:
        return LocalOtherModels(self._folder)

    @cached_property
    def processes(self) -> LocalProcesses:
        return LocalProcesses(Path(self._description["folder"]))

    @cached_property
    def models(self) -> LocalModels:
        return LocalModels(Path(self._description["fork-server"]))

    @cached_property
    def features(self) -> FeatureStore:
        return FeatureStore(self._description["features_port"], Path(self._description["folder"]) / "snapshots")

    @cached_property
    def serving(self) -> LocalServing:
        return LocalServing(Path(self._description["folder"]) / "serving.json", self.features)

    @cached_property
    def pins(self) -> LocalPins:
        return LocalPins(self._folder)

    @cached_property
    def pipeline(self) -> LocalPipeline:
        return LocalPipeline(Path(self._description["pipeline"]))

    @cached_property
    def links(self) -> ProxyLinks:
        return ProxyLinks(Path(self._description["proxy"]))

    @cached_property
    def leases(self) -> LocalLeases:
        return LocalLeases(self.links, self.replicas)

    @cached_property
    def telemetry(self) -> LocalTelemetry:
        healer_registry = self._registry_at(self._description["healer_registry"], HEALER_REGISTRY_TIMEOUT_S)
        return LocalTelemetry(self._file, self._description, healer_registry)

    @cached_property
    def reset(self) -> TargetReset:
        return TargetReset(
            control=self._control,
            registry=self.registry,
            champion=self._description["champion"],
            features=self.features,
            serving=self.serving,
            pins=self.pins,
            pipeline=self.pipeline,
            quarantine=Path(self._description["folder"]) / "quarantine",
            questions=self.telemetry.canary(),
            replica_urls=self._description["replicas"],
        )

    def _registry_at(self, uri: str, timeout_s: float) -> RegistryClient:
        address: RegistryAddress = self._registry_address
        return RegistryClient(uri, address.model, address.alias, timeout_s=timeout_s)


_ATTRIBUTES: Mapping[type, str] = {
    Replicas: "replicas",
    Starts: "replicas",
    Registry: "registry",
    Artifacts: "artifacts",
    ArtifactFiles: "artifact_files",
    Publishing: "registry",
    Deletion: "deletion",
    OtherModels: "other_models",
    Processes: "processes",
    Models: "models",
    Features: "features",
    Feedback: "features",
    Snapshots: "features",
    Serving: "serving",
    Pins: "pins",
    Pipeline: "pipeline",
    Links: "links",
    Leases: "leases",
    Telemetry: "telemetry",
    Resettable: "reset",
}


class LocalLeases:
    """``port.Leases``: faults on links are held by the fault proxy, paused replicas by the supervisor."""

    def __init__(self, links: ProxyLinks, replicas: LocalReplicas) -> None:
        self._links, self._replicas = links, replicas

    def renew(self) -> Mapping[str, str]:
        return {**self._links.renew(), **self._replicas.renew()}


class LocalReplicas:
    """``port.Replicas`` and ``port.Starts``."""

    def __init__(self, control: ReconnectingClient) -> None:
        self._control = control
        self._leased: set[str] = set()
        self._started: set[str] = set()
        """Replicas whose start condition is leased."""

    def list(self) -> Sequence[Replica]:
        return tuple(Replica(**one) for one in self._control.call("replicas.list"))

    def kill(self, name: str) -> Replica:
        return Replica(**self._control.call("replicas.kill", name=name))

    def pause(self, name: str, lease_s: float | None = None) -> None:
        self._control.call("replicas.pause", name=name, lease_s=lease_s)
        if lease_s is not None:
            self._leased.add(name)

    def renew(self) -> Mapping[str, str]:
        """Renew the leases of replicas that were paused or ended here; of each that expired meanwhile, why."""
        lost: dict[str, str] = {}
        for method, leased in (("replicas.renew", self._leased), ("replicas.renew_starts", self._started)):
            if leased:
                answer: Mapping[str, str] = self._control.call(method, names=sorted(leased))
                lost |= {name: why for name, why in answer.items() if name in leased}
        return lost

    def end(
        self, name: str, condition: StartCondition, *, notice_s: float = 0.0, lease_s: float | None = None
    ) -> Replica:
        before = Replica(
            **self._control.call(
                "replicas.end",
                name=name,
                delay_s=condition.delay_s,
                environment=dict(condition.environment),
                notice_s=notice_s,
                lease_s=lease_s,
            )
        )
        if lease_s is not None:
            self._started.add(name)
        return before

    def conditions(self) -> Mapping[str, StartCondition]:
        return {name: StartCondition(**one) for name, one in self._control.call("replicas.conditions").items()}

    def release(self, name: str) -> bool:
        self._started.discard(name)
        return bool(self._control.call("replicas.release", timeout_s=SLOW_CALL_S, name=name))

    def resume(self, name: str) -> None:
        self._leased.discard(name)
        self._control.call("replicas.resume", name=name)

    def restart(self, name: str) -> None:
        self._control.call("replicas.restart", timeout_s=SLOW_CALL_S, name=name)

    def drain(self, name: str) -> None:
        self._control.call("replicas.drain", name=name)

    def undrain(self, name: str) -> None:
        self._control.call("replicas.undrain", name=name)


class LocalModels:
    """``port.Models``: in a child of the fork server."""

    def __init__(self, fork_server: Path) -> None:
        self._fork_server = ReconnectingClient(fork_server)

    def trial_load(self, model: Path, rows: Sequence[Sequence[float]]) -> TrialLoad:
        # The caller compares digests: the port passes none.
        answer = self._fork_server.call(
            "trial_load", timeout_s=SLOW_CALL_S, model=str(model), sha256="", rows=[list(row) for row in rows]
        )
        return TrialLoad(bool(answer["ok"]), str(answer["why"]), tuple(answer["predictions"]))

    def close(self) -> None:
        self._fork_server.close()


class LocalServing:
    """``port.Serving``: a file that every replica watches."""

    MODES = ("live", "snapshot")

    def __init__(self, path: Path, snapshots: FeatureStore) -> None:
        self._path = path
        self._snapshots = snapshots

    def feature_mode(self) -> str:
        return str(self._read()["mode"])

    def set_feature_mode(self, mode: str, snapshot: str = "") -> None:
        if mode not in self.MODES:
            raise TargetError(f"{mode!r}: no such feature mode; there are {', '.join(self.MODES)}")
        if mode == "snapshot" and snapshot not in self._snapshots.snapshots():
            raise TargetError(f"{snapshot!r}: no such snapshot")
        self._write(mode, snapshot if mode == "snapshot" else "")

    def forget_features(self) -> None:
        now = self._read()
        self._write(now["mode"], now["snapshot"])

    def _read(self) -> Mapping[str, Json]:
        try:
            found: Mapping[str, Json] = json.loads(self._path.read_bytes())
        except (OSError, ValueError) as error:
            raise TargetError(f"{self._path}: cannot be read ({error})") from None
        return found

    def _write(self, mode: str, snapshot: str) -> None:
        generation = int(self._read()["generation"]) + 1
        write_json(self._path, {"mode": mode, "snapshot": snapshot, "generation": generation})


class LocalPipeline:
    """``port.Pipeline``."""

    def __init__(self, control: Path) -> None:
        self._control = ReconnectingClient(control)

    def status(self) -> PipelineStatus:
        answer = self._control.call("status")
        return PipelineStatus(**{name: answer[name] for name in PipelineStatus.__slots__})

    def quarantine(self, on: bool) -> None:
        self._control.call("quarantine", on=on)

    def close(self) -> None:
        self._control.close()


class LocalTelemetry:
    """``port.Telemetry``."""

    def __init__(self, file: TargetFile, description: Mapping[str, Json], healer_registry: RegistryClient) -> None:
        self._file = file
        self._description = description
        self._healer_registry = healer_registry

    def metrics_urls(self) -> Mapping[str, str]:
        return dict(self._description["metrics"])

    def canary(self) -> Path:
        return Path(self._description["folder"]) / "canary.jsonl"

    def canary_url(self) -> str:
        return self._file.predict.url

    def healer_registry(self) -> Registry:
        return self._healer_registry

    def close(self) -> None:
        self._healer_registry.close()
