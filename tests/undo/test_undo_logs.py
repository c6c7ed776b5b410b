"""Undo logs that are torn, tampered with, left behind or held by another process, and their replay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from undo_world import OLD_INTENT, fault, kinds, lines_of

from monkeyproof import paths
from monkeyproof.errors import NotReverted, Refusal, UsageError
from monkeyproof.faults import noop
from monkeyproof.injection.inject import Context, inject, revert
from monkeyproof.record.history import Kind
from monkeyproof.safety import replay
from monkeyproof.safety import revert_one as undoing
from monkeyproof.undo import log as undo_log
from monkeyproof.undo.log import LogHeld, OpenFault, Undo, UndoLog, read_open


def test_torn_intent_was_never_injected(context: Context) -> None:
    noop.nothing()
    whole = context.undo.path.read_bytes().splitlines(keepends=True)[0]
    for cut in range(len(whole)):
        torn = context.folder / "torn.jsonl"
        torn.write_bytes(whole[:cut])
        assert read_open(torn) == []


def odd(**changes: Any) -> bytes:
    return json.dumps(json.loads(OLD_INTENT) | changes).encode() + b"\n"


@pytest.mark.parametrize(
    "line",
    [
        b"lol\n",
        b"\0\0\0\n",
        b"5\n",
        b"[" * 100_000 + b"\n",
        b'{"step":"intent"}\n',
        b'{"step":"nap","id":"1"}\n',
        odd(id=["t"]),
        odd(undo=7),
        odd(undo={"function": "monkeyproof.faults.noop:undo_nothing", "arguments": []}),
        odd(undo={"function": 7, "arguments": {}}),
        odd(target_file=5),
        odd(prior=[1]),
        odd(lease_s="5"),
        odd(lease_s=True),
        odd(utc=None),
    ],
)
def test_unreadable_line_does_not_prevent_other_undos(line: bytes) -> None:
    good = left_behind("good")
    good.close()
    bad = undo_log.undo_dir() / "bad.jsonl"
    bad.write_bytes(odd(id="t-1") + line + odd(id="t-2"))
    said: list[str] = []
    assert replay.revert_all(said.append, dry_run=True) == 4
    assert said[4].startswith(f"not known: {bad}:2: cannot be understood (")
    with pytest.raises(Refusal, match=r"may still be there .*bad.jsonl:2: cannot be understood"):
        replay.refuse_while_open()
    said.clear()
    with pytest.raises(NotReverted, match=r"bad.jsonl:2: cannot be understood .* --forget bad';"):
        replay.revert_all(said.append)
    assert len([words for words in said if words.startswith("reverted: ")]) == 3
    assert (good.path.exists(), read_open(bad)) == (False, [])
    with pytest.raises(Refusal, match=r"bad.jsonl:2: cannot be understood"):
        replay.refuse_while_open()  # It may have been a fault that no log knows of.
    replay.forget("bad", said.append)
    replay.refuse_while_open()


def test_manually_repaired_fault_can_be_forgotten_on_record() -> None:
    log = left_behind("a-001")
    with pytest.raises(UsageError, match="nothing is open of a trial 'a'; open is: a-001"):
        replay.forget("a", pytest.fail)
    with pytest.raises(LogHeld):
        replay.forget("a-001", pytest.fail)
    log.close()
    said: list[str] = []
    replay.forget("a-001", said.append)
    assert said[0] == "FORGOTTEN, not reverted: noop.nothing on a-001 (before: not on record)"
    (kept,) = (paths.home() / "forgotten").iterdir()
    assert said[-1].endswith(f"{kept}.")
    assert [one.get("summary", "") for one in lines_of(kept)][-1].startswith("forgotten, not reverted")
    replay.refuse_while_open()


@pytest.mark.parametrize("lease_s", [5.0, None])
@pytest.mark.parametrize("age_s", [0, 60])
def test_long_expired_lease_ends_a_fault_that_cannot_be_checked(
    tmp_path: Path, age_s: float, lease_s: float | None
) -> None:
    gone = tmp_path / "gone" / "t.yaml"
    utc = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat()
    log = UndoLog(undo_log.undo_dir() / "l.jsonl")
    undoing = Undo("monkeyproof.faults.network:remove_toxic", {"link": "l", "toxic_id": "x"})
    log.intend(OpenFault("l-1", "network.add_latency", "l", undoing, str(gone), utc, {}, lease_s))
    log.close()
    said: list[str] = []
    if lease_s and age_s:
        gone.parent.mkdir()
        gone.touch()
        with pytest.raises(Refusal):  # A user has to read it first.
            replay.refuse_while_open()
        gone.unlink()
        replay.refuse_while_open()
        assert not log.path.exists()
        return
    with pytest.raises(Refusal, match="1 fault may still be there"):
        replay.refuse_while_open()
    with pytest.raises(NotReverted, match=r"No such file.*--forget ID"):
        replay.revert_all(said.append)


def test_undo_of_an_external_fault_needs_nothing_outside_the_home(tmp_path: Path) -> None:
    mark = tmp_path / "mended"
    mend = {"type": "process", "path": "touch", "arguments": str(mark)}
    log = UndoLog(undo_log.undo_dir() / "f.jsonl")
    kept = undo_log.store_experiment_copy(
        log.path, {"method": [{"type": "action", "name": "mend", "provider": mend}]}
    )
    gone = tmp_path / "gone"
    arguments = {"experiment": str(kept), "activities": ["mend"], "folder": str(gone)}
    undoing = Undo("monkeyproof.faults.actions.external:run_activities", arguments)
    log.intend(OpenFault("f-1", "foreign.break", "t", undoing, str(gone / "t.yaml"), "2026"))
    log.close()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert replay.revert_all(lambda _: None) == 1
    assert mark.exists()
    assert list(undo_log.undo_dir().iterdir()) == []


def test_file_that_is_no_log_is_named() -> None:
    path = undo_log.undo_dir() / "d.jsonl"
    path.mkdir()
    with pytest.raises(NotReverted, match=r"d.jsonl: cannot be read \(Is a directory\)"):
        replay.revert_all(lambda _: None)


def test_faults_are_reverted_though_their_log_was_deleted_or_damaged(context: Context) -> None:
    noop.nothing()
    with context.undo.path.open("a") as file:
        file.write("garbage\n")
    assert len(revert()) == 1
    noop.nothing()
    context.undo.path.unlink()
    assert len(revert()) == 1
    assert kinds(context).count(Kind.FAULT_REVERTED) == 2
    context.undo.close(context.folder / "archive.jsonl")
    assert context.undo.known.end_summary == "what was injected is reverted (2 faults)"
    assert lines_of_step(context.folder / "archive.jsonl", "reverted") == 2


def lines_of_step(log: Path, step: str) -> int:
    return log.read_text().count(f'"step":"{step}"')


def test_open_fault_of_a_deleted_log_is_found_by_the_next_process() -> None:
    log = left_behind("lost")
    log.path.unlink()
    log.intend(OpenFault("lost-2", "noop.nothing", "again", Undo("monkeyproof.faults.noop:f", {}), "x", "2026"))
    with pytest.raises(LogHeld):  # The one that was put in its place is held as well.
        UndoLog(log.path)
    log.path.unlink()
    log.close()
    assert [one.subject for one in read_open(log.path)] == ["again", "lost"]


def test_log_moves_into_the_trial_only_when_nothing_is_open(context: Context) -> None:
    noop.nothing()
    context.undo.close(context.folder / "archive.jsonl")
    assert context.undo.path.exists()
    assert not (context.folder / "archive.jsonl").exists()
    again = UndoLog(context.undo.path)
    again.reverted(read_open(again.path)[0].id, "done")
    again.close(context.folder / "archive.jsonl")
    assert not again.path.exists()
    assert [json.loads(line)["step"] for line in (context.folder / "archive.jsonl").open()] == [
        "intent",
        "effective",
        "reverted",
    ]


def test_run_refuses_while_a_fault_is_open_until_revert(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    log = UndoLog(undo_log.undo_dir() / "left.jsonl")
    log.intend(
        OpenFault("t-1", "noop.nothing", "s", Undo("monkeyproof.faults.noop:undo_nothing", {}), "x.yaml", "2026")
    )
    log.close()
    with pytest.raises(Refusal, match="run 'monkeyproof revert' first"):
        replay.refuse_while_open()
    monkeypatch.setattr(undoing, "open_target", lambda _: context.target)
    said: list[str] = []
    assert replay.revert_all(said.append, dry_run=True) == 1
    assert "noop.nothing on s" in said[0]
    assert replay.revert_all(said.append) == 1
    assert replay.revert_all(said.append) == 0
    replay.refuse_while_open()


def test_fault_ends_with_its_embedded_target() -> None:
    log = UndoLog(undo_log.undo_dir() / "left.jsonl")
    file = str(paths.target_dir() / "target.yaml")
    log.intend(
        OpenFault(
            "t-1", "network.add_latency", "l", Undo("monkeyproof.faults.network:remove_toxic", {}), file, "2026"
        )
    )
    log.close()
    said: list[str] = []
    assert replay.revert_all(said.append) == 1
    assert "the fault ended with it" in said[0]
    replay.refuse_while_open()


def test_one_campaign_at_a_time() -> None:
    with (
        replay.sole_campaign(),
        pytest.raises(Refusal, match="not reverting: another campaign is running"),
        replay.sole_campaign(doing="reverting"),
    ):
        pass
    with replay.sole_campaign():
        pass


def test_two_homes_cannot_hold_one_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, link = tmp_path / "target.yaml", tmp_path / "link.yaml"
    file.write_text("name: x")
    link.symlink_to(file)
    code = (
        "import sys; from pathlib import Path; from monkeyproof.safety.replay import *\n"
        "with clear_to_inject(), sole_campaign_on(Path(sys.argv[1])):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    monkeypatch.setenv("MONKEYPROOF_HOME", str(tmp_path / "another"))
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    monkeypatch.setenv("MONKEYPROOF_HOME", str(tmp_path / "ours"))
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        for path in (file, link):
            with (
                replay.clear_to_inject(),
                pytest.raises(Refusal, match=r"another MONKEYPROOF_HOME, holds the target .*; wait for it"),
                replay.sole_campaign_on(path),
            ):
                pytest.fail("held twice")
        (tmp_path / "elsewhere.yaml").write_text("name: y")
        with replay.sole_campaign_on(tmp_path / "elsewhere.yaml"):
            pass
    finally:
        other.kill()
        other.communicate()
    with replay.sole_campaign_on(file):  # The lock died with its holder.
        pass
    with replay.sole_campaign_on(tmp_path / "none.yaml"):  # The reader of the file reports that.
        pass


def left_behind(name: str) -> UndoLog:
    """A log with one open fault, still held by its trial."""
    log = UndoLog(undo_log.undo_dir() / f"{name}.jsonl")
    undoing = Undo("monkeyproof.faults.noop:undo_nothing", {})
    log.intend(OpenFault(f"{name.rpartition('-')[2]}-1", "noop.nothing", name, undoing, "x.yaml", "2026"))
    return log


def test_log_of_a_running_trial_is_not_replayed(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undoing, "open_target", lambda _: context.target)
    log = left_behind("alive")
    with pytest.raises(LogHeld, match="its trial still runs"):
        replay.replay(log.path, held_within_s=0.0)
    assert [one.subject for one in read_open(log.path)] == ["alive"]
    log.close()
    assert [fault.subject for fault, _ in replay.replay(log.path).done] == ["alive"]
    assert not log.path.exists()
    assert replay.replay(log.path) == replay.ReplayResult()


def test_two_concurrent_replays_undo_once(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undoing, "open_target", lambda _: context.target)
    count = threading.Semaphore(0)

    def slowly(target: object) -> str:  # noqa: ARG001
        count.release()
        time.sleep(0.2)
        return "done"

    monkeypatch.setattr(noop, "slowly", slowly, raising=False)
    log = UndoLog(undo_log.undo_dir() / "x.jsonl")
    log.intend(OpenFault("x-1", "noop.nothing", "s", Undo("monkeyproof.faults.noop:slowly", {}), "x.yaml", "2026"))
    log.close()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: replay.replay(log.path), range(4)))
    assert sum(len(one.done) for one in found) == 1
    assert count.acquire(blocking=False)
    assert not count.acquire(blocking=False)


def test_revert_of_one_run_leaves_the_others(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undoing, "open_target", lambda _: context.target)
    for name in ("a-001", "a-002", "a-2-001"):
        left_behind(name).close()
    with pytest.raises(UsageError, match="nothing is open of a run 'b'; open is: a-001, a-002, a-2-001"):
        replay.revert_all(lambda _: None, run="b")
    said: list[str] = []
    assert replay.revert_all(said.append, run="a-002") == 1
    assert said == ["reverted: noop.nothing on a-002: there was nothing to revert (a-002)"]
    assert replay.revert_all(said.append, run="a") == 1
    assert [path.stem for path in undo_log.open_logs()] == ["a-2-001"]


def test_closed_log_left_in_place_is_removed_unless_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replay, "HELD_BRIEFLY_S", 0.0)
    held = UndoLog(undo_log.undo_dir() / "held.jsonl")
    (undo_log.undo_dir() / "over.jsonl").write_bytes(b"")
    with pytest.raises(Refusal, match="the trial held of an earlier campaign still runs"):
        replay.refuse_while_open()
    held.close()
    replay.refuse_while_open()
    assert not list(undo_log.undo_dir().glob("*.jsonl"))


def test_next_writer_cuts_off_a_torn_line(tmp_path: Path) -> None:
    log = left_behind("torn")
    log.close()
    with log.path.open("ab") as file:
        file.write(b'{"step":"intent","id":"torn-2","fau')
    again = UndoLog(log.path)
    again.reverted("torn-1", "done")
    assert again.open_faults() == []
    again.close(tmp_path / "archive.jsonl")
    assert [json.loads(line)["step"] for line in (tmp_path / "archive.jsonl").open()] == ["intent", "reverted"]


def test_a_full_disk_refuses_the_fault_and_leaves_no_half_line(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def short(file: int, data: bytes) -> int:
        return real(file, data[:20]) if b'"step":"intent"' in data else real(file, data)

    monkeypatch.setattr(os, "write", short)
    acts: list[None] = []
    with pytest.raises(Refusal, match=r"not injecting: the undo log .* cannot be written"):
        inject(fault(apply=lambda: acts.append(None)))
    assert acts == []
    assert context.undo.path.read_bytes() == b""


def test_log_that_cannot_be_created_refuses_the_trial() -> None:
    path = undo_log.undo_dir() / "t.jsonl"
    path.mkdir()
    with pytest.raises(
        Refusal, match=r"not injecting: the undo log .*t.jsonl cannot be written \(Is a directory\)"
    ):
        undo_log.begin(path)
