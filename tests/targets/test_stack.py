"""The whole embedded target, through the port: what faults and healers may do to it, and what its users see."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from stack_clients import all_right, ask, eventually, questions, steady_load

from monkeyproof import paths
from monkeyproof.config.target_file import TargetFile
from monkeyproof.errors import TargetError
from monkeyproof.runtime.rpc import TOKEN_SUFFIX, WRONG_TOKEN, Client
from monkeyproof.targets.local.adapter.target import LocalTarget
from monkeyproof.targets.local.control_plane import lifecycle
from monkeyproof.targets.local.models.data import Entities
from monkeyproof.targets.opening import check_answers, open_target
from monkeyproof.targets.port import (
    Features,
    Links,
    Models,
    Pipeline,
    Registry,
    Replica,
    Replicas,
    Resettable,
    Serving,
    Snapshots,
    StartCondition,
    Starts,
    Telemetry,
    Toxic,
    require,
)

pytestmark = pytest.mark.stack


@pytest.fixture
def target(chaos_target: TargetFile) -> Iterator[LocalTarget]:
    """The running target, as declared; every change by a test is reset."""
    opened = open_target(chaos_target.path)
    assert isinstance(opened, LocalTarget)
    require(opened, Resettable).reset()
    assert eventually(lambda: all_right(opened.file), within_s=10)
    yield opened
    opened.close()
    again = open_target(chaos_target.path)
    require(again, Resettable).reset()
    again.close()


def replica(target: LocalTarget, name: str) -> Replica:
    return next(one for one in require(target, Replicas).list() if one.name == name)


def becomes(target: LocalTarget, name: str, state: str, within_s: float = 10.0) -> bool:
    return eventually(lambda: replica(target, name).state == state, within_s)


def golden_entities(target: LocalTarget) -> list[str]:
    bodies = [question["body"] for question in questions(target.file)]
    return [body["dataframe_records"][0]["entity"] for body in bodies]  # type: ignore[index]


def test_golden_questions_are_answered_right_by_all_replicas(target: LocalTarget) -> None:
    check_answers(target)
    golden = questions(target.file)
    assert len(golden) >= 128
    assert all_right(target.file, len(golden))
    assert {ask(target.file, one).version for one in golden[:6]} == {require(target, Registry).champion()}


def test_every_capability_is_there(target: LocalTarget) -> None:
    for capability in (
        *(
            Replicas,
            Starts,
            Registry,
            Models,
            Features,
            Snapshots,
            Serving,
            Pipeline,
            Links,
            Telemetry,
            Resettable,
        ),
    ):
        assert isinstance(target.find(capability), capability)
    assert target.find(int) is None


def test_a_killed_replica_costs_no_answer_and_comes_back(target: LocalTarget) -> None:
    replicas = require(target, Replicas)
    with steady_load(target.file) as load:
        assert eventually(lambda: load.seen["right"] > 20, within_s=10)
        before = replicas.kill("replica-1")
        killed_s = time.monotonic()
        assert before.state == "ready"
        assert replica(target, "replica-1").pid != before.pid
        assert becomes(target, "replica-1", "ready", within_s=5)
        back_after_s = time.monotonic() - killed_s
        after = replica(target, "replica-1")
        assert after.starts == before.starts + 1
        assert after.pid != before.pid
        already = load.seen["right"]
        assert eventually(lambda: load.seen["right"] > already + 30, within_s=10)
    assert 0.2 <= back_after_s < 3.0
    assert set(load.seen) == {"right"}, load.problems


def test_restart_waits_for_a_delayed_start(target: LocalTarget) -> None:
    starts, before = require(target, Starts), replica(target, "replica-1")
    with steady_load(target.file) as load:
        assert eventually(lambda: load.seen["right"] > 20, within_s=10)
        starts.end("replica-1", StartCondition(1.5), notice_s=2.0, lease_s=5.0)
        ended_s = time.monotonic()
        assert becomes(target, "replica-1", "down", within_s=5)
        assert 0 < starts.conditions()["replica-1"].delay_s <= 1.5
        require(target, Replicas).restart("replica-1")
        assert time.monotonic() - ended_s >= 1.5
        assert becomes(target, "replica-1", "ready")
    assert replica(target, "replica-1").starts == before.starts + 1
    assert (starts.conditions(), starts.release("replica-1")) == ({}, False)
    assert set(load.seen) == {"right"}, load.problems


def test_replica_has_a_changed_environment_until_the_release(target: LocalTarget) -> None:
    starts = require(target, Starts)

    def environment() -> bytes:
        pid = replica(target, "replica-2").pid
        return Path(f"/proc/{pid}/environ").read_bytes() if pid is not None else b""

    starts.end("replica-2", StartCondition(0.0, {"SKEWED": "yes"}), lease_s=60.0)
    assert becomes(target, "replica-2", "ready", within_s=20)
    assert b"SKEWED=yes" in environment()
    assert all_right(target.file, 9)
    assert starts.release("replica-2")
    assert becomes(target, "replica-2", "ready", within_s=20)
    assert b"SKEWED=yes" not in environment()


def test_replica_that_keeps_dying_is_restarted_with_backoff(target: LocalTarget) -> None:
    replicas = require(target, Replicas)
    waits_s = []
    for _ in range(3):
        replicas.kill("replica-2")
        died_s = time.monotonic()
        assert eventually(lambda: replica(target, "replica-2").pid is not None, within_s=10)
        waits_s.append(time.monotonic() - died_s)
    assert waits_s[0] < waits_s[1] < waits_s[2]
    assert waits_s[2] >= 0.8
    assert becomes(target, "replica-2", "ready")


def test_paused_replica_is_reported_and_ejected_within_seconds(target: LocalTarget) -> None:
    replicas = require(target, Replicas)
    replicas.pause("replica-3")
    assert replica(target, "replica-3").state == "paused"
    assert eventually(lambda: all_right(target.file, 9), within_s=10)
    replicas.resume("replica-3")
    assert becomes(target, "replica-3", "ready")


def test_restart_is_at_once_and_costs_no_answer(target: LocalTarget) -> None:
    replicas = require(target, Replicas)
    with steady_load(target.file) as load:
        assert eventually(lambda: load.seen["right"] > 10, within_s=10)
        before, began_s = replica(target, "replica-2"), time.monotonic()
        replicas.restart("replica-2")
        assert becomes(target, "replica-2", "ready")
        took_s = time.monotonic() - began_s
        already = load.seen["right"]
        assert eventually(lambda: load.seen["right"] > already + 20, within_s=10)
    assert replica(target, "replica-2").pid != before.pid
    assert replica(target, "replica-2").starts == before.starts + 1
    assert took_s < 3.0
    assert set(load.seen) == {"right"}, load.problems


def test_restart_repairs_a_paused_replica(target: LocalTarget) -> None:
    replicas = require(target, Replicas)
    replicas.pause("replica-1")
    replicas.restart("replica-1")
    assert becomes(target, "replica-1", "ready")


def test_a_drained_replica_gets_no_request_and_no_answer_is_lost(target: LocalTarget) -> None:
    replicas, links = require(target, Replicas), require(target, Links)
    slow = links.add(Toxic("gateway->replica-2", "latency", {"low_ms": 500, "high_ms": 600, "seed": 1}))
    with steady_load(target.file) as load:
        assert eventually(lambda: links.stats(slow)["affected"] >= 3, within_s=10)
        replicas.drain("replica-2")
        assert replica(target, "replica-2").drained
        already = load.seen["right"]
        assert eventually(lambda: load.seen["right"] > already + 30, within_s=10)
        replies = [ask(target.file, question) for question in questions(target.file)[:12]]
        assert max(reply.latency_s for reply in replies) < 0.45
        replicas.undrain("replica-2")
        assert not replica(target, "replica-2").drained
    links.remove(slow)
    assert set(load.seen) == {"right"}, load.problems


def test_the_last_that_serves_cannot_be_drained(target: LocalTarget) -> None:
    replicas = require(target, Replicas)
    replicas.drain("replica-1")
    replicas.pause("replica-3")
    with pytest.raises(TargetError, match="replica-2: not drained"):
        replicas.drain("replica-2")
    assert not replica(target, "replica-2").drained


@pytest.mark.parametrize("method", ["kill", "pause", "resume", "restart", "drain", "undrain"])
def test_unknown_replica_is_an_error(target: LocalTarget, method: str) -> None:
    with pytest.raises(TargetError, match="'replica-9': no such replica; there are replica-1"):
        getattr(require(target, Replicas), method)("replica-9")


def test_features_are_read_snapshot_and_restored(target: LocalTarget) -> None:
    features, snapshots, pipeline = (
        require(target, Features),
        require(target, Snapshots),
        require(target, Pipeline),
    )
    clean = Entities.load(target.file.path.parent / "features.npz")
    assert features.snapshots()[0] == "primed"
    entity = clean.names[3]
    wanted = clean.values[3].tolist()
    assert features.read([entity, "nobody"]) == {entity: wanted, "nobody": None}
    assert snapshots.read_snapshot("primed", [entity, "nobody"]) == {entity: wanted, "nobody": None}
    taken = features.take_snapshot()
    assert features.snapshots()[-1] == taken
    assert snapshots.read_snapshot(taken, [entity]) == {entity: wanted}
    assert features.restore(taken) == len(clean)
    assert pipeline.status().last_position > 0
    with pytest.raises(TargetError, match="no such snapshot"):
        features.restore("never-taken")


def test_a_feature_outage_is_silent_until_the_snapshot_serves(target: LocalTarget) -> None:
    links, serving = require(target, Links), require(target, Serving)
    outage = links.add(Toxic("replica->features", "down"))
    golden = questions(target.file)[:30]

    def all_degraded() -> bool:
        return all(ask(target.file, one).degraded == "fallback" for one in golden)

    assert eventually(all_degraded, within_s=10)
    replies = [ask(target.file, one) for one in golden]
    assert {reply.status for reply in replies} == {200}
    assert not all(reply.right for reply in replies)
    serving.set_feature_mode("snapshot", "primed")
    assert serving.feature_mode() == "snapshot"

    def right_from_the_snapshot() -> bool:
        replies = [ask(target.file, one) for one in golden]
        return all(reply.right and reply.degraded == "snapshot" for reply in replies)

    assert eventually(right_from_the_snapshot, within_s=5)
    links.remove(outage)
    serving.set_feature_mode("live")
    assert eventually(lambda: all_right(target.file), within_s=5)


def test_a_degraded_model_is_promoted_and_served_until_the_reset(target: LocalTarget) -> None:
    registry = require(target, Registry)
    champion = registry.champion()
    worst = min(registry.versions(), key=lambda one: one.accuracy or 1.0)
    registry.set_champion(worst.version)
    golden = questions(target.file)
    assert eventually(lambda: {ask(target.file, one).version for one in golden[:9]} == {worst.version}, within_s=5)
    wrong = sum(not ask(target.file, one).right for one in golden)
    assert wrong > 0.1 * len(golden)
    done = require(target, Resettable).reset()
    assert any(f"{champion} again" in words for words in done), done
    # The reset returns when it is true, not when it has been asked for.
    assert all_right(target.file)


def test_trial_load_runs_in_isolation(target: LocalTarget, tmp_path: Path) -> None:
    registry, models = require(target, Registry), require(target, Models)
    model = registry.download(registry.champion(), tmp_path)
    clean = Entities.load(target.file.path.parent / "features.npz")
    tried = models.trial_load(model, clean.values[:5].tolist())
    assert tried.ok, tried.why
    assert len(tried.predictions) == 5
    broken = tmp_path / "broken.pkl"
    broken.write_bytes(model.read_bytes()[:-50])
    tried = models.trial_load(broken, clean.values[:1].tolist())
    assert not tried.ok
    assert tried.why


def test_pipeline_status_and_quarantine(target: LocalTarget) -> None:
    pipeline = require(target, Pipeline)
    before = pipeline.status()
    assert not before.quarantining
    pipeline.quarantine(True)
    assert pipeline.status().quarantining
    written = before.batches_written
    assert eventually(lambda: pipeline.status().batches_written > written, within_s=10)
    done = require(target, Resettable).reset()
    assert done == ["quarantine was on: off"]


def test_a_healer_sees_telemetry(target: LocalTarget) -> None:
    telemetry = require(target, Telemetry)
    assert set(telemetry.metrics_urls()) == {"replica-1", "replica-2", "replica-3", "pipeline"}
    assert telemetry.canary().is_file()
    assert telemetry.canary_url() == target.file.predict.url
    links = require(target, Links)
    broken = links.add(Toxic("healer->registry", "down"))
    with pytest.raises(TargetError):
        telemetry.healer_registry().champion()
    assert require(target, Registry).champion()  # Past the link.
    links.remove(broken)
    assert telemetry.healer_registry().champion() == require(target, Registry).champion()


def test_reset_restores_everything_and_then_changes_nothing(target: LocalTarget) -> None:
    resettable, replicas, features = (
        require(target, Resettable),
        require(target, Replicas),
        require(target, Features),
    )
    assert resettable.reset() == []
    replicas.drain("replica-1")
    replicas.pause("replica-2")
    features.take_snapshot()
    target.features.write(["nobody"], np.ones((1, 9)))
    require(target, Serving).set_feature_mode("snapshot", "primed")
    done = " / ".join(resettable.reset())
    for words in (
        "replica-1 was drained",
        "replica-2 was paused",
        "1 snapshots",
        "live again",
        "1 entities were unknown",
    ):
        assert words in done
    assert resettable.reset() == []
    assert features.read(["nobody"]) == {"nobody": None}
    assert all(one.state == "ready" and not one.drained for one in replicas.list())
    assert all_right(target.file)


def test_every_part_requires_its_own_token(target: LocalTarget) -> None:
    assert target.file.stack is not None
    control = target.file.stack.control
    with Client(control) as client:
        places = client.call("describe")
    parts = [control, *(Path(places[name]) for name in ("proxy", "fork-server", "pipeline"))]
    tokens = [path.with_name(path.name + TOKEN_SUFFIX).read_text() for path in parts]
    assert len(set(tokens)) == len(parts)
    for path, another in zip(parts, tokens[1:] + tokens[:1], strict=True):
        for opening in ({"token": another}, {"id": 1, "method": "ping"}):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.settimeout(5)
                stranger.connect(str(path))
                stranger.sendall(json.dumps(opening).encode() + b'\n{"id":2,"method":"ping"}\n')
                assert [json.loads(line) for line in stranger.makefile("rb")] == [WRONG_TOKEN], path
    written = [path for path in Path(places["folder"]).rglob("*") if path.is_file()]
    assert any(path.suffix == ".log" for path in written)
    assert not [path for path in written if any(token.encode() in path.read_bytes() for token in tokens)]


def test_files_of_the_target_are_private(target: LocalTarget, open_to_others: Callable[[Path], list[str]]) -> None:
    assert target.file.stack is not None
    assert open_to_others(paths.home()) == []  # The target's folder lies in it.
    assert open_to_others(target.file.stack.control.parent) == []


def test_reset_waits_for_a_replica_that_is_down(target: LocalTarget) -> None:
    replicas = require(target, Replicas)
    for _ in range(4):
        if replica(target, "replica-3").pid is not None:
            replicas.kill("replica-3")
        assert eventually(lambda: replica(target, "replica-3").pid is not None, within_s=10)
    replicas.kill("replica-3")
    done = require(target, Resettable).reset()
    assert any("replica-3 was backing off" in words for words in done), done
    assert replica(target, "replica-3").state == "ready"


def test_closing_a_target_ends_the_faults_that_were_injected_through_it(target: LocalTarget) -> None:
    other = open_target(target.file.path)
    require(other, Links).add(Toxic("replica->features", "down"))
    assert len(require(target, Links).active()) == 1
    other.close()
    assert eventually(lambda: not require(target, Links).active(), within_s=2)


@pytest.mark.parametrize("part", ["proxy", "features", "gateway", "source", "pipeline", "fork-server", "registry"])
def test_every_part_that_dies_is_restarted_and_answers_are_right_again(target: LocalTarget, part: str) -> None:
    before = next(one for one in lifecycle.status().parts if one.name == part)
    assert before.pid is not None
    os.killpg(before.pid, signal.SIGKILL)

    def back() -> bool:
        now = {one.name: one for one in lifecycle.status().parts}
        return now[part].starts > before.starts and all(one.state == "ready" for one in now.values())

    assert eventually(back, within_s=40)
    assert eventually(lambda: all_right(target.file), within_s=15)
    position = require(target, Pipeline).status().last_position
    assert eventually(lambda: require(target, Pipeline).status().last_position > position, within_s=10)
