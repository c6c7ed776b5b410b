from __future__ import annotations

import copy
import re
import statistics
from pathlib import Path

import pytest
import yaml
from chaoslib.exceptions import InterruptExecution
from chaoslib.experiment import ensure_experiment_is_valid
from chaoslib.run import EventHandlerRegistry

from monkeyproof import control, paths
from monkeyproof.errors import Refusal
from monkeyproof.experiment import catalogue, trial_steps
from monkeyproof.experiment.activity_roles import ActivityNames
from monkeyproof.experiment.validation import activities
from monkeyproof.types import Outcome

HELD_ONLY = ("replica-kill", "kubernetes/pod-kill")


@pytest.mark.parametrize("name", catalogue.names())
def test_shipped_experiment_is_valid(name: str) -> None:
    experiment = catalogue.find(name)
    ensure_experiment_is_valid(copy.deepcopy(dict(experiment.document)))
    assert len(experiment.sha256) == 64
    functions = [activity["provider"]["func"] for _, activity in activities(experiment.document)]
    assert functions[0] == "slo_holds"
    trial = functions[functions.index("hold_until_recovered") :]
    # A one-shot fault has nothing to revert in the method, and a sham nothing to watch after.
    assert trial in [
        ["hold_until_recovered", "revert", "watch_after_revert", "revert"],
        *([["hold_until_recovered", "revert"]] if name in HELD_ONLY else []),
        *([["hold_until_recovered", "revert", "revert"]] if experiment.extension.sham else []),
    ]


def test_shipped_experiments_are_in_the_short_form() -> None:
    sizes = [len((paths.experiments() / f"{name}.yaml").read_text().splitlines()) for name in catalogue.names()]
    assert statistics.median(sizes) <= 20
    assert all(trial_steps.asks_for_steps(catalogue.document_of(name)) for name in catalogue.names())


def test_an_old_name_finds_the_experiment_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    for old, new in catalogue.RENAMED.items():
        assert old not in catalogue.names()
        assert catalogue.chosen([old]) == [new]
        assert catalogue.find(old).name == new
    words = "The experiment 'thin-line-to-the-features' is called 'feature-store-bandwidth-limit' now"
    assert words in caplog.text


@pytest.mark.parametrize("name", catalogue.names())
def test_shipped_experiment_expects_outcomes(name: str) -> None:
    expect = catalogue.find(name).extension.expect
    assert "none" in expect
    for outcomes in expect.values():
        assert outcomes
        assert Outcome.INVALID not in outcomes


def test_default_experiments() -> None:
    assert catalogue.tour() == [
        "broken-rollback",
        "corrupt-records",
        "feature-store-outage",
        "latency-spike",
        "replica-kill",
    ]
    assert catalogue.chosen([]) == catalogue.tour()
    assert catalogue.chosen(["sham", catalogue.ALL, "sham", "replica-kill"]) == ["sham", *catalogue.for_embedded()]


EXTERNAL = """
title: An external experiment
description: It kills something.
method:
- {type: action, name: kill, provider: {type: process, path: "true"}}
- {type: action, name: mend, provider: {type: process, path: "true"}}
"""


def test_an_external_fault_without_an_undo_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(EXTERNAL)
    with pytest.raises(Refusal, match=r"not injecting: .*e.yaml:4: nothing would undo 'kill' .*; add roll"):
        catalogue.find(str(file))
    for word in ("mend", "none"):
        assert catalogue.find(str(file), ActivityNames(undo=word)).extension.undo == word
        file.write_text(f"{EXTERNAL}extensions: [{{name: monkeyproof, undo: {word}}}]")
        assert catalogue.find(str(file)).extension.undo == word
        file.write_text(EXTERNAL)
    end = "{type: action, name: end, provider: {type: process, path: 'true'}}"
    file.write_text(f"{EXTERNAL}rollbacks: [{end}]")
    assert catalogue.find(str(file)).extension.undo == ""


def test_chaos_run_refuses_it_before_a_trial_opens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    document = yaml.safe_load(EXTERNAL)
    for name in ("_external", "_failure", "_session"):
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
def test_an_external_action_beside_an_own_fault_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str, provider: dict[str, str]
) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(MIXED)
    assert catalogue.find(str(file)).name == "e"  # Probes, and what else is ours, may stand beside a fault.
    document = yaml.safe_load(MIXED)
    document[section].append({"type": "action", "name": "break", "provider": provider})
    file.write_text(yaml.safe_dump(document))
    words = r"'break' is an external action beside .*; put it into an experiment of its own"
    with pytest.raises(Refusal, match=rf"not injecting: .*e\.yaml:\d+: {words}"):
        catalogue.find(str(file))
    for name in ("_external", "_failure", "_session"):
        monkeypatch.setattr(control, name, getattr(control, name))
    control.configure_control(document, EventHandlerRegistry())
    with pytest.raises(InterruptExecution, match=f"not injecting: {words}"):
        control.before_experiment_control(document)


def test_the_example_of_the_documentation_is_valid(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    file = tmp_path / "e.yaml"
    file.write_text(example)
    assert catalogue.find(str(file)).added_steps == (
        "slo-holds (as the hypothesis)",
        "hold (at_most_s 10)",
        "revert",
        "watch-after-revert (at_most_s 6)",
        "revert-whatever-is-left (as a rollback)",
    )
