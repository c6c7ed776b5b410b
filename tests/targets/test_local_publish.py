"""What is published: really different models, made once, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from running_parts import Published

from monkeyproof.clock import wait_for
from monkeyproof.errors import UsageError
from monkeyproof.targets.local.models import publishing
from monkeyproof.targets.local.models.data import Entities, Floats, Ints
from monkeyproof.targets.local.models.publishing import PreparedModels, prepare_models

pytest_plugins = ("running_fixtures",)

PREPARE = (
    "import sys, pathlib; from monkeyproof.targets.local.models.publishing import prepare_models; "
    "prepare_models(pathlib.Path(sys.argv[1]))"
)


def questions(prepared: PreparedModels, name: str) -> tuple[Floats, Ints, list[str]]:
    serving = Entities.load(prepared.data_dir / "features.npz")
    places = {entity: place for place, entity in enumerate(serving.names)}
    lines = [json.loads(line) for line in (prepared.data_dir / name).read_text().splitlines()]
    entities = [line["body"]["dataframe_records"][0]["entity"] for line in lines]
    rows = serving.values[[places[entity] for entity in entities]]
    return rows, np.array([line["expect"] for line in lines]), entities


def wrong_share(model: object, rows: Floats, expected: Ints) -> float:
    return float((model.predict(rows) != expected).mean())  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def models(registry: Published, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Quality to model, as downloaded through the registry."""
    client = registry.client()
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for version, quality in registry.prepared.versions.items():
        content = client.download(version, folder / version).read_bytes()
        assert client.version(version).sha256 == hashlib.sha256(content).hexdigest()
        found[quality] = pickle.loads(content)  # noqa: S301 - we have just published it
    client.close()
    return found


def test_the_versions_differ_as_their_accuracy_tags_say(registry: Published) -> None:
    client = registry.client()
    by_version = {one.version: one for one in client.versions()}
    accuracy = {quality: by_version[version].accuracy for version, quality in registry.prepared.versions.items()}
    assert accuracy["champion"] is not None
    assert accuracy["first-attempt"] is not None
    assert accuracy["degraded"] is not None
    assert accuracy["champion"] >= 0.995
    assert 0.9 < accuracy["first-attempt"] < 0.98
    assert accuracy["degraded"] < 0.8
    assert client.champion() == registry.prepared.champion
    assert registry.client().version("1").tags["n"] == "2000"
    client.close()


def test_the_champion_is_right_on_every_golden_and_canary(
    prepared: PreparedModels, models: dict[str, object]
) -> None:
    golden_rows, golden, golden_names = questions(prepared, "golden.jsonl")
    canary_rows, canary, canary_names = questions(prepared, "canary.jsonl")
    assert len(golden) >= 128
    assert len(canary) == 64
    assert not set(golden_names) & set(canary_names)
    assert wrong_share(models["champion"], golden_rows, golden) == 0
    assert wrong_share(models["champion"], canary_rows, canary) == 0


def test_golden_set_would_reveal_faults(prepared: PreparedModels, models: dict[str, object]) -> None:
    rows, expected, _ = questions(prepared, "golden.jsonl")
    assert wrong_share(models["degraded"], rows, expected) > 0.25
    assert wrong_share(models["champion"], np.zeros_like(rows), expected) >= 0.3
    rng = np.random.default_rng(0)
    for _ in range(50):
        scaled = np.where(rng.random(rows.shape) < 0.1, rows * rng.uniform(-10, 10, rows.shape), rows)
        assert wrong_share(models["champion"], scaled, expected) > 0.05


def test_a_model_loads_where_monkeyproof_is_not_installed(registry: Published, tmp_path: Path) -> None:
    path = registry.client().download("1", tmp_path)
    program = "import sys, pickle; m = pickle.load(open(sys.argv[1], 'rb')); print('monkeyproof' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"


def test_killed_build_leaves_nothing_and_two_processes_build_once(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", PREPARE, str(cache)]
    killed = subprocess.Popen(command)
    # Later than the moment between a child's start and its guard's hearing of it: docs/safety.md names that gap.
    assert wait_for(lambda: any(log.stat().st_size for log in cache.glob(".building-*/mlflow.log")), within_s=60)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert wait_for(lambda: not processes_in(cache), within_s=60)
    assert not [path for path in cache.iterdir() if path.is_dir() and not path.name.startswith(".")]

    both = [subprocess.Popen(command) for _ in range(2)]
    builders = set()

    def done() -> bool:
        builders.update(cache.glob(".building-*"))
        return all(one.poll() is not None for one in both)

    assert wait_for(done, within_s=120)
    assert [one.returncode for one in both] == [0, 0]
    assert len(builders) == 2  # The one that was killed, and one more.
    assert not any(cache.glob(".building-*"))
    prepared = prepare_models(cache)
    assert prepared.database.is_file()
    assert not processes_in(cache)


def test_failure_shows_the_end_of_the_log_and_leaves_no_partial_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(publishing._CLIENT_ENVIRONMENT, "PYTHONPATH", str(tmp_path))
    (tmp_path / "sklearn.py").write_text("raise ImportError('sklearn is broken here')")
    with pytest.raises(UsageError, match="sklearn is broken here"):
        prepare_models(tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def processes_in(folder: Path) -> list[str]:
    """Command lines that name the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(folder) in line:
                found.append(line)
    return found
