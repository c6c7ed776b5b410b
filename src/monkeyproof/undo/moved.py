"""Undo functions that have another name now than in the undo logs of earlier versions.

An undo log names the function that undoes a fault, and outlives the version that wrote it: after an upgrade,
``monkeyproof revert`` must still revert the open faults. So each undo function that is renamed or moved, and each
argument of one that is renamed, gets a line in ``MOVED``; lines stay for as long as a log of that version can be
open. ``tests/undo/test_moved.py`` replays a log that version 0.1.0 wrote, with every undo function that it had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from monkeyproof.types import Json


@dataclass(frozen=True, slots=True)
class Moved:
    """Where an undo function is now."""

    to: str
    """``module:function``, which exists: where a function moves twice, the first line is changed, too."""
    arguments: Mapping[str, str] = field(default_factory=dict)
    """Names of arguments that changed: old to new."""


MOVED: Mapping[str, Moved] = {
    # Since 0.1.0
    "monkeyproof.faults.ballast:end": Moved("monkeyproof.faults.support.stressor:end", {"ballast": "stressor_id"}),
    "monkeyproof.faults.foreign:run_activities": Moved("monkeyproof.faults.actions.external:run_activities"),
    "monkeyproof.faults.models:put_back_bits": Moved("monkeyproof.faults.support.file_restore:restore_bits"),
    "monkeyproof.faults.models:put_back_file": Moved("monkeyproof.faults.support.file_restore:restore_file"),
    "monkeyproof.faults.registry:put_back_version": Moved("monkeyproof.faults.registry:restore_version"),
    "monkeyproof.faults.registry:unspoil": Moved("monkeyproof.faults.registry:restore_last_good"),
    "monkeyproof.faults.resources:restore_limit": Moved(
        "monkeyproof.faults.resources.limits:restore_limit", {"ballast_id": "stressor_id", "victim": "process"}
    ),
    "monkeyproof.faults.versions:withdraw": Moved("monkeyproof.faults.support.champion:withdraw_release"),
}


def current_name(function: str, arguments: Mapping[str, Json]) -> tuple[str, dict[str, Json]]:
    """The name and the arguments that an undo has in this version; the same ones if nothing changed.

    Args:
        function: ``module:function``, as an undo log names it.
    """
    moved = MOVED.get(function, Moved(function))
    return moved.to, {moved.arguments.get(name, name): value for name, value in arguments.items()}
