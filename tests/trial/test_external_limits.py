"""What could wait for ever, with a fault in place, does not."""

from __future__ import annotations

from typing import Any

from monkeyproof.experiment.activity_roles import ActivityNames, roles_of
from monkeyproof.faults.actions.external import ANSWER_WITHIN_S, EVIDENCE_WITHIN_S, UNDO_WITHIN_S, set_limits


def activity(name: str, provider: str, kind: str = "action", **more: Any) -> dict[str, Any]:
    return {"type": kind, "name": name, "provider": {"type": provider, **more}}


def test_default_timeouts_of_external_activities() -> None:
    document = {
        "method": [
            activity("break", "process"),
            activity("ask", "http", "probe"),
            activity("proof", "process", "probe"),
            activity("mine", "http", "probe", timeout=[1, 2]),
            {"ref": "ask"},
        ],
        "rollbacks": [activity("mend", "process"), activity("look", "python")],
    }
    roles = roles_of(document, ActivityNames("break", "proof"))
    assert roles is not None
    set_limits(document, roles)
    found = {
        one["name"]: one["provider"].get("timeout")
        for section in document.values()
        for one in section
        if "name" in one
    }
    assert found == {
        "break": None,
        "ask": ANSWER_WITHIN_S,
        "proof": EVIDENCE_WITHIN_S,
        "mine": [1, 2],
        "mend": UNDO_WITHIN_S,
        "look": None,
    }
