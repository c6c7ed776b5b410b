"""Which activities of an external experiment inject, prove and undo."""

from __future__ import annotations

from typing import Any

import pytest

from monkeyproof.experiment.activity_roles import (
    ActivityNames,
    ActivityRoles,
    after_injection,
    naming_problems,
    roles_of,
)

PROCESS = {"type": "process", "path": "true"}


def action(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "action", "name": name, "provider": PROCESS, **more}


def probe(name: str) -> dict[str, Any]:
    return {"type": "probe", "name": name, "provider": PROCESS}


OWN = {
    "type": "action",
    "name": "own",
    "provider": {"type": "python", "module": "monkeyproof.faults.noop", "func": "x"},
}
REVERTS_OURS = OWN | {
    "name": "revert",
    "provider": {"type": "python", "module": "monkeyproof.injection", "func": "revert"},
}
DOCUMENT = {
    "steady-state-hypothesis": {"title": "t", "probes": [probe("steady")]},
    "method": [probe("look"), action("break"), action("break-more"), probe("broken")],
    "rollbacks": [action("mend"), probe("mended"), {"ref": "break-more"}],
}


@pytest.mark.parametrize(
    ("document", "named", "expected"),
    [
        (DOCUMENT, ActivityNames(), ActivityRoles("break", "", ("mend", "break-more"))),
        (
            DOCUMENT,
            ActivityNames("break-more", "steady", "mend"),
            ActivityRoles("break-more", "steady", ("mend",)),
        ),
        ({"method": [action("kill")]}, ActivityNames(), ActivityRoles("kill", "", ())),
        (
            {"method": [action("kill")]},
            ActivityNames(undo="none"),
            ActivityRoles("kill", "", (), nothing_to_undo=True),
        ),
        (DOCUMENT, ActivityNames(undo="none"), ActivityRoles("break", "", (), nothing_to_undo=True)),
        ({"method": [action("x"), action("none")]}, ActivityNames(undo="none"), ActivityRoles("x", "", ("none",))),
        ({"method": [probe("look")], "rollbacks": [action("mend")]}, ActivityNames(), None),
        ({"method": [OWN, action("break")]}, ActivityNames(), None),
        # It would call itself.
        ({"method": [action("x")], "rollbacks": [REVERTS_OURS]}, ActivityNames(), ActivityRoles("x", "", ())),
        (
            {"method": [{"ref": "mend"}], "rollbacks": [action("mend")]},
            ActivityNames(),
            ActivityRoles("mend", "", ("mend",)),
        ),
    ],
)
def test_roles_and_their_defaults(
    document: dict[str, Any], named: ActivityNames, expected: ActivityRoles | None
) -> None:
    assert roles_of(document, named) == expected


@pytest.mark.parametrize(
    ("document", "named", "expected"),
    [
        (DOCUMENT, ActivityNames("break", "broken", "mend"), []),
        (DOCUMENT, ActivityNames(), []),
        (
            {"method": [action("x")], "rollbacks": [REVERTS_OURS]},
            ActivityNames(undo="revert"),
            [("undo", "'revert' reverts only monkeyproof's own faults")],
        ),
        (
            DOCUMENT,
            ActivityNames("brake", "brocken", "mended"),
            [
                ("inject", "'brake' is not an action of the method; did you mean 'break'?"),
                ("evidence", "'brocken' is not a probe; did you mean 'broken'?"),
                ("undo", "'mended' is not an action of the method or the rollbacks; did you mean 'mend'?"),
            ],
        ),
        (
            {"method": [action("set")], "rollbacks": [action("set")]},
            ActivityNames(),
            [
                ("inject", "2 activities are named 'set'; give each a name of its own"),
                ("undo", "'set' injects; it cannot undo as well"),
            ],
        ),
        ({"method": [action("kill")]}, ActivityNames(undo="none"), []),
        (DOCUMENT, ActivityNames("break", undo="break"), [("undo", "'break' injects; it cannot undo as well")]),
        (
            {"method": [action("break"), action("break")]},
            ActivityNames("break"),
            [("inject", "2 activities are named 'break'; give each a name of its own")],
        ),
        (
            {"method": [OWN]},
            ActivityNames(evidence="x"),
            [("evidence", "this experiment's faults are monkeyproof's own, which record and prove themselves")],
        ),
        (
            {"method": [action("a")]},
            ActivityNames(evidence="x"),
            [("evidence", "'x' is not a probe; there is none")],
        ),
        (
            {"method": [probe("before"), action("burn", background=True), probe("after")]},
            ActivityNames(evidence="before"),
            [("evidence", "the probe that proves a fault in the background must follow it in the method")],
        ),
        ({"method": [action("burn", background=True), probe("after")]}, ActivityNames(evidence="after"), []),
    ],
)
def test_wrong_names_are_reported(
    document: dict[str, Any], named: ActivityNames, expected: list[tuple[str, str]]
) -> None:
    assert list(naming_problems(document, named)) == expected


def test_activities_after_the_injection() -> None:
    assert after_injection(DOCUMENT, ActivityNames("break")) == ["break-more", "broken"]
    assert after_injection(DOCUMENT, ActivityNames()) == ["break-more", "broken"]


def test_the_command_line_takes_precedence_over_the_file() -> None:
    assert ActivityNames("a").with_defaults(ActivityNames("b", "c")) == ActivityNames("a", "c")
