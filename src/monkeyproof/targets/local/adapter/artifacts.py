"""Artifact files of the embedded target's registry, and the roots of its processes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from monkeyproof.errors import TargetError
from monkeyproof.targets.local.control_plane.layout import STATE_FILE
from monkeyproof.targets.registry import RegistryClient


class LocalArtifacts:
    """``port.Artifacts``: the files that the registry serves, all of them. They are few and small."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def digests(self, version: str) -> Mapping[str, str]:  # noqa: ARG002
        try:
            return {
                str(path.relative_to(self._folder)): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(self._folder.rglob("*"))
                if path.is_file()
            }
        except OSError as error:
            raise TargetError(f"{error.filename}: cannot be read ({error.strerror})") from None


class LocalArtifactFiles:
    """``port.ArtifactFiles``: the registry serves its artifacts from a folder of this target's own."""

    def __init__(self, folder: Path, registry: RegistryClient) -> None:
        self._folder = folder
        self._registry = registry

    def file_of(self, version: str) -> Path:
        path = self._folder / self._registry.artifact_path(version)
        if not path.resolve().is_relative_to(self._folder.resolve()):
            raise TargetError(f"{path}: version {version} lies outside of {self._folder}")
        return path


class LocalProcesses:
    """``port.Processes``: read from the supervisor's state file, because the supervisor may be stopped."""

    def __init__(self, folder: Path) -> None:
        self._state = folder / STATE_FILE

    def roots(self) -> Sequence[int]:
        try:
            return (int(json.loads(self._state.read_bytes())["pid"]),)
        except (OSError, ValueError, KeyError) as error:
            raise TargetError(f"{self._state}: cannot be read ({error})") from None
