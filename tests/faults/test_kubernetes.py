"""Pod faults against an API server on loopback that knows selectors, names, labels and deletion.

It stands in for a cluster, which cannot run here. The real thing: kind create cluster, then
``monkeyproof run kubernetes/pod-kill --target FILE --healer none`` (see docs/kubernetes.md).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from monkeyproof.clock import Anchor, SystemClock
from monkeyproof.config.limits import Limits
from monkeyproof.config.target_file import Kubernetes, Predict, TargetFile
from monkeyproof.errors import MonkeyproofError, Refusal, UsageError
from monkeyproof.faults import kubernetes
from monkeyproof.injection.inject import Context, set_current
from monkeyproof.record.history import HistoryWriter
from monkeyproof.undo.log import UndoLog

pytest.importorskip("chaosk8s", reason="the extra monkeyproof[kubernetes] is not installed")


class Cluster:
    """The state behind the API server."""

    def __init__(self) -> None:
        self.labels = {"demo": {kubernetes.OPT_IN_LABEL: "true"}, "prod": {}}
        self.pods = {
            ("demo", f"scoring-{number}"): {"uid": f"uid-{number}", "labels": {"app": "scoring"}}
            for number in range(3)
        } | {("demo", "other"): {"uid": "uid-other", "labels": {"app": "other"}}}
        self.deletes: list[str] = []
        self.ignores_deletes = False
        self.not_ready: set[str] = set()

    def answer(self, method: str, url: str) -> tuple[int, dict[str, Any]]:
        parts = urlsplit(url)
        path = parts.path.removeprefix("/api/v1/namespaces/").split("/")
        namespace = path[0]
        if len(path) == 1:
            if namespace not in self.labels:
                return 404, {"kind": "Status", "message": f'namespaces "{namespace}" not found'}
            return 200, {"kind": "Namespace", "metadata": {"name": namespace, "labels": self.labels[namespace]}}
        if method == "DELETE":
            self.deletes.append(path[2])
            if not self.ignores_deletes:
                del self.pods[namespace, path[2]]
            return 200, {"kind": "Pod", "metadata": {"name": path[2], "namespace": namespace}}
        selector = dict(
            part.split("=") for part in parse_qs(parts.query).get("labelSelector", [""])[0].split(",") if part
        )
        items = [
            {
                "metadata": {"name": name, "namespace": namespace, "uid": pod["uid"], "labels": pod["labels"]},
                "status": {"conditions": [{"type": "Ready", "status": str(name not in self.not_ready)}]},
            }
            for (place, name), pod in self.pods.items()
            if place == namespace and selector.items() <= pod["labels"].items()
        ]
        return 200, {"kind": "PodList", "items": items}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    state = Cluster()

    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = state.answer(self.command, self.path)
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_DELETE = _reply

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    config = tmp_path / "kubeconfig"
    config.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "not-to-be-touched",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "clusters": [
                    {"name": "test", "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}
                ],
                "users": [{"name": "test", "user": {}}],
            }
        )
    )
    monkeypatch.setenv("KUBECONFIG", str(config))
    # The Kubernetes client reads KUBECONFIG once, when it is imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(config))
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


class FakeTarget:
    file = TargetFile(
        "fake",
        Predict("http://127.0.0.1:1/", Path("g")),
        allow_faults=("kubernetes",),
        limits=Limits(replicas_down=3),
        kubernetes=Kubernetes("test"),
    )

    def find(self, capability: type[Any]) -> Any:  # noqa: ARG002
        return None

    def close(self) -> None: ...


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    clock = SystemClock()
    history = HistoryWriter(tmp_path, Anchor.now(clock), "trial")
    made = Context(tmp_path, FakeTarget(), history, UndoLog(tmp_path / "undo.jsonl"), 7, "none")
    set_current(made)
    yield made
    set_current(None)


@pytest.mark.usefixtures("context")
def test_only_matching_pods_die_and_the_proof_is_read_back(cluster: Cluster) -> None:
    result = kubernetes.terminate_pods("demo", "app=scoring", pods_count=2)
    assert len(cluster.deletes) == 2
    assert set(result["data"]) == set(cluster.deletes)
    assert ("demo", "other") in cluster.pods
    assert len(cluster.pods) == 2


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize(
    ("namespace", "selector", "count", "words"),
    [
        ("prod", "app=scoring", 1, "has not opted in; if it may be broken: kubectl label namespace prod"),
        ("demo", "app=scoring", 3, "matches 3 pods in 'demo', of which 3 are ready, and 3 would be deleted"),
        ("demo", "app=none", 1, "matches 0 pods"),
    ],
)
def test_refusals_delete_nothing(cluster: Cluster, namespace: str, selector: str, count: int, words: str) -> None:
    with pytest.raises(Refusal, match=words):
        kubernetes.terminate_pods(namespace, selector, pods_count=count)
    assert cluster.deletes == []


@pytest.mark.parametrize(
    ("not_ready", "limit", "words"),
    [
        ({"scoring-1", "scoring-2"}, 3, "3 pods in 'demo', of which 1 are ready, and 1 would be deleted"),
        ({"scoring-1"}, 1, "down at once would be 2, and target 'fake' allows replicas_down 1"),
    ],
)
def test_pods_that_are_not_ready_are_down(
    cluster: Cluster, context: Context, not_ready: set[str], limit: int, words: str
) -> None:
    cluster.not_ready = not_ready
    context.target.file = replace(FakeTarget.file, limits=Limits(replicas_down=limit))
    with pytest.raises(Refusal, match=words):
        kubernetes.terminate_pods("demo", "app=scoring")
    assert cluster.deletes == []


@pytest.mark.parametrize(
    ("named", "wanted", "words"),
    [
        (None, "", "target 'fake' names no context of Kubernetes; if one may be broken, add kubernetes:"),
        ("staging", "test", "the context 'test' is not the one that target 'fake' names, 'staging'"),
    ],
)
def test_a_context_that_the_target_file_does_not_name(
    cluster: Cluster, context: Context, named: str | None, wanted: str, words: str
) -> None:
    context.target.file = replace(FakeTarget.file, kubernetes=Kubernetes(named) if named else None)
    with pytest.raises(Refusal, match=words):
        kubernetes.terminate_pods("demo", "app=scoring", secrets={"KUBERNETES_CONTEXT": wanted})
    assert cluster.deletes == []


def test_a_number_of_pods_that_is_text_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"pods_count: must be a whole number of .*env_var_type: int"):
        kubernetes.terminate_pods("demo", "app=scoring", pods_count="2")  # type: ignore[arg-type]


@pytest.mark.usefixtures("context")
def test_namespace_that_is_not_there(cluster: Cluster) -> None:
    with pytest.raises(UsageError, match=r"namespace 'nowhere' cannot be read: .*404"):
        kubernetes.terminate_pods("nowhere", "app=scoring")
    assert cluster.deletes == []


@pytest.mark.usefixtures("context")
def test_delete_that_does_nothing_is_no_evidence(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.ignores_deletes = True
    monkeypatch.setattr(kubernetes, "EVIDENCE_WITHIN_S", 0.2)
    with pytest.raises(MonkeyproofError, match="no evidence"):
        kubernetes.terminate_pods("demo", "app=scoring")
