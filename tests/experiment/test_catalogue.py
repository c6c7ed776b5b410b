from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml
from chaoslib.exceptions import InterruptExecution
from chaoslib.experiment import ensure_experiment_is_valid
from chaoslib.run import EventHandlerRegistry

from monkeyproof import control
from monkeyproof.errors import Refusal
from monkeyproof.experiment import catalogue
from monkeyproof.experiment.activity_roles import Named
from monkeyproof.experiment.validation import activities
from monkeyproof.types import Outcome


@pytest.mark.parametrize("name", catalogue.names())
def test_shipped_experiment_is_valid(name: str) -> None:
    experiment = catalogue.find(name)
    ensure_experiment_is_valid(copy.deepcopy(dict(experiment.document)))
    assert len(experiment.sha256) == 64
    functions = [activity["provider"]["func"] for _, activity in activities(experiment.document)]
    assert functions[0] == "slo_holds"
    assert "hold_until_recovered" in functions
    # The last word of every experiment is to take back whatever is left.
    assert functions[-1] == "revert"


@pytest.mark.parametrize("name", catalogue.names())
def test_every_arm_has_an_expectation(name: str) -> None:
    expect = catalogue.find(name).extension.expect
    assert "none" in expect
    for outcomes in expect.values():
        assert outcomes
        assert Outcome.INVALID not in outcomes


def test_what_runs_by_default() -> None:
    assert catalogue.tour() == [
        "broken-rollback",
        "corrupt-records",
        "feature-store-outage",
        "latency-spike",
        "replica-kill",
    ]
    assert catalogue.chosen([]) == catalogue.tour()
    assert catalogue.chosen(["sham", catalogue.ALL, "sham", "replica-kill"]) == ["sham", *catalogue.for_embedded()]


STRANGERS = """
title: A stranger's
description: It kills something.
method:
- {type: action, name: kill, provider: {type: process, path: "true"}}
- {type: action, name: mend, provider: {type: process, path: "true"}}
"""


def test_what_nothing_would_undo_is_refused_unless_its_author_says_that_there_is_nothing(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(STRANGERS)
    with pytest.raises(Refusal, match=r"not injecting: .*e.yaml:4: nothing would undo 'kill' .*; add roll"):
        catalogue.find(str(file))
    for word in ("mend", "none"):
        assert catalogue.find(str(file), Named(undo=word)).extension.undo == word
        file.write_text(f"{STRANGERS}extensions: [{{name: monkeyproof, undo: {word}}}]")
        assert catalogue.find(str(file)).extension.undo == word
        file.write_text(STRANGERS)
    end = "{type: action, name: end, provider: {type: process, path: 'true'}}"
    file.write_text(f"{STRANGERS}rollbacks: [{end}]")
    assert catalogue.find(str(file)).extension.undo == ""


def test_plain_chaos_toolkit_is_refused_it_before_anything_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    document = yaml.safe_load(STRANGERS)
    for name in ("_foreign", "_refused", "_open"):
        monkeypatch.setattr(control, name, getattr(control, name))
    control.configure_control(document, EventHandlerRegistry())
    monkeypatch.setenv("MONKEYPROOF_TARGET", "/nowhere/target.yaml")
    with pytest.raises(InterruptExecution, match="not injecting: nothing would undo 'kill'"):
        control.before_experiment_control(document)
    document["extensions"] = [{"name": "monkeyproof", "undo": "none"}]
    control.configure_control(document, EventHandlerRegistry())
    with pytest.raises(InterruptExecution, match=r"/nowhere/target\.yaml"):
        control.before_experiment_control(document)


MIXED = """title: x
description: x
method:
- {type: action, name: ours, provider: {type: python, module: monkeyproof.faults.noop, func: nothing}}
- {type: probe, name: look, provider: {type: process, path: "true"}}
rollbacks:
- {type: action, name: revert, provider: {type: python, module: monkeyproof.injection, func: revert}}
"""


@pytest.mark.parametrize("section", ["method", "rollbacks"])
@pytest.mark.parametrize(
    "provider",
    [
        {"type": "process", "path": "true"},
        {"type": "http", "url": "http://127.0.0.1:9/", "module": "monkeyproof.faults.noop"},
        {"type": "python", "module": "os", "func": "sync"},
    ],
)
def test_an_action_of_somebody_elses_does_not_hide_behind_a_fault_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str, provider: dict[str, str]
) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(MIXED)
    assert catalogue.find(str(file)).name == "e"  # Probes, and what else is ours, may stand beside a fault.
    document = yaml.safe_load(MIXED)
    document[section].append({"type": "action", "name": "break", "provider": provider})
    file.write_text(yaml.safe_dump(document))
    words = r"'break' is no action of monkeyproof's, .*; put it into an experiment of its own"
    with pytest.raises(Refusal, match=rf"not injecting: .*e\.yaml:\d+: {words}"):
        catalogue.find(str(file))
    for name in ("_foreign", "_refused", "_open"):
        monkeypatch.setattr(control, name, getattr(control, name))
    control.configure_control(document, EventHandlerRegistry())
    with pytest.raises(InterruptExecution, match=f"not injecting: {words}"):
        control.before_experiment_control(document)
