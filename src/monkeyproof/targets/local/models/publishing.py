"""Trains the models, publishes them through a real MLflow server, and keeps the result for the next time.

    python -m monkeyproof.targets.local.models.publishing --out DIR

does it once, into DIR; ``prepare_models`` runs that in a process of its own (mlflow and scikit-learn would cost
the caller seconds and memory) and caches the result by the digest of all its inputs.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import platform
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from monkeyproof.clock import wait_for
from monkeyproof.errors import UsageError
from monkeyproof.runtime.process_group import ProcessGroup
from monkeyproof.targets.local.models.data import golden_and_canary, read_shuttle, split, write_questions
from monkeyproof.targets.local.models.training import TrainedModel, predict, train_all
from monkeyproof.targets.registry import RegistryClient
from monkeyproof.types import Json

MODEL = "shuttle"
ALIAS = "champion"
PREPARE_LIMIT_S = 180.0
SERVER_START_LIMIT_S = 60.0
DATABASE, ARTIFACTS, SUMMARY = "mlflow.db", "artifacts", "published.json"
_SOURCES = ("data.py", "training.py", "publishing.py")
_LIBRARIES = ("mlflow", "scikit-learn", "numpy", "river", "cloudpickle")

SERVER_ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "OMP_NUM_THREADS": "1",
}
_CLIENT_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True, slots=True)
class PreparedModels:
    """The files of the published models. They may be copied, and must not be changed in place."""

    database: Path
    """MLflow's SQLite database; its artifact addresses are relative to the server (mlflow-artifacts:/)."""
    artifacts: Path
    """What the server is given as ``--artifacts-destination``."""
    data_dir: Path
    """Holds golden.jsonl, canary.jsonl and features.npz."""
    model: str
    champion: str
    versions: Mapping[str, str]
    """Version to what it is: first-attempt, champion or degraded."""


def server_command(database: Path, artifacts: Path, port: int) -> Sequence[str]:
    """How an MLflow server is started that serves a registry and its artifacts; with SERVER_ENVIRONMENT."""
    return (
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", str(artifacts)),
        *("--default-artifact-root", "mlflow-artifacts:/", "--serve-artifacts"),
    )


def prepare_models(cache: Path) -> PreparedModels:
    """The published models, from ``cache`` or made now. Two processes at once make them once.

    Raises:
        UsageError: they could not be made; the message says why.
    """
    cache.mkdir(parents=True, exist_ok=True)
    final = cache / _digest()
    if not final.exists():
        with _locked(cache / f"{final.name}.lock"):
            if not final.exists():
                _build(cache, final)
    return _read(final)


def _build(cache: Path, final: Path) -> None:
    prefix = f".building-{final.name}-"
    for abandoned in cache.glob(f"{prefix}*"):  # Its builder was killed, for this process holds the lock.
        shutil.rmtree(abandoned, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=prefix, dir=cache))
    try:
        with ProcessGroup() as group:
            log = draft / "publish.log"
            command = [sys.executable, "-m", "monkeyproof.targets.local.models.publishing", "--out", str(draft)]
            child = group.start(command, log=log, env=_CLIENT_ENVIRONMENT)
            try:
                status = child.wait(PREPARE_LIMIT_S)
            except subprocess.TimeoutExpired:
                raise UsageError(f"training and publishing the models took over {PREPARE_LIMIT_S:g} s") from None
        if status != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise UsageError(f"the models could not be trained and published (exit status {status}):\n{tail}")
        draft.rename(final)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _read(folder: Path) -> PreparedModels:
    try:
        summary = json.loads((folder / SUMMARY).read_text())
        return PreparedModels(
            database=folder / DATABASE,
            artifacts=folder / ARTIFACTS,
            data_dir=folder,
            model=summary["model"],
            champion=summary["champion"],
            versions=summary["versions"],
        )
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{folder}: the prepared models are unreadable ({error}); remove this folder") from None


