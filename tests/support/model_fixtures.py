"""A registry with real models, and one replica that follows it. A test module gets it with ``pytest_plugins``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fault_world import RawServer, World
from model_world import Follower, InProcess
from running_parts import Published

from monkeyproof.faults.support import file_restore
from monkeyproof.injection.inject import revert
from monkeyproof.paths import home
from monkeyproof.safety.snapshot import versions_of
from monkeyproof.targets import port
from monkeyproof.targets.local.adapter.artifacts import LocalArtifactFiles, LocalArtifacts
from monkeyproof.targets.local.models.deletion import LocalDeletion
from monkeyproof.targets.registry import RegistryClient


@dataclass
class Here:
    """The world of one test, in parts."""

    target: Any
    registry: RegistryClient
    follower: Follower
    data: Path
    files: LocalArtifactFiles
    artifacts: LocalArtifacts

    def looks(self) -> tuple[object, ...]:
        """All that the residue audit compares, and what was published for the occasion."""
        return self.registry.champion(), versions_of(self.registry), dict(self.artifacts.digests("2"))


@pytest.fixture
def here(world: World, server: RawServer, registry: Published, tmp_path: Path) -> Iterator[Here]:
    """Afterwards all has to be as it was."""
    client = registry.client(timeout_s=5)
    data = registry.prepared.data_dir
    artifacts = registry.folder / "artifacts"
    follower = Follower(server, client, tmp_path / "follower")
    files_of = LocalArtifactFiles(artifacts, client)
    world.parts |= {
        port.Registry: client,
        port.Publishing: client,
        port.Replicas: follower,
        port.ArtifactFiles: files_of,
        port.Pins: follower.pins,
        port.Deletion: LocalDeletion(registry.folder / "mlflow.db", registry.prepared.model, client),
        port.OtherModels: InProcess(data / "features.npz"),
    }
    one = Here(world, client, follower, data, files_of, LocalArtifacts(artifacts))
    before = one.looks()
    assert follower.version == "2"
    yield one
    revert()
    assert one.looks() == before
    client.close()
    assert not list((home() / file_restore.KEPT).glob("*"))


# --- the stored artifact -------------------------------------------------------------------------------------
