"""docs/extending/probe.md: its probe is added to a copy of the checkout, tested, and used in an experiment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from chaoslib.run import Runner
from chaoslib.types import Schedule, Strategy
from page_code import ROOT, CheckoutCopy, files_on
from probe_traces import SLO, letters, open_trial

from monkeyproof import probes
from monkeyproof.probes.follower import events_of
from monkeyproof.probes.recovery.measurement import measure
from monkeyproof.probes.window import ReadingsWindow
from monkeyproof.record.history import READINGS_FILE
from monkeyproof.record.readings import Readings
from monkeyproof.types import Outcome, Recovery

PAGE = "docs/extending/probe.md"
FILES = files_on(PAGE)
PROBE = "probes/latency.py"


def test_the_probe_is_one_file_beside_its_test(tmp_path: Path) -> None:
    copy = CheckoutCopy(tmp_path)
    copy.add({name: text for name, text in FILES.items() if name.endswith(".py")})
    assert set(FILES) == {PROBE, "tests/probes/test_latency.py", "short-tail.yaml"}
    assert "5 passed" in copy.run("-m", "pytest", "-q", "tests/probes/test_latency.py")


def trial(folder: Path, monkeypatch: pytest.MonkeyPatch, limit_ms: float) -> Recovery:
    """The page's experiment, run by Chaos Toolkit on answers after 10 ms."""
    (folder / "latency.py").write_text(FILES[PROBE])
    monkeypatch.setattr(probes, "__path__", [*probes.__path__, str(folder)])
    monkeypatch.delitem(sys.modules, "monkeyproof.probes.latency", raising=False)
    experiment = yaml.safe_load(FILES["short-tail.yaml"])
    experiment["steady-state-hypothesis"]["probes"][1]["provider"]["arguments"]["limit_ms"] = limit_ms
    with open_trial(folder, letters((60, "G")), allow_faults=("noop",)) as context:
        context.clock.go_to(2.0)  # type: ignore[attr-defined]
        context.watched_from_s = 0.0
        Runner(Strategy.DEFAULT, Schedule()).run(experiment, settings={})
    return measure(Readings.read(folder / READINGS_FILE), events_of(folder), SLO)


def test_the_experiment_on_the_page_is_a_valid_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = trial(tmp_path, monkeypatch, 200.0)
    assert found.outcome is Outcome.ABSORBED, found.reason


def test_the_reason_on_the_page_is_the_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = trial(tmp_path, monkeypatch, 5.0)
    assert found.outcome is Outcome.INVALID
    assert f"\n{found.reason}\n" in (ROOT / PAGE).read_text()


def test_every_part_of_the_window_is_on_the_page() -> None:
    table = (ROOT / PAGE).read_text().split("| of the window |")[1].split("\n\n")[0]
    public = {name for name in vars(ReadingsWindow) if not name.startswith("_")}
    assert all(f"`{name}`" in table for name in public)
