"""The table of faults is made from the code, and every fault in it can be used."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path

import pytest

from monkeyproof.cli import fault_list
from monkeyproof.errors import UsageError
from monkeyproof.experiment import catalogue
from monkeyproof.injection import fault_registry
from monkeyproof.types import Json

DOCS = Path(__file__).parents[2] / "docs" / "faults.md"
FAULTS = fault_registry.all_faults()
shown = functools.cache(fault_list.experiments_by_fault)


def test_the_documented_table_matches_the_code() -> None:
    begin, end = "<!-- monkeyproof list --faults --markdown -->\n", "<!-- end -->"
    table = DOCS.read_text(encoding="utf-8").partition(begin)[2].partition(end)[0]
    assert table == fault_list.as_markdown(), (
        f"{DOCS}: put 'monkeyproof list --faults --markdown' between its marks"
    )


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.name)
def test_a_fault_is_found_by_name_and_explains_itself(fault: fault_registry.Fault) -> None:
    assert fault_registry.find(fault.name) is fault
    module, function = fault.key
    assert getattr(__import__(module, fromlist=["_"]), function) is fault.function
    assert fault.summary.endswith(".")
    for words in (fault.evidence, fault.undo, fault.healing):
        assert words
        assert words == words.strip(" .")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.name)
def test_every_parameter_is_plain_and_has_a_type(fault: fault_registry.Fault) -> None:
    """They are written in YAML and on command lines."""
    for one in fault.parameters:
        assert one.kind in ("str", "float", "int", "bool", "str | None", "float | None", "list[str]"), one
    assert not any(one.kind is one.VAR_KEYWORD for one in inspect.signature(fault.function).parameters.values())


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.name)
def test_every_fault_is_shown_by_an_experiment(fault: fault_registry.Fault) -> None:
    assert shown().get(fault.name), "no experiment of the catalogue injects it"


def test_an_unknown_fault_is_refused_with_a_suggestion() -> None:
    with pytest.raises(
        UsageError, match=r"no fault 'network\.add_latencies': did you mean 'network\.add_latency'"
    ):
        fault_registry.find("network.add_latencies")


WAITING = """
title: A second fault
description: It waits for the healer.
method:
- type: action
  name: second
  provider:
    type: python
    module: monkeyproof.faults.compound
    func: when_seen
    arguments: {arguments}
"""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("{event: healer.acting, fault: noop.nothing, arguments: {}, within_s: 2.0}", ""),
        ("{event: healer.acting, fault: noop.nothin, arguments: {}, within_s: 2.0}", "no fault 'noop.nothin'"),
        ("{event: healer.acting, fault: noop.nothing, arguments: {x: 1}, within_s: 2.0}", "takes no argument 'x'"),
        ("{event: healer.acting, fault: network.hang, arguments: {}, within_s: 2.0}", "needs the argument 'link'"),
        ("{event: healer.acting, fault: noop.nothing, within_s: 2.0}", "needs the argument 'arguments'"),
    ],
)
def test_a_waiting_fault_is_checked_before_the_trial(tmp_path: Path, arguments: Json, words: str) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(WAITING.replace("{arguments}", arguments))
    if not words:
        assert [one.name for one in fault_registry.faults_in(catalogue.read(file, "e").document)] == [
            "noop.nothing"
        ]
        return
    with pytest.raises(UsageError) as told:
        catalogue.read(file, "e")
    assert words in str(told.value)
    assert str(told.value).startswith(f"{file}:11: ")
