"""A replica: MLflow's protocol, the champion that it follows, and features that may be missing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

import numpy as np
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from running_parts import (
    Answer,
    Published,
    answers_200,
    free_port,
    http,
    metrics,
    start_store,
    start_with_control,
)

from monkeyproof import paths
from monkeyproof.clock import wait_for
from monkeyproof.runtime.process_group import ProcessGroup
from monkeyproof.targets.local.control_plane.layout import REPLICAS
from monkeyproof.targets.local.models.data import FEATURES, Entities
from monkeyproof.targets.local.workload.features import ServingMode, decode, encode, key_of
from monkeyproof.targets.local.workload.request_formats import MAX_ROWS, entities_of

pytest_plugins = ("running_fixtures",)

TTL_S = 1.0
TIMEOUT_MS = 100


# Input forms


@pytest.mark.parametrize(
    "request_",
    [
        {"dataframe_records": [{"entity": "a", "other": 1}, {"entity": "b"}]},
        {"dataframe_split": {"columns": ["other", "entity"], "data": [[1, "a"], [2, "b"]], "index": [0, 1]}},
        {"inputs": {"entity": ["a", "b"]}},
        {"inputs": [{"entity": "a"}, {"entity": "b"}]},
        {"instances": [{"entity": "a"}, {"entity": "b"}], "params": {}},
    ],
)
def test_all_four_forms_name_entities(request_: dict[str, object]) -> None:
    assert list(entities_of(json.dumps(request_).encode())) == ["a", "b"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{", "the body is not JSON"),
        ("[" * 100_000, "the body is not JSON"),
        ("[]", "exactly one of dataframe_records"),
        ("{}", "exactly one of dataframe_records"),
        ('{"inputs": {"entity": []}, "instances": []}', "exactly one of"),
        ('{"dataframe_records": []}', "expected 1 to 1000 rows, got 0"),
        ('{"dataframe_records": {"entity": "a"}}', "expected a list of rows"),
        ('{"dataframe_records": [{"entity": "a"}, {"id": 7}]}', "row 1: names no entity"),
        ('{"dataframe_records": [{"entity": 7}]}', "row 0: entity must be a text"),
        ('{"dataframe_records": [{"entity": ""}]}', "row 0: entity must be a text"),
        ('{"dataframe_split": {"columns": ["x"], "data": [[1]]}}', "one of them entity"),
        ('{"dataframe_split": {"columns": ["entity"], "data": [["a", 1]]}}', "rows with 1 values each"),
        ('{"dataframe_split": {"columns": ["entity"]}}', "expected data"),
        ('{"inputs": {"other": ["a"]}}', "expected a list of rows"),
        (json.dumps({"inputs": {"entity": ["a"] * (MAX_ROWS + 1)}}), "got 1001"),
    ],
)
def test_bad_input_is_explained(body: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        entities_of(body.encode())


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_no_body_breaks_the_parser(body: bytes | str) -> None:
    with suppress(ValueError):
        entities_of(body if isinstance(body, bytes) else body.encode())


@given(st.lists(st.floats(allow_nan=False), min_size=9, max_size=9))
def test_features_survive_the_store(values: list[float]) -> None:
    stored = encode(values)
    assert len(stored) == 72
    decoded = decode(stored)
    assert decoded is not None
    assert decoded.tolist() == values
    assert decode(stored[:-1]) is None
    assert decode(None) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"mode": "magic"}', '{"mode": "live", "generation": "x"}'])
def test_bad_serving_file_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        ServingMode.parse(text)


# A running replica


@dataclass
class Running:
    folder: Path
    url: str
    registry: Published
    entities: Entities
    group: ProcessGroup
    store_port: int
    store: redis.Redis
    store_process: Popen[bytes]
    generation: int = 0

    def ask(self, *names: str) -> Answer:
        return http(f"{self.url}/invocations", {"dataframe_records": [{"entity": name} for name in names]})

    def origin(self, *names: str) -> str:
        return self.ask(*(names or self.entities.names[:1])).headers["x-features"]

    def serve(self, mode: str, snapshot: str = "") -> None:
        self.generation += 1
        content = {"mode": mode, "snapshot": snapshot, "generation": self.generation}
        draft = self.folder / "serving.draft"
        draft.write_text(json.dumps(content))
        draft.rename(self.folder / "serving.json")

    def fill(self) -> None:
        self.store.mset(
            {key_of(n): encode(row) for n, row in zip(self.entities.names, self.entities.values, strict=True)}
        )

    def metrics(self) -> dict[str, float]:
        return metrics(f"{self.url}/metrics")


@pytest.fixture(scope="module")
def whole(registry: Published, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("scoring")
    sockets = paths.socket_dir()
    entities = Entities.load(registry.prepared.data_dir / "features.npz")
    store_port, port = free_port(), free_port()
    settings = {
        "registry_urls": dict.fromkeys(REPLICAS, registry.url),
        "model": registry.prepared.model,
        "alias": "champion",
        "features_host": "127.0.0.1",
        "features_port": store_port,
        "serving_file": str(folder / "serving.json"),
        "snapshots_dir": str(folder / "snapshots"),
        "poll_s": 0.1,
        "feature_ttl_s": TTL_S,
        "feature_timeout_ms": TIMEOUT_MS,
    }
    (folder / "replicas.json").write_text(json.dumps(settings))
    with ProcessGroup() as group:
        store, process = start_store(group, folder, store_port)
        running = Running(
            folder, f"http://127.0.0.1:{port}", registry, entities, group, store_port, store, process
        )
        running.fill()
        module = "monkeyproof.targets.local.control_plane.fork_server"
        with start_with_control(group, module, folder / "replicas.json", sockets) as control:
            control.call("start", name="replica-1", port=port)
            assert wait_for(lambda: answers_200(f"{running.url}/ping"), within_s=10)
            yield running
    shutil.rmtree(sockets, ignore_errors=True)


@pytest.fixture
def running(whole: Running) -> Running:
    """The replica as it is in health."""
    whole.serve("live")
    whole.fill()
    champion = whole.registry.prepared.champion
    assert wait_for(lambda: whole.ask("x").headers.get("x-model-version") == champion, within_s=5)
    assert wait_for(lambda: whole.origin() == "live", within_s=5)
    return whole


def test_answers_are_the_champions_and_name_the_feature_origin(running: Running) -> None:
    names = running.entities.names[100:150]
    first = running.ask(*names)
    assert first.status == 200
    assert first.json == {"predictions": running.entities.labels[100:150].tolist()}
    assert first.headers["x-model-version"] == running.registry.prepared.champion
    assert first.headers["x-features"] == "live"
    assert "x-degraded" not in first.headers
    assert running.origin(*names) == "cached"
    mixed = running.ask(names[0], "nobody")
    assert mixed.headers["x-features"] == mixed.headers["x-degraded"] == "fallback"


def test_bad_requests_get_400_and_a_message(running: Running) -> None:
    answer = http(f"{running.url}/invocations", b'{"instances": [{"id": 1}]}')
    assert answer.status == 400
    assert answer.json == {"error": "instances, row 0: names no entity"}
    assert http(f"{running.url}/invocations", b" " * (1024 * 1024 + 1)).status == 400


def test_features_that_break_the_model_are_an_error_answer(running: Running) -> None:
    running.store.set(key_of("broken"), encode([np.nan] * 9))
    answer = running.ask("broken")
    assert answer.status == 500
    assert "NaN" in answer.body.decode()
    assert running.ask(running.entities.names[0]).status == 200


def test_metric_names_are_stable(running: Running) -> None:
    before = running.metrics()
    for name in running.entities.names[200:220]:
        running.ask(name)
    http(f"{running.url}/invocations", b"{}")
    after = running.metrics()
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown['replica_requests_total{code="200"}'] == 20
    assert grown['replica_requests_total{code="400"}'] == 1
    assert grown["replica_request_seconds_count"] == 21
    assert grown['replica_features_total{origin="live"}'] == 20
    assert after["replica_model_version"] == 2
    assert after["replica_model_pinned"] == 0
    assert {
        f'replica_features_total{{origin="{one}"}}' for one in ("cached", "snapshot", "fallback")
    } <= after.keys()
    assert {"replica_feature_errors_total", "replica_registry_errors_total"} <= after.keys()
    for feature in FEATURES:
        assert f'replica_feature_value_mean{{feature="{feature}"}}' in after
        assert f'replica_feature_value_robust_spread{{feature="{feature}"}}' in after


def test_changed_feature_is_used_after_the_cache_expires_or_is_dropped(running: Running) -> None:
    name = running.entities.names[300]
    assert running.origin(name) == "live"
    assert running.origin(name) == "cached"
    running.serve("live")
    assert wait_for(lambda: running.origin(name) == "live", within_s=0.6, every_s=0.01)
    assert running.origin(name) == "cached"
    time.sleep(TTL_S)
    assert running.origin(name) == "live"


def test_a_snapshot_serves_without_the_store(running: Running) -> None:
    (running.folder / "snapshots").mkdir(exist_ok=True)
    names = running.entities.names[:10]
    np.savez(
        running.folder / "snapshots" / "good.npz", entities=np.array(names), values=running.entities.values[:10]
    )
    running.store.flushall()
    running.serve("snapshot", "good")
    assert wait_for(lambda: running.origin(*names) == "snapshot", within_s=0.5)
    answer = running.ask(*names)
    assert answer.json == {"predictions": running.entities.labels[:10].tolist()}
    assert answer.headers["x-degraded"] == "snapshot"
    assert running.origin("nobody") == "fallback"


def test_a_snapshot_that_cannot_be_read_changes_nothing(running: Running) -> None:
    running.serve("snapshot", "../../etc/passwd")
    running.serve("snapshot", "none")
    time.sleep(0.15)
    assert running.origin() in ("live", "cached")


def test_replica_follows_the_alias_except_to_an_unverified_version(running: Running) -> None:
    client = running.registry.client()

    def version_now() -> str:
        return running.ask("x").headers["x-model-version"]

    client.set_champion("1")
    try:
        assert wait_for(lambda: version_now() == "1", within_s=3)
        true_digest = client.version("3").sha256
        tag_version(running.registry, "3", "0" * 64)
        before = running.metrics()["replica_registry_errors_total"]
        client.set_champion("3")
        assert wait_for(lambda: running.metrics()["replica_registry_errors_total"] > before + 2, within_s=3)
        assert version_now() == "1"
        tag_version(running.registry, "3", true_digest)
        assert wait_for(lambda: version_now() == "3", within_s=3)
    finally:
        client.set_champion(running.registry.prepared.champion)
    assert wait_for(lambda: version_now() == running.registry.prepared.champion, within_s=3)


def tag_version(registry: Published, version: str, digest: str) -> None:
    body = {"name": registry.prepared.model, "version": version, "key": "sha256", "value": digest}
    assert http(f"{registry.url}/api/2.0/mlflow/model-versions/set-tag", body).status == 200


def test_dead_store_gives_fast_wrong_answers_until_it_returns(running: Running) -> None:
    names = running.entities.names
    running.group.end(running.store_process)
    time.sleep(TTL_S)
    took_s, wrong = [], 0
    for name, label in zip(names[:100], running.entities.labels[:100], strict=True):
        began_s = time.monotonic()
        answer = running.ask(name)
        took_s.append(time.monotonic() - began_s)
        assert answer.status == 200
        assert answer.headers["x-degraded"] == "fallback"
        wrong += answer.json["predictions"][0] != label  # type: ignore[index]
    assert wrong > 30
    assert np.median(took_s) < 0.02
    running.store, running.store_process = start_store(running.group, running.folder, running.store_port)
    running.fill()
    assert wait_for(lambda: running.origin() == "live", within_s=0.4, every_s=0.02)


def test_a_store_that_hangs_costs_one_timeout_now_and_then(running: Running) -> None:
    os.kill(running.store_process.pid, signal.SIGSTOP)
    try:
        time.sleep(TTL_S)
        took_s = []
        for name in running.entities.names[:60]:
            began_s = time.monotonic()
            assert running.origin(name) == "fallback"
            took_s.append(time.monotonic() - began_s)
        assert max(took_s) < 0.3 + TIMEOUT_MS / 1000
        assert np.median(took_s) < 0.02
        assert running.metrics()["replica_feature_errors_total"] >= 60
    finally:
        os.kill(running.store_process.pid, signal.SIGCONT)
    assert wait_for(lambda: running.origin() == "live", within_s=0.5, every_s=0.02)
