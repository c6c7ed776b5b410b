"""The short form of an experiment: which steps it adds, what it leaves alone, and what it refuses."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from chaoslib.exceptions import InterruptExecution
from chaoslib.experiment import ensure_experiment_is_valid, run_experiment

from monkeyproof import control
from monkeyproof.errors import UsageError
from monkeyproof.experiment import catalogue
from monkeyproof.experiment.trial_steps import asks_for_steps, expand, short_form_problems

SHORT = """\
title: A short experiment
description: It breaks nothing.
controls: [{name: monkeyproof, provider: {type: python, module: monkeyproof.control}}]
method:
  - {type: action, name: do-nothing, provider: {type: python, module: monkeyproof.faults.noop, func: nothing}}
extensions:
  - name: other
  - name: monkeyproof
    trial: {}
    expect: {none: [absorbed]}
"""
LONG = """\
title: A short experiment
description: It breaks nothing.
controls: [{name: monkeyproof, provider: {type: python, module: monkeyproof.control}}]
steady-state-hypothesis:
  title: Answers are there, fast and right
  probes:
    - type: probe
      name: slo-holds
      tolerance: true
      provider: {type: python, module: monkeyproof.probes.steady_state, func: slo_holds}
method:
  - {type: action, name: do-nothing, provider: {type: python, module: monkeyproof.faults.noop, func: nothing}}
  - type: probe
    name: hold
    provider: {type: python, module: monkeyproof.probes.watch, func: hold_until_recovered}
  - type: action
    name: revert
    provider: {type: python, module: monkeyproof.injection, func: revert}
  - type: probe
    name: watch-after-revert
    provider: {type: python, module: monkeyproof.probes.watch, func: watch_after_revert}
rollbacks:
  - type: action
    name: revert-whatever-is-left
    provider: {type: python, module: monkeyproof.injection, func: revert}
extensions:
  - name: other
  - name: monkeyproof
    expect: {none: [absorbed]}