def _digest() -> str:
    """Digest of all inputs: the sources of this package and the versions of the libraries that write the files."""
    here = Path(__file__).parent
    inputs = [(here / name).read_text() for name in _SOURCES]
    inputs += [f"{name} {version_of(name)}" for name in _LIBRARIES]
    inputs += [platform.python_version(), platform.machine()]
    return hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # The kernel releases it when this process ends.
        yield


def publish(out: Path) -> None:
    """Train, publish and write everything into ``out``, which no server uses afterwards."""
    database, artifacts = out / DATABASE, out / ARTIFACTS
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with ProcessGroup() as group:
        server = group.start(
            server_command(database, artifacts, port), log=out / "mlflow.log", env=SERVER_ENVIRONMENT
        )
        # The server takes seconds to start: train meanwhile.
        data = split(read_shuttle())
        trained = train_all(data.train, data.validation)
        _await_server(f"http://127.0.0.1:{port}/health", server)
        summary = _register(f"http://127.0.0.1:{port}", trained, len(data.validation))
    # Merge the write-ahead log into the database, the one file that is copied.
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")
    golden, canary = golden_and_canary(data.serving, predict(trained[1].model, data.serving.values))
    data.serving.save(out / "features.npz")
    write_questions(out / "golden.jsonl", data.serving, golden)
    write_questions(out / "canary.jsonl", data.serving, canary)
    (out / SUMMARY).write_text(json.dumps(summary, indent=1))


def _await_server(url: str, server: subprocess.Popen[bytes]) -> None:
    opener = build_opener(ProxyHandler({}))

    def answers_or_died() -> bool:
        if server.poll() is not None:
            return True
        try:
            return bool(opener.open(url, timeout=2).status == 200)
        except (URLError, OSError):
            return False

    if not wait_for(answers_or_died, within_s=SERVER_START_LIMIT_S, every_s=0.1):
        raise UsageError(f"the model registry did not answer at {url} within {SERVER_START_LIMIT_S:g} s")
    if server.poll() is not None:
        raise UsageError(f"the model registry ended while it started (exit status {server.returncode})")


def _register(uri: str, trained: Sequence[TrainedModel], validation_rows: int) -> dict[str, Json]:
    """Log each model as a run's model and a version of MODEL, with its tags; point the aliases."""
    import mlflow
    import mlflow.sklearn

    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient(uri)
    registry = RegistryClient(uri, MODEL, ALIAS, timeout_s=10)
    versions: dict[str, str] = {}
    for one in trained:
        with mlflow.start_run(run_name=one.name):
            mlflow.log_metric("validation_accuracy", one.accuracy)
            logged = mlflow.sklearn.log_model(
                one.model,
                name="model",
                registered_model_name=MODEL,
                serialization_format="cloudpickle",  # One file: its digest can vouch for it.
                pip_requirements=[f"scikit-learn=={version_of('scikit-learn')}", f"numpy=={version_of('numpy')}"],
            )
        version = str(logged.registered_model_version)
        with tempfile.TemporaryDirectory() as folder:
            digest = hashlib.sha256(registry.download(version, Path(folder)).read_bytes()).hexdigest()
        tags = {
            "sha256": digest,
            "accuracy": f"{one.accuracy:.4f}",
            "n": str(validation_rows),
            "quality": one.name,
        }
        for key, value in tags.items():
            client.set_model_version_tag(MODEL, version, key, value)
        versions[one.name] = version
    registry.set_champion(versions["champion"])
    client.set_registered_model_alias(MODEL, "challenger", versions["degraded"])
    registry.close()
    return {
        "model": MODEL,
        "champion": versions["champion"],
        "versions": {version: name for name, version in versions.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the embedded target's models and publish them.")
    parser.add_argument("--out", type=Path, required=True)
    publish(parser.parse_args().out)


if __name__ == "__main__":
    main()
