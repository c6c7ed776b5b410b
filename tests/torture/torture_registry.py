"""What a registry tells and stores, taken down before anything is done to it; for torture_audit.py."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monkeyproof.config.target_file import RegistryAddress

_API = "/api/2.0/mlflow"
_TIMEOUT_S = 5.0


class Stored:
    """Versions with their tags, aliases, runs and artifact files, as they were at first and as they are."""

    def __init__(self, registry: RegistryAddress, artifacts: Path) -> None:
        self._registry = registry
        self._artifacts = artifacts
        self._before = self._now()

    def changes(self) -> list[str]:
        """One line for each thing that is not as it was, or was not there, or is not there any more."""
        try:
            now, before = self._now(), self._before
        except OSError as error:
            return [f"the registry does not tell what it has ({error})"]
        gone, more = sorted(before.keys() - now.keys()), sorted(now.keys() - before.keys())
        other = sorted(name for name in before.keys() & now.keys() if before[name] != now[name])
        return [
            *(f"{name} is gone" for name in gone),
            *(f"{name} is more than there was" for name in more),
            *(f"{name} was {before[name]} and is {now[name]}" for name in other),
        ]

    def _now(self) -> dict[str, str]:
        return {**self._files(), **self._aliases(), **self._versions(), **self._runs()}

    def _files(self) -> dict[str, str]:
        found = {}
        # Folders may go while it walks. Empty ones are left by MLflow's server, whatever was in them.
        for folder, _, names in os.walk(self._artifacts):
            for path in (Path(folder, name) for name in names):
                with contextlib.suppress(FileNotFoundError):
                    found[f"file {path.relative_to(self._artifacts)}"] = hashlib.sha256(
                        path.read_bytes()
                    ).hexdigest()
        return found

    def _aliases(self) -> dict[str, str]:
        model = self._ask(f"registered-models/get?name={self._registry.model}")["registered_model"]
        return {f"alias {one['alias']}": str(one["version"]) for one in model.get("aliases", ())}

    def _versions(self) -> dict[str, str]:
        found = {}
        for one in self._ask("model-versions/search?max_results=1000").get("model_versions", ()):
            tags = {tag["key"]: tag["value"] for tag in one.pop("tags", ())}
            # Whatever is done and undone moves it: that is no residue.
            one.pop("last_updated_timestamp", None)
            found[f"version {one['name']}/{one['version']}"] = json.dumps({**one, "tags": tags}, sort_keys=True)
        return found

    def _runs(self) -> dict[str, str]:
        """Of every published model there is one; MLflow tells of those only that are not deleted."""
        found = self._ask("runs/search", {"experiment_ids": ["0"], "max_results": 1000}).get("runs", ())
        return {f"run {one['info']['run_id']}": str(one["info"].get("run_name", "")) for one in found}

    def _ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"{self._registry.uri}{_API}/{path}",
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            return json.load(answer)
