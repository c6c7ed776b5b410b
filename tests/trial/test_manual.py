"""Manual injection, on a real fault proxy with a service behind it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from manual_world import small, status_of

import monkeyproof
from monkeyproof.cli import main
from monkeyproof.clock import wait_for
from monkeyproof.config.target_file import read_target_file
from monkeyproof.errors import EXIT_NOT_REVERTED, EXIT_REFUSED, EXIT_USAGE, NotReverted, Refusal, UsageError
from monkeyproof.injection.arguments import unit_of
from monkeyproof.injection.inject import current, has_current
from monkeyproof.pytest_plugin import Chaos
from monkeyproof.record.history import UNDO_FILE, Kind, events_in
from monkeyproof.runtime import stop_file
from monkeyproof.targets.port import Links
from monkeyproof.trial.manual import Ended
from monkeyproof.undo import log as undo_log

__all__ = ["small"]
LINK = "users"


def stuck(target: object) -> str:  # noqa: ARG001
    raise OSError("it is stuck")


def listen(monkey: monkeyproof.Monkey) -> str:
    return monkey.target.file.links[LINK].listen


def kinds(folder: Path) -> list[Kind]:
    return [event.kind for event in events_in(folder)]


def test_a_fault_is_active_inside_the_block_alone(small: Path) -> None:
    from monkeyproof.faults import network

    with monkeyproof.break_target(small, seed=7) as monkey:
        assert status_of(listen(monkey)) == 200
        found = monkey.inject("network.fail_requests", link=LINK, probability=1.0, status=507)
        assert (found.fault, found.subject) == ("network.fail_requests", LINK)
        assert "507" in found.evidence
        assert found.data["own_failed"] >= 1
        assert status_of(listen(monkey)) == 507
        assert monkey.held == [f"network.fail_requests on {LINK}"]
        assert monkey.why_inactive() == ""
        assert undo_log.open_logs()
        assert monkey.revert() == [f"{LINK}: fault removed"]
        assert status_of(listen(monkey)) == 200
        # The function itself is the same thing.
        network.fail_requests(LINK, 1.0)
        assert status_of(listen(monkey)) == 503
        assert current().seed == 7
    assert not has_current()
    assert undo_log.open_logs() == []
    assert kinds(monkey.folder).count(Kind.FAULT_REVERTED) == 2
    assert len((monkey.folder / UNDO_FILE).read_text().splitlines()) == 6
    ended = events_in(monkey.folder)[-1]
    assert (ended.kind, ended.data) == (Kind.TRIAL_ENDED, {"status": "closed"})


def test_an_exception_reverts_everything_and_propagates(small: Path) -> None:
    def test() -> None:
        with monkeyproof.break_target(small) as opened:
            folders.append(opened.folder)
            opened.inject("network.fail_requests", link=LINK, probability=1.0)
            links = opened.target.find(Links)
            assert links is not None
            assert list(links.active())
            raise ZeroDivisionError

    folders: list[Path] = []
    with pytest.raises(ZeroDivisionError):
        test()
    assert Kind.FAULT_REVERTED in kinds(folders[0])
    assert undo_log.open_logs() == []


def test_wrong_usage_injects_nothing(small: Path) -> None:
    small.write_text(small.read_text().replace(", noop", ""))
    with monkeyproof.break_target(small) as monkey:
        for name, arguments, words in (
            ("network.add_latncy", {}, "did you mean 'network.add_latency'"),
            (
                "network.delay_closes",
                {"link": LINK},
                "needs delay_ms; it takes: link=STR (needed)",
            ),
            ("network.add_latency", {"link": LINK, "low_ms": 1.0, "high": 1.0}, "takes no 'high'"),
            (
                "network.add_latency",
                {"link": LINK, "low_ms": "1", "high_ms": 2.0},
                "low_ms: Input should",
            ),
            ("network.add_latency", {"link": "no", "low_ms": 1.0, "high_ms": 2.0}, "has no link 'no'"),
        ):
            with pytest.raises(UsageError, match=words.replace("(", r"\(").replace(")", r"\)")):
                monkey.inject(name, **arguments)
        with pytest.raises(Refusal, match="latency_ms 500"):
            monkey.inject("network.add_latency", link=LINK, low_ms=1.0, high_ms=501.0)
        with pytest.raises(Refusal, match="does not allow faults of the family 'noop'"):
            monkey.inject("noop.nothing")
        assert monkey.held == []
    assert Kind.FAULT_INTENDED not in kinds(monkey.folder)


def test_one_block_at_a_time_and_none_beside_open_faults(small: Path, tmp_path: Path) -> None:
    with monkeyproof.break_target(small):
        with pytest.raises(Refusal, match="another block"), monkeyproof.break_target(small):
            pass
        other = CliRunner().invoke(main, ["fault", "noop.nothing", "--target", str(small)])
        assert other.exit_code == EXIT_REFUSED
    failed: list[BaseException] = []

    def elsewhere() -> None:
        try:
            with monkeyproof.break_target(small):
                pass
        except UsageError as error:
            failed.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "main thread" in str(failed[0])
    log = undo_log.begin(undo_log.undo_dir() / "r-t.jsonl")
    gone = undo_log.Undo("monkeyproof.faults.noop:undo_nothing", {})
    log.intend(undo_log.OpenFault("t-1", "noop.nothing", "x", gone, str(tmp_path / "other.yaml"), "2026-01-01"))
    log.close()
    with pytest.raises(Refusal, match="run 'monkeyproof revert' first"), monkeyproof.break_target(small):
        pass


def test_the_stop_file_ends_the_block(small: Path) -> None:
    def test() -> None:
        with monkeyproof.break_target(small) as opened:
            folders.append(opened.folder)
            opened.inject("network.fail_requests", link=LINK, probability=1.0)
            stop_file.stop_file().touch()
            with contextlib.suppress(Exception):  # Code that catches everything must not hold it up.
                threading.Event().wait(20)
            folders.clear()

    folders: list[Path] = []
    with pytest.raises(Ended, match="stopped by 'monkeyproof stop'") as ended:
        test()
    assert ended.value.exit_code == EXIT_REFUSED
    assert {Kind.TRIAL_ABORTED, Kind.FAULT_REVERTED} <= set(kinds(folders[0]))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_fault_is_not_held_for_ever(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monkeyproof.injection.active.MARGIN_S", 0.0)

    def test() -> None:
        with monkeyproof.break_target(small, at_most_s=0.5) as opened:
            folders.append(opened.folder)
            opened.inject("noop.nothing")
            threading.Event().wait(20)

    folders: list[Path] = []
    with pytest.raises(Ended, match=r"active for more than 0\.7 s"):
        test()
    assert Kind.FAULT_REVERTED in kinds(folders[0])


def test_a_failed_revert_is_reported_and_stays_open(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from monkeyproof.faults import noop

    def test() -> None:
        with monkeyproof.break_target(small) as opened:
            folders.append(opened.folder)
            opened.inject("noop.nothing")

    folders: list[Path] = []
    monkeypatch.setattr(noop, "undo_nothing", stuck)
    with pytest.raises(NotReverted, match="it is stuck"):
        test()
    assert len(undo_log.open_logs()) == 1
    assert events_in(folders[0])[-1].data["status"] == "not reverted"


def run(small: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "monkeyproof.cli", "fault", *words, "--target", str(small)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_command_injects_holds_and_reverts(small: Path) -> None:
    words = ("network.fail_requests", f"link={LINK}", "probability=1", "--for", "0.2s")
    done = run(small, *words)
    output, errors = done.communicate(timeout=60)
    assert done.returncode == 0, errors
    assert f"injected: network.fail_requests on {LINK}" in output
    assert "answered 503 by the fault proxy" in output
    assert "this command does not measure how users fare" in output
    assert f"reverted: {LINK}: fault removed" in output


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, EXIT_REFUSED), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_however_the_command_ends_nothing_is_left(small: Path, number: signal.Signals, code: int) -> None:
    """Ctrl-C is how a person says that it was long enough; after SIGKILL the watchdog takes it back."""
    with run(small, "network.fail_requests", f"link={LINK}", "probability=1", "--for", "1m") as running:
        assert running.stdout is not None
        for line in running.stdout:
            if line.startswith("Held"):
                break
        assert undo_log.open_logs()
        os.kill(running.pid, number)
        output, errors = running.communicate(timeout=60)
        assert running.returncode == code, output + errors
    assert wait_for(lambda: not list(undo_log.undo_dir().glob("*.jsonl")), within_s=20, every_s=0.05)
    (folder,) = (Path(os.environ["MONKEYPROOF_HOME"]) / "by-hand").iterdir()
    reverted = [event for event in events_in(folder) if event.kind is Kind.FAULT_REVERTED]
    assert [event.source for event in reverted] == ["watchdog" if number is signal.SIGKILL else "by-hand"]


def test_dry_run_injects_nothing(small: Path) -> None:
    words = ["fault", "network.add_latency", f"link={LINK}", "low_ms=5", "high_ms=10", "--target", str(small)]
    done = CliRunner().invoke(main, [*words, "--dry-run"])
    assert done.exit_code == 0, done.output
    assert f"would inject network.add_latency on {LINK}" in done.output
    assert "latency_ms: 10 of at most 500" in done.output
    assert "monkeyproof.faults.network:remove_toxic" in done.output
    assert not (Path(os.environ["MONKEYPROOF_HOME"]) / "by-hand").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["network.add_latncy"], EXIT_USAGE, "did you mean"),
        (["network.delay_closes", "delay_ms=x"], EXIT_USAGE, "delay_ms=FLOAT (milliseconds; needed)"),
        (["network.add_latency", "low_ms"], EXIT_USAGE, "is not NAME=VALUE"),
        (["network.add_latency", "low_ms=1", "low_ms=2"], EXIT_USAGE, "given twice"),
        (["noop.nothing", "--for", "soon"], EXIT_USAGE, "is not a time"),
        (["noop.nothing", "--for", "0"], EXIT_USAGE, "is not a time"),
        (["noop.nothing"], EXIT_USAGE, "the embedded target is not up"),
    ],
)
def test_wrong_usage_of_the_command(words: list[str], code: int, said: str) -> None:
    done = CliRunner().invoke(main, ["fault", *words])
    assert done.exit_code == code
    assert said in done.output


def test_help_of_a_fault_says_what_it_takes_and_what_undoes_it() -> None:
    output = CliRunner().invoke(main, ["fault", "network.add_latency", "--help"]).output
    assert "low_ms=FLOAT (milliseconds; default 0.0)" in output
    assert "link=STR (needed)" in output
    assert "share=FLOAT (of all, 0 to 1; default 1.0)" in output
    assert "Evidence: a request was held that long" in output
    assert "Undo: the proxy removes the fault" in output
    assert "network.add_latency" in CliRunner().invoke(main, ["fault", "--help"]).output


def test_units_are_those_of_the_longest_end_of_a_name() -> None:
    told = {name: unit_of(name) for name in ("rate_per_s", "kib_per_s", "most_kib", "spare_mib", "lag_s", "times")}
    assert told == {
        "rate_per_s": "a second",
        "kib_per_s": "KiB a second",
        "most_kib": "KiB",
        "spare_mib": "MiB",
        "lag_s": "seconds",
        "times": "",
    }


def test_exit_code_of_residue(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from monkeyproof.faults import noop

    monkeypatch.setattr(noop, "undo_nothing", stuck)
    done = CliRunner().invoke(main, ["fault", "noop.nothing", "--for", "0.1", "--target", str(small)])
    assert done.exit_code == EXIT_NOT_REVERTED
    assert "could not be reverted" in done.output


def test_plain_import_stays_light() -> None:
    code = "import sys, monkeyproof; print(json.dumps([m for m in ('numpy', 'pydantic') if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"import json\n{code}"], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout) == []
    with pytest.raises(AttributeError):
        _ = monkeyproof.nothing_of_that_name


def test_the_documented_block_does_what_it_says(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "manual-injection.md").read_text(encoding="utf-8")
    block = page.split("```python\n")[1].split("```")[0]
    assert "break_target" in block
    monkeypatch.chdir(small.parent)
    exec(compile(block, "docs/manual-injection.md", "exec"), {})  # noqa: S102
    said = capsys.readouterr().out.splitlines()
    assert "held for at least" in said[0]
    assert said[1] == f"['network.fail_requests on {LINK}', 'network.add_latency on {LINK}']"
    assert undo_log.open_logs() == []


def test_the_plugins_fixture_offers_manual_injection(small: Path, tmp_path: Path) -> None:
    chaos = Chaos(read_target_file(small), tmp_path / "out", "none", 3)
    with chaos.break_target() as monkey:
        monkey.inject("noop.nothing")
        assert current().seed == 3
    assert (tmp_path / "out" / "01-by-hand" / UNDO_FILE).exists()
