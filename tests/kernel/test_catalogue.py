from __future__ import annotations

import copy

import pytest
from chaoslib.experiment import ensure_experiment_is_valid

from monkeyproof import catalogue
from monkeyproof.checks import activities
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
    assert catalogue.default_names() == [
        "broken-rollback",
        "corrupt-records",
        "feature-store-outage",
        "latency-spike",
        "replica-kill",
    ]