"""
FAULT = {"type": "python", "module": "monkeyproof.faults.noop", "func": "nothing"}


def short(trial: Any = None, **more: Any) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(SHORT) | more
    document["extensions"][1]["trial"] = {} if trial is None else trial
    return document


def names(document: dict[str, Any], section: str) -> list[str]:
    return [one["name"] for one in document[section]]


def test_it_expands_to_the_long_form() -> None:
    written = short()
    before = copy.deepcopy(written)
    expanded = expand(written)
    assert expanded.document == yaml.safe_load(LONG)
    assert written == before
    assert expanded.added_steps == (
        "slo-holds (as the hypothesis)",
        "hold",
        "revert",
        "watch-after-revert",
        "revert-whatever-is-left (as a rollback)",
    )


def test_a_long_experiment_stays_as_it_is() -> None:
    long = yaml.safe_load(LONG)
    assert not asks_for_steps(long)
    assert expand(long).document is long
    assert expand(long).added_steps == ()
    # Also one that does without any of the steps: nothing is added that its author did not ask for.
    bare = short()
    del bare["extensions"]
    assert expand(bare).document is bare


def test_arguments_and_steps_that_are_left_out() -> None:
    given = expand(short({"hold": {"at_least_s": 4.0, "at_most_s": 8.5}, "watch": {"at_most_s": "${most}"}}))
    assert [one["provider"].get("arguments") for one in given.document["method"]] == [
        None,
        {"at_least_s": 4.0, "at_most_s": 8.5},
        None,
        {"at_most_s": "${most}"},
    ]
    assert given.added_steps[1] == "hold (at_least_s 4, at_most_s 8.5)"
    assert names(expand(short({"hold": False})).document, "method") == [
        "do-nothing",
        "revert",
        "watch-after-revert",
    ]
    assert names(expand(short({"revert": False})).document, "method") == ["do-nothing", "hold"]
    assert names(expand(short({"watch": False})).document, "method") == ["do-nothing", "hold", "revert"]


def test_what_the_file_has_already_is_kept() -> None:
    own = {"title": "Ours", "probes": [{"type": "probe", "name": "ours", "tolerance": True, "provider": FAULT}]}
    mend = {"type": "action", "name": "mend", "provider": FAULT}
    revert = {
        "type": "action",
        "name": "r",
        "provider": {"type": "python", "module": "monkeyproof.injection", "func": "revert"},
    }
    expanded = expand(short(**{"steady-state-hypothesis": own, "rollbacks": [mend]})).document
    assert expanded["steady-state-hypothesis"] == own
    assert names(expanded, "rollbacks") == ["mend", "revert-whatever-is-left"]
    assert names(expand(short(rollbacks=[revert, mend])).document, "rollbacks") == ["r", "mend"]


@pytest.mark.parametrize(
    ("trial", "words"),
    [
        ("yes", "trial: not a mapping; 'trial: {}' adds every step with its defaults"),
        ({"hlod": {}}, "'hlod': no step of a trial; did you mean 'hold'?"),
        ({1: {}}, "1: no step of a trial; the steps are: hold, revert, watch"),
        ({"hold": 8.0}, "hold: neither a mapping of arguments nor false"),
        ({"watch": True}, "watch: neither a mapping of arguments nor false"),
        ({"revert": {}}, "revert: neither true nor false"),
        ({"revert": False, "watch": {}}, "watch: without a revert there is nothing to watch after"),
    ],
)
def test_what_cannot_be_asked_for(trial: Any, words: str) -> None:
    assert [problem[1] for problem in short_form_problems(short(trial))] == [words]


def test_steps_that_the_method_has_and_external_faults_are_refused() -> None:
    long = yaml.safe_load(LONG)
    long["extensions"][1]["trial"] = {}
    ((place, words),) = short_form_problems(long)
    assert place == ("extensions", 1, "trial")
    assert "the method calls hold_until_recovered itself; leave out trial" in words
    kill = {"type": "action", "name": "kill", "provider": {"type": "process", "path": "true"}}
    ((_, words),) = short_form_problems(short(method=[kill]))
    assert "the method injects no fault of monkeyproof's" in words


@pytest.mark.parametrize(
    ("trial", "line", "words"),
    [
        ("{hold: {at_most: 3.0}}", 9, "hold_until_recovered takes no argument 'at_most'"),
        ("\n      watch:\n        at_most_s: soon", 11, "at_most_s: "),
        ("\n      hold: {}\n      wtach: {}", 11, "'wtach': no step of a trial; did you mean 'watch'?"),
    ],
)
def test_errors_name_the_line_of_the_short_form(tmp_path: Path, trial: str, line: int, words: str) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(SHORT.replace("trial: {}", f"trial: {trial}"))
    with pytest.raises(UsageError, match=rf"e\.yaml:{line}: {words}") as raised:
        catalogue.find(str(file))
    assert "\n" not in str(raised.value)


def test_chaos_toolkit_accepts_it_and_runs_the_expanded_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_external", "_failure", "_session"):
        monkeypatch.setattr(control, name, getattr(control, name))
    monkeypatch.setattr(control, "before_experiment_control", lambda **_: None)
    document = short({"hold": {"at_most_s": 5.0}})
    ensure_experiment_is_valid(copy.deepcopy(document))
    journal = run_experiment(document)
    # No trial is open, so the added hypothesis does not hold, and that is on record with the added steps.
    assert journal["steady_states"]["before"]["steady_state_met"] is False
    expected = expand(short({"hold": {"at_most_s": 5.0}})).document
    assert names(journal["experiment"], "method") == names(expected, "method")
    assert names(journal["experiment"], "rollbacks") == ["revert-whatever-is-left"]
    assert journal["experiment"]["extensions"] == expected["extensions"]


def test_chaos_run_refuses_a_short_form_that_it_does_not_understand(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_external", "_failure", "_session"):
        monkeypatch.setattr(control, name, getattr(control, name))
    document = short({"hodl": {}})
    journal = run_experiment(copy.deepcopy(document))
    assert journal["status"] == "interrupted"
    assert journal["run"] == []
    with pytest.raises(InterruptExecution, match="'hodl': no step of a trial; did you mean 'hold'"):
        control.before_experiment_control(document)
