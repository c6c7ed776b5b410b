"""A hypothesis with a probe beside ``slo_holds``, run by Chaos Toolkit on readings that appear as time passes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from chaoslib.run import Runner
from chaoslib.types import Schedule, Strategy
from probe_traces import SLO, letters, open_trial

from monkeyproof.probes.follower import events_of
from monkeyproof.probes.recovery.measurement import measure
from monkeyproof.record.history import READINGS_FILE, Kind
from monkeyproof.record.readings import Readings
from monkeyproof.types import Json, Outcome

SLO_HOLDS = ("monkeyproof.probes.steady_state", "slo_holds")
EXTRA = ("extra_probes", "extra")


def activity(kind: str, module: str, function: str, **keys: Json) -> dict[str, Json]:
    return {
        "type": kind,
        "name": function,
        "provider": {"type": "python", "module": module, "func": function},
        **keys,
    }


def experiment(*probes: tuple[str, str]) -> dict[str, Json]:
    return {
        "title": "t",
        "description": "d",
        "controls": [{"name": "monkeyproof", "provider": {"type": "python", "module": "monkeyproof.control"}}],
        "steady-state-hypothesis": {
            "title": "steady",
            "probes": [activity("probe", *one, tolerance=True) for one in probes],
        },
        "method": [
            activity("action", "monkeyproof.faults.noop", "nothing"),
            activity("probe", "monkeyproof.probes.watch", "hold_until_recovered"),
            activity("action", "monkeyproof.injection", "revert"),
        ],
    }


def run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, extra: Any, *probes: tuple[str, str]
) -> tuple[Outcome, str]:
    """Run the experiment with Chaos Toolkit; returns what the trial's readings and events say of it."""
    module = ModuleType(EXTRA[0])
    monkeypatch.setitem(sys.modules, EXTRA[0], module)
    monkeypatch.setattr(module, EXTRA[1], extra, raising=False)
    with open_trial(folder, letters((60, "G")), allow_faults=("noop",)) as context:
        context.clock.go_to(2.0)  # type: ignore[attr-defined]
        context.watched_from_s = 0.0
        Runner(Strategy.DEFAULT, Schedule()).run(experiment(*probes), settings={})
    recovery = measure(Readings.read(folder / READINGS_FILE), events_of(folder), SLO)
    return recovery.outcome, recovery.reason


def holds() -> bool:
    return True


def violated() -> bool:
    return False


def raises() -> bool:
    raise ValueError("no such metric")


@pytest.mark.parametrize("probes", [(SLO_HOLDS, EXTRA), (EXTRA, SLO_HOLDS)])
def test_a_hypothesis_of_two_probes_that_hold_is_a_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probes: tuple[tuple[str, str], ...]
) -> None:
    outcome, reason = run(tmp_path, monkeypatch, holds, *probes)
    assert outcome is Outcome.ABSORBED, reason
    assert not [event for event in events_of(tmp_path) if event.kind is Kind.BASELINE_MISSED]


@pytest.mark.parametrize("probes", [(SLO_HOLDS, EXTRA), (EXTRA, SLO_HOLDS)])
@pytest.mark.parametrize(
    ("extra", "why"),
    [
        (violated, "it returned False, and its tolerance is True"),
        (raises, "it failed (ValueError: no such metric)"),
    ],
)
def test_a_violated_probe_is_the_reason_of_an_invalid_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: Any, why: str, probes: tuple[tuple[str, str], ...]
) -> None:
    outcome, reason = run(tmp_path, monkeypatch, extra, *probes)
    assert outcome is Outcome.INVALID
    assert "no fault was injected, for the baseline was not met" in reason
    assert "the experiment's own steady-state probe 'extra' did not hold" in reason
    assert why in reason
    kinds = [event.kind for event in events_of(tmp_path)]
    assert kinds.count(Kind.BASELINE_MISSED) == 1, "the control and the trial record it once"
    assert Kind.FAULT_INTENDED not in kinds


def test_a_probe_that_fails_afterwards_leaves_the_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([True, False])
    outcome, _ = run(tmp_path, monkeypatch, lambda: next(answers), SLO_HOLDS, EXTRA)
    assert outcome is Outcome.ABSORBED
    assert not [event for event in events_of(tmp_path) if event.kind is Kind.BASELINE_MISSED]
