"""A storm is ridden by its times, and goes on over what cannot be injected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fault_world import World

from monkeyproof.clock import Anchor, ManualClock
from monkeyproof.config.target_file import Predict, TargetFile
from monkeyproof.errors import NotReverted, Refusal, UsageError
from monkeyproof.faults import noop
from monkeyproof.faults.actions import schedule
from monkeyproof.injection.fault_registry import Fault
from monkeyproof.injection.inject import Context, Injection, current, inject, set_current
from monkeyproof.record.history import HistoryWriter, Kind, events_in
from monkeyproof.trial.cleanup import record_missing_faults
from monkeyproof.types import Evidence, Json
from monkeyproof.undo.log import Undo, UndoLog

UNDO = Undo("monkeyproof.faults.noop:undo_nothing", {})


def held(name: str) -> dict[str, Json]:
    return inject(Injection("noop.nothing", name, {}, lambda: None, lambda _: Evidence("seen"), UNDO))


def at_once(name: str) -> dict[str, Json]:
    injection = Injection("noop.nothing", name, {}, lambda: None, lambda _: Evidence("seen"), None)
    return inject(replace(injection, one_shot="it is over at once"))


def unproven(name: str) -> dict[str, Json]:
    return inject(Injection("noop.nothing", name, {}, lambda: None, lambda _: None, UNDO, evidence_within_s=1.0))


def very_slow_to_prove(name: str) -> dict[str, Json]:
    return inject(Injection("noop.nothing", name, {}, lambda: None, lambda _: None, UNDO, evidence_within_s=99.0))


def refused(name: str) -> dict[str, Json]:
    raise Refusal(f"{name} may not be broken", "leave it")


def broken(name: str) -> dict[str, Json]:
    raise ConnectionRefusedError(name)


KINDS: dict[str, Callable[[str], dict[str, Json]]] = {
    one.__name__: one for one in (held, at_once, unproven, very_slow_to_prove, refused, broken)
}


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    """A trial whose clock moves by waiting only, and faults of every kind: ``noop.held`` and so on."""
    monkeypatch.setattr(
        schedule, "find", lambda name: Fault(name, KINDS[name.partition(".")[2]], (), "", "", "", None)
    )
    file = TargetFile("t", Predict("http://127.0.0.1:1/", Path("g")), allow_faults=("noop",), path=tmp_path / "t")
    clock = ManualClock()
    writer, log = HistoryWriter(tmp_path, Anchor(0.0, ""), "trial", clock), UndoLog(tmp_path / "log.jsonl")
    one = Context(tmp_path, World(file), writer, log, 5, "none", clock)
    set_current(one)
    yield one
    set_current(None)
    writer.close()
    log.close()


def fault(start_s: float, duration_s: float, kind: str, name: str, seed: int = 0) -> dict[str, Any]:
    return {
        "start_s": start_s,
        "duration_s": duration_s,
        "fault": f"noop.{kind}",
        "arguments": {"name": name},
        "seed": seed,
    }


def times(folder: Path, kind: Kind) -> dict[str, float]:
    return {event.subject: round(event.t_s, 1) for event in events_in(folder) if event.kind is kind}


def test_each_fault_has_its_own_beginning_and_end(context: Context) -> None:
    found = schedule.run_schedule(
        [fault(2, 3, "held", "b"), fault(1, 6, "held", "a"), fault(3, 2, "at_once", "c")]
    )
    assert found == {"injected": 3, "refused": 0, "unproven": 0}
    assert times(context.folder, Kind.FAULT_EFFECTIVE) == {"a": 1.0, "b": 2.0, "c": 3.0}
    assert times(context.folder, Kind.FAULT_REVERTED) == {"b": 5.0, "a": 7.0}
    assert context.undo.open_faults() == []
    assert times(context.folder, Kind.PHASE_STARTED)["storm"] == 0.0
    assert times(context.folder, Kind.PHASE_ENDED)["storm"] == 7.0


def test_what_does_not_come_about_is_on_record_and_the_storm_goes_on(context: Context) -> None:
    found = schedule.run_schedule(
        [
            fault(0, 9, "held", "a"),
            fault(1, 2, "refused", "b"),
            fault(2, 2, "broken", "c"),
            fault(3, 4, "unproven", "d"),
            fault(4, 2, "very_slow_to_prove", "f"),
            fault(7, 2, "held", "e"),
        ]
    )
    assert found == {"injected": 2, "refused": 2, "unproven": 2}
    said = [e for e in events_in(context.folder) if e.kind in (Kind.FAULT_REFUSED, Kind.FAULT_UNPROVEN)]
    assert [event.data["why"].split(":")[0] for event in said[:2]] == ["not injecting", "c"]
    assert said[0].data["parameters"] == {"name": "b"}
    assert "no evidence" in said[2].data["why"]
    # No longer than it is wanted is a proof waited for.
    assert times(context.folder, Kind.FAULT_REVERTED) == {"d": 4.0, "f": 6.0, "e": 9.0, "a": 9.0}


def test_a_fault_whose_time_is_over_before_its_turn_comes_is_not_injected(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(name: str) -> dict[str, Json]:
        context.clock.sleep_s(5.0)
        return held(name)

    monkeypatch.setitem(KINDS, "slow", slow)
    found = schedule.run_schedule([fault(0, 6, "slow", "a"), fault(1, 2, "held", "b"), fault(2, 4, "held", "c")])
    assert found == {"injected": 2, "refused": 1, "unproven": 0}
    assert times(context.folder, Kind.FAULT_EFFECTIVE) == {"a": 5.0, "c": 5.0}
    assert times(context.folder, Kind.FAULT_REVERTED) == {"a": 6.0, "c": 6.0}


def test_a_fault_that_ended_before_its_time_is_on_record_once(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(name: str) -> dict[str, Json]:
        look = Injection("noop.nothing", name, {}, lambda: None, lambda _: Evidence("seen"), UNDO)
        return inject(replace(look, why_ended=lambda: "another process ended it"))

    monkeypatch.setitem(KINDS, "lost", lost)
    context.before_revert = lambda: record_missing_faults(context)
    schedule.run_schedule([fault(0, 5, "lost", "a"), *(fault(0, 1 + n, "held", f"b{n}") for n in range(3))])
    # A healer's act makes no difference here: under a storm it heals nothing.
    context.history.event(Kind.HEALER_ACTED, "c", remedy="restart", ok=True, summary="")
    schedule.run_schedule([fault(0, 2, "lost", "c")])
    taken = [one.subject for one in events_in(context.folder) if one.kind is Kind.FAULT_ENDED_EARLY]
    assert taken == ["a", "c"]
    assert context.undo.open_faults() == []


def test_each_fault_draws_from_its_own_seed(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def draws(name: str) -> dict[str, Json]:
        drawn.append(int(current().rng("x").integers(1000)))
        return at_once(name)

    monkeypatch.setitem(KINDS, "draws", draws)
    schedule.run_schedule([fault(0, 2, "draws", "a", seed=1), fault(3, 2, "draws", "a", seed=2)])
    schedule.run_schedule([fault(0, 2, "draws", "a", seed=2)])
    assert drawn[1] == drawn[2] != drawn[0]
    assert context.seed == 5


def test_it_ends_where_the_trial_cannot_be_judged_any_more(context: Context) -> None:
    context.why_blind = lambda: "the prober died" if context.history.now_s() > 2.5 else ""
    schedule.run_schedule([fault(0, 9, "held", "a"), fault(4, 9, "held", "b")])
    assert times(context.folder, Kind.FAULT_EFFECTIVE) == {"a": 0.0}
    assert context.undo.open_faults() == []
    ended = [e for e in events_in(context.folder) if (e.kind, e.subject) == (Kind.PHASE_ENDED, "storm")]
    assert ended[0].data["why"] == "the prober died"


def test_a_failed_revert_ends_the_schedule(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(target: object) -> str:  # noqa: ARG001
        raise OSError("it is stuck")

    monkeypatch.setattr(noop, "undo_nothing", stuck)
    with pytest.raises(NotReverted, match="it is stuck"):
        schedule.run_schedule([fault(0, 2, "held", "a"), fault(3, 2, "held", "b")])
    assert list(times(context.folder, Kind.FAULT_INTENDED)) == ["a"]
    assert [one.subject for one in context.undo.open_faults()] == ["a"]


def test_a_plan_of_it_waits_for_nothing(context: Context) -> None:
    context.planned = []
    schedule.run_schedule([fault(1, 6, "held", "a"), fault(50, 6, "refused", "b"), fault(90, 6, "held", "c")])
    assert [one.subject for one in context.planned] == ["a", "c"]
    assert "may not be broken" in context.limit_checks[0]
    assert context.clock.monotonic_s() == 0.0
    assert events_in(context.folder) == []


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ([{"fault": "noop.held"}], "faults: 0.start_s"),
        ([fault(-1, 2, "held", "a")], "faults: 0.start_s"),
        ([fault(0, 2, "held", "a") | {"arguments": {"nom": "a"}}], "takes no 'nom'"),
        ([fault(0, 2, "held", "a") | {"arguments": {"name": 3}}], "name: Input should be"),
    ],
)
def test_a_storm_that_is_written_wrong_injects_nothing(
    context: Context, faults: list[dict[str, Json]], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        schedule.run_schedule(faults)
    assert events_in(context.folder) == []
