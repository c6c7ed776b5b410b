"""Who injects, proves and undoes in an experiment of somebody else's."""

from __future__ import annotations

from typing import Any

import pytest

from monkeyproof.experiment.activity_roles import Named, Roles, after_injection, problems, roles_of

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
        (DOCUMENT, Named(), Roles("break", "", ("mend", "break-more"))),
        (DOCUMENT, Named("break-more", "steady", "mend"), Roles("break-more", "steady", ("mend",))),
        ({"method": [action("kill")]}, Named(), Roles("kill", "", ())),
        ({"method": [action("kill")]}, Named(undo="none"), Roles("kill", "", (), nothing_to_undo=True)),
        (DOCUMENT, Named(undo="none"), Roles("break", "", (), nothing_to_undo=True)),
        ({"method": [action("x"), action("none")]}, Named(undo="none"), Roles("x", "", ("none",))),
        ({"method": [probe("look")], "rollbacks": [action("mend")]}, Named(), None),
        ({"method": [OWN, action("break")]}, Named(), None),
        # Which would take back what calls it.
        ({"method": [action("x")], "rollbacks": [REVERTS_OURS]}, Named(), Roles("x", "", ())),
        ({"method": [{"ref": "mend"}], "rollbacks": [action("mend")]}, Named(), Roles("mend", "", ("mend",))),
    ],
)
def test_what_is_not_named_is_guessed(document: dict[str, Any], named: Named, expected: Roles | None) -> None:
    assert roles_of(document, named) == expected


@pytest.mark.parametrize(
    ("document", "named", "expected"),
    [
        (DOCUMENT, Named("break", "broken", "mend"), []),
        (DOCUMENT, Named(), []),
        (
            {"method": [action("x")], "rollbacks": [REVERTS_OURS]},
            Named(undo="revert"),
            [("undo", "'revert' takes back monkeyproof's own faults alone")],
        ),
        (
            DOCUMENT,
            Named("brake", "brocken", "mended"),
            [
                ("inject", "'brake' is not an action of the method; did you mean 'break'?"),
                ("evidence", "'brocken' is not a probe; did you mean 'broken'?"),
                ("undo", "'mended' is not an action of the method or the rollbacks; did you mean 'mend'?"),
            ],
        ),
        (
            {"method": [action("set")], "rollbacks": [action("set")]},
            Named(),
            [
                ("inject", "2 activities are named 'set'; give each a name of its own"),
                ("undo", "'set' injects; it cannot undo as well"),
            ],
        ),
        ({"method": [action("kill")]}, Named(undo="none"), []),
        (DOCUMENT, Named("break", undo="break"), [("undo", "'break' injects; it cannot undo as well")]),
        (
            {"method": [action("break"), action("break")]},
            Named("break"),
            [("inject", "2 activities are named 'break'; give each a name of its own")],
        ),
        (
            {"method": [OWN]},
            Named(evidence="x"),
            [("evidence", "this experiment's faults are monkeyproof's own, which record and prove themselves")],
        ),
        ({"method": [action("a")]}, Named(evidence="x"), [("evidence", "'x' is not a probe; there is none")]),
        (
            {"method": [probe("before"), action("burn", background=True), probe("after")]},
            Named(evidence="before"),
            [("evidence", "what proves a fault in the background has to stand after it in the method")],
        ),
        ({"method": [action("burn", background=True), probe("after")]}, Named(evidence="after"), []),
    ],
)
def test_names_that_cannot_be(document: dict[str, Any], named: Named, expected: list[tuple[str, str]]) -> None:
    assert list(problems(document, named)) == expected


def test_what_stands_after_the_injection() -> None:
    assert after_injection(DOCUMENT, Named("break")) == ["break-more", "broken"]
    assert after_injection(DOCUMENT, Named()) == ["break-more", "broken"]


def test_the_command_line_goes_before_the_file() -> None:
    assert Named("a").over(Named("b", "c")) == Named("a", "c")
