"""The pipeline: validation that real ones have, a stricter one, and broken links on every side."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import Popen

import numpy as np
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from running_parts import free_port, http, metrics, start_store, start_with_control

from monkeyproof import paths
from monkeyproof.clock import SystemClock, wait_for
from monkeyproof.errors import TargetError
from monkeyproof.runtime.process_group import ProcessGroup
from monkeyproof.runtime.rpc import Client
from monkeyproof.targets.local.models import data
from monkeyproof.targets.local.models.data import FEATURES, Entities, Floats
from monkeyproof.targets.local.workload.feature_store import FeatureStore
from monkeyproof.targets.local.workload.features import decode, key_of
from monkeyproof.targets.local.workload.records import (
    MAX_QUARANTINED_FILES,
    PipelineBatch,
    parse_batch,
    quarantine_batch,
)
from monkeyproof.targets.local.workload.reference import MAX_OUT_OF_RANGE_SHARE, MAX_ROBUST_Z, ReferenceStatistics
from monkeyproof.targets.local.workload.source import RecordStream
from monkeyproof.types import Json

BATCH = 150


@pytest.fixture(scope="module")
def entities() -> Entities:
    return data.split(data.read_shuttle()).serving


@pytest.fixture(scope="module")
def reference(entities: Entities) -> ReferenceStatistics:
    return ReferenceStatistics.of(entities.values)


# Normal validation


def record(**changes: object) -> dict[str, object]:
    return {"position": 8, "entity": "a", "features": [0.5] * 9, "label": 1} | changes


def body(*records: object) -> bytes:
    return json.dumps({"records": list(records)}).encode()


def test_a_clean_batch_is_parsed() -> None:
    batch = parse_batch(body(record(), record(position=10, label=0, features=[1] * 9)), after=7)
    assert batch is not None
    assert (batch.positions, batch.entities, batch.labels) == ([8, 10], ["a", "a"], [1, 0])
    assert batch.values.tolist() == [[0.5] * 9, [1.0] * 9]
    assert batch.last_position == 10
    assert parse_batch(body(), after=7) is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "Expecting|delimiter"),
        (b"\xff\xfe", "decode|Expecting"),
        (b"[]", "an object with a list of records"),
        (b"[" * 100_000, "nested too deeply"),
        (body(record(), "x"), "record 1: expected position"),
        (body(record(extra=1)), "record 0: expected position"),
        (body(record(position=7)), "record 0: position must be a whole number above 7"),
        (body(record(), record()), "record 1: position must be a whole number above 8"),
        (body(record(position=True)), "position must be"),
        (body(record(entity="")), "entity must be a text"),
        (body(record(features=[1.0] * 8)), "a list of 9 numbers"),
        (body(record(features=["1"] * 9)), "'1' among the features is not a finite"),
        (body(record(features=[float("nan")] * 9)), "'nan' among the features"),
        (body(record(features=[True] * 9)), "'True' among the features"),
        (body(record(label=2)), "label must be 0 or 1"),
        (body(record(features=[10**400] * 9)), "not a finite number"),
    ],
)
def test_a_broken_batch_is_rejected_with_the_reason(content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_batch(content, after=7)


def test_plausible_looking_wrong_numbers_pass() -> None:
    assert parse_batch(body(record(features=[-9999.0] * 9)), after=7) is not None


@given(st.binary(max_size=300))
def test_no_bytes_break_the_parser(content: bytes) -> None:
    try:
        parse_batch(content, after=0)
    except ValueError:
        return


def test_quarantined_batches_are_whole_and_bounded(tmp_path: Path) -> None:
    for position in range(MAX_QUARANTINED_FILES + 5):
        batch = PipelineBatch([position], ["a"], np.ones((1, 9)), [0])
        path = quarantine_batch(batch, "strange", tmp_path)
        os.utime(path, (position, position))
    kept = sorted(tmp_path.iterdir())
    assert len(kept) == MAX_QUARANTINED_FILES
    assert not (tmp_path / "batch-4.json").exists()
    newest = json.loads(path.read_text())
    assert newest["why"] == "strange"
    assert parse_batch(json.dumps({"records": newest["records"]}).encode(), after=0) is not None


# Strict validation


def scaled(values: Floats, rng: np.random.Generator, share: float = 0.1) -> Floats:
    factors = rng.uniform(-10, 10, values.shape)
    return np.where(rng.random(values.shape) < share, values * factors, values)


def test_clean_batches_pass_and_corrupt_ones_never_do(entities: Entities, reference: ReferenceStatistics) -> None:
    rng = np.random.default_rng(7)
    for _ in range(10_000):
        rows = rng.choice(len(entities), BATCH, replace=False)
        assert reference.why_unlike(entities.values[rows]) == ""
    for _ in range(2_000):
        rows = rng.choice(len(entities), BATCH, replace=False)
        assert reference.why_unlike(scaled(entities.values[rows], rng))


@pytest.mark.parametrize("rows", [50, 150, 300, 600])
def test_every_window_of_the_real_stream_is_clean(
    entities: Entities, reference: ReferenceStatistics, rows: int
) -> None:
    order = np.random.default_rng(0).permutation(len(entities))  # As the source's default seed has it.
    rng = np.random.default_rng(1)
    for start in range(0, len(entities), 7):
        values = entities.values[np.take(order, np.arange(start, start + rows), mode="wrap")]
        assert np.abs(reference.robust_z(values)).max() < MAX_ROBUST_Z / 1.5
        assert reference.out_of_range_share(values) < MAX_OUT_OF_RANGE_SHARE / 1.2
        if rows >= BATCH:
            assert reference.why_unlike(scaled(values, rng))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values: values * 0, "robust z|out of range"),
        (lambda values: values + np.eye(9)[0] * 40, "robust z of feature 1|out of range"),
        (lambda values: np.repeat(values[:1], len(values), axis=0), "robust z|out of range"),
    ],
)
def test_other_faults_are_detected_too(
    entities: Entities, reference: ReferenceStatistics, change: Callable[[Floats], Floats], words: str
) -> None:
    assert reference.why_unlike(entities.values[:BATCH]) == ""
    assert re.search(words, reference.why_unlike(change(entities.values[:BATCH].copy())))


# A running pipeline between a source and a front door that can be broken

RECORDS_PER_S = 1500.0
"""Four times as many as of the embedded target: every entity comes once a second."""


@dataclass
class Outside:
    """The source and the front door, in this process."""

    entities: Entities
    stream: RecordStream
    truth: dict[str, int]
    garble: Callable[[Json], Json] = lambda records: records
    status: int = 200
    wrong: bool = False
    gateway_status: int = 200
    asked: list[str] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> tuple[int, bytes, dict[str, str]]:
        length = int(handler.headers.get("Content-Length", 0))
        if handler.command == "POST":
            rows = json.loads(handler.rfile.read(length))["dataframe_records"]
            self.asked.append(handler.path)
            answers = [self.truth[row["entity"]] ^ self.wrong for row in rows]
            headers = {"X-Model-Version": "2"}
            return self.gateway_status, json.dumps({"predictions": answers}).encode(), headers
        query = dict(part.split("=") for part in handler.path.partition("?")[2].split("&"))
        records = self.stream.after(int(query["after"]), int(query["limit"]))
        return self.status, json.dumps({"records": self.garble(records)}).encode(), {}


@dataclass
class Running:
    outside: Outside
    control: Client
    store: redis.Redis
    store_process: Popen[bytes]
    metrics_url: str
    folder: Path

    def status(self) -> dict[str, int]:
        return dict(self.control.call("status"))

    def count(self, name: str) -> float:
        return metrics(self.metrics_url)[name]

    def grows(self, name: str, by: float = 1, within_s: float = 5) -> bool:
        start = self.count(name)
        return wait_for(lambda: self.count(name) >= start + by, within_s=within_s)

    def stored(self, entity: str) -> list[float] | None:
        values = decode(self.store.get(key_of(entity)))
        return None if values is None else values.tolist()

    def all_right(self) -> bool:
        keys = [key_of(name) for name in self.outside.entities.names]
        stored = [decode(one) for one in self.store.mget(keys)]
        rows = zip(stored, self.outside.entities.values, strict=True)
        return all(one is not None and np.array_equal(one, row) for one, row in rows)


@pytest.fixture(scope="module")
def whole(entities: Entities, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("pipeline")
    sockets = paths.socket_dir()
    entities.save(folder / "features.npz")
    truth = dict(zip(entities.names, entities.labels.tolist(), strict=True))
    outside = Outside(entities, RecordStream(entities, RECORDS_PER_S, 0, SystemClock()), truth)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, content, headers = outside.answer(self)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    store_port, metrics_port = free_port(), free_port()
    settings = {
        "source_url": url,
        "features_host": "127.0.0.1",
        "features_port": store_port,
        "gateway_url": url,
        "metrics_port": metrics_port,
        "reference": str(folder / "features.npz"),
        "quarantine_dir": str(folder / "quarantine"),
        "poll_s": 0.2,
    }
    (folder / "pipeline.json").write_text(json.dumps(settings))
    with ProcessGroup() as group:
        store, process = start_store(group, folder, store_port)
        module = "monkeyproof.targets.local.workload.pipeline"
        with start_with_control(group, module, folder / "pipeline.json", sockets) as control:
            yield Running(outside, control, store, process, f"http://127.0.0.1:{metrics_port}/metrics", folder)
    server.shutdown()
    server.server_close()
    shutil.rmtree(sockets, ignore_errors=True)


@pytest.fixture
def running(whole: Running) -> Running:
    """The pipeline as it is in health."""
    outside = whole.outside
    outside.garble, outside.status, outside.wrong, outside.gateway_status = (
        (lambda records: records),
        200,
        False,
        200,
    )
    whole.control.call("quarantine", on=False)
    assert whole.grows('pipeline_batches_total{result="written"}', by=2)
    return whole


def scale_some(records: Json) -> Json:
    rng = np.random.default_rng(len(records))
    return [one | {"features": scaled(np.array([one["features"]]), rng)[0].tolist()} for one in records]


def test_the_store_becomes_and_stays_fresh(running: Running) -> None:
    assert wait_for(running.all_right, within_s=6)
    before = running.status()
    assert wait_for(lambda: running.status()["batches_written"] > before["batches_written"] + 2, within_s=3)
    after = running.status()
    assert after["last_position"] > before["last_position"]
    assert (after["quarantining"], after["batches_quarantined"]) == (False, before["batches_quarantined"])


def test_metrics_describe_the_latest_batch(running: Running) -> None:
    page = metrics(running.metrics_url)
    for feature in FEATURES:
        assert abs(page[f'pipeline_feature_robust_z{{feature="{feature}"}}']) < MAX_ROBUST_Z
        assert f'pipeline_feature_mean{{feature="{feature}"}}' in page
    assert page["pipeline_feature_out_of_range_share"] < MAX_OUT_OF_RANGE_SHARE
    assert page["pipeline_records_total"] >= 1500
    assert 'pipeline_batches_total{result="rejected"}' in page


def test_feedback_accuracy_is_that_of_served_answers(running: Running) -> None:
    assert wait_for(lambda: "pipeline_feedback_accuracy" in metrics(running.metrics_url), within_s=5)
    assert wait_for(lambda: running.store.xlen("feedback") >= 16, within_s=5)
    _, entry = running.store.xrevrange("feedback", count=1)[0]
    assert entry.keys() == {b"entity", b"predicted", b"label", b"model_version", b"position"}
    assert entry[b"model_version"] == b"2"
    assert entry[b"predicted"] == entry[b"label"]
    port = running.store.connection_pool.connection_kwargs["port"]
    (newest,) = FeatureStore(port, running.folder / "snapshots").latest(1)
    assert newest.entity in running.outside.entities.names
    assert newest.predicted == newest.label
    assert 0 <= newest.position <= running.status()["last_position"]
    assert running.outside.asked[-1] == "/invocations"
    running.outside.wrong = True
    assert wait_for(lambda: running.count("pipeline_feedback_accuracy") < 0.5, within_s=10)


def test_a_front_door_that_fails_stops_the_feedback_and_nothing_else(running: Running) -> None:
    running.outside.gateway_status = 503
    assert running.grows('pipeline_errors_total{part="gateway"}', by=2)
    assert running.grows('pipeline_batches_total{result="written"}', by=2)


def test_a_source_that_fails_is_waited_for(running: Running) -> None:
    running.outside.status = 503
    assert running.grows('pipeline_errors_total{part="source"}', by=3)
    before = running.status()["batches_written"]
    running.outside.status = 200
    assert wait_for(lambda: running.status()["batches_written"] > before, within_s=2)


def test_a_garbled_batch_is_rejected_and_fetched_again(running: Running) -> None:
    assert wait_for(running.all_right, within_s=6)
    running.outside.garble = lambda records: [one | {"features": [None] * 9} for one in records]
    assert running.grows('pipeline_batches_total{result="rejected"}', by=2)
    assert running.all_right()
    status = running.status()
    assert status["batches_rejected"] >= 2
    assert status["last_rejection"] == "record 0: 'None' among the features is not a finite number"
    lost = status["last_position"]
    running.outside.garble = lambda records: records
    assert wait_for(lambda: running.status()["last_position"] > lost, within_s=2)


def test_lost_records_show_in_the_read_count(running: Running) -> None:
    before = running.status()
    running.outside.garble = lambda records: records[::2]
    assert running.grows('pipeline_batches_total{result="written"}', by=2)
    after = running.status()
    read, positions = (after[name] - before[name] for name in ("records_read", "last_position"))
    assert read < 0.9 * positions


def test_corrupt_numbers_reach_the_store_unless_in_quarantine(running: Running) -> None:
    running.outside.garble = scale_some
    assert wait_for(lambda: not running.all_right(), within_s=3)
    assert wait_for(
        lambda: running.count("pipeline_feature_out_of_range_share") > MAX_OUT_OF_RANGE_SHARE, within_s=3
    )

    assert running.control.call("quarantine", on=True) == {"quarantining": True}
    assert running.grows('pipeline_batches_total{result="quarantined"}', by=1)
    running.store.flushall()
    written = running.status()["batches_written"]
    assert running.grows('pipeline_batches_total{result="quarantined"}', by=3)
    assert running.status()["batches_written"] == written
    assert running.store.keys("features:*") == []
    newest = max((running.folder / "quarantine").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert json.loads(newest.read_text())["why"]

    running.outside.garble = lambda records: records
    assert wait_for(running.all_right, within_s=8)
    assert running.status()["quarantining"]


def test_a_store_that_hangs_is_waited_for_and_nothing_is_lost(running: Running) -> None:
    os.kill(running.store_process.pid, signal.SIGSTOP)
    try:
        assert running.grows('pipeline_errors_total{part="store"}', by=2, within_s=8)
    finally:
        os.kill(running.store_process.pid, signal.SIGCONT)
    running.store.flushall()
    assert wait_for(running.all_right, within_s=8)


def test_wrong_control_requests_get_an_error_message(running: Running) -> None:
    with pytest.raises(TargetError, match="on must be true or false"):
        running.control.call("quarantine", on="yes")
    with pytest.raises(TargetError, match="dance: no such method"):
        running.control.call("dance")
    assert running.control.call("ping")["pid"]
    assert http(running.metrics_url).status == 200
