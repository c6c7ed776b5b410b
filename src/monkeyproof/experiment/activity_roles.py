"""Activity roles: which activities of an experiment with external faults inject, prove and undo."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from monkeyproof.types import Json

OWN = "monkeyproof."
OWN_FAULTS = f"{OWN}faults."
NOTHING_TO_UNDO = "none"
"""Stands for the name of an undo where the author says that there is nothing to undo."""


@dataclass(frozen=True, slots=True)
class ActivityNames:
    """Names of activities, as given by an experiment's extension or the command line; "" if not given."""

    inject: str = ""
    evidence: str = ""
    undo: str = ""

    def with_defaults(self, other: ActivityNames) -> ActivityNames:
        """These names, completed by those of ``other``."""
        return ActivityNames(self.inject or other.inject, self.evidence or other.evidence, self.undo or other.undo)

    def given(self) -> dict[str, str]:
        """The names that are given, by role."""
        every = {"inject": self.inject, "evidence": self.evidence, "undo": self.undo}
        return {role: name for role, name in every.items() if name}


@dataclass(frozen=True, slots=True)
class ActivityRoles:
    """The activities that inject, prove and undo the fault of an external experiment."""

    inject: str
    evidence: str
    """"" if no probe proves the fault: then its trials are unproven."""
    undo: tuple[str, ...]
    """In the order in which they run; empty if none undoes the fault."""
    nothing_to_undo: bool = False
    """Whether the author says that there is nothing to undo."""

    @property
    def why_not_undoable(self) -> tuple[str, str]:
        """Why the fault must not be injected, and what to do; both "" if it may."""
        if self.undo or self.nothing_to_undo:
            return "", ""
        return (
            f"nothing would undo {self.inject!r} if this harness were killed: the experiment has no rollbacks and "
            "names no undo",
            "add rollbacks; or name the action of the method that undoes it (undo: NAME in the experiment's "
            "extension, or --undo NAME); or say undo: none, if there is nothing to undo",
        )


def roles_of(document: Mapping[str, Json], named: ActivityNames) -> ActivityRoles | None:
    """The roles of the activities. Defaults: the first action of the method injects, and the rollbacks undo.

    Returns:
        None for an experiment with this harness's own faults, which record and prove themselves, and for one
        without an action.
    """
    inject = named.inject or next((name_of(one) for one in _actions(document, "method")), "")
    if not inject or injects_own_faults(document):
        return None
    if _says_nothing_to_undo(document, named):
        return ActivityRoles(inject, named.evidence, (), nothing_to_undo=True)
    rollbacks = [name_of(one) for one in _actions(document, "rollbacks") if not _reverts_ours(one)]
    return ActivityRoles(inject, named.evidence, (named.undo,) if named.undo else tuple(rollbacks))


def _reverts_ours(activity: Mapping[str, Json]) -> bool:
    """Whether the activity reverts own faults: as the undo of an external fault, it would call itself."""
    provider = activity.get("provider", {})
    return (provider.get("module"), provider.get("func")) == ("monkeyproof.injection", "revert")


def _says_nothing_to_undo(document: Mapping[str, Json], named: ActivityNames) -> bool:
    return named.undo == NOTHING_TO_UNDO and activity_named(document, NOTHING_TO_UNDO) is None


def naming_problems(document: Mapping[str, Json], named: ActivityNames) -> Iterator[tuple[str, str]]:
    """Errors in the given names, as ``(role, message)``."""
    given = named.given()
    if given and injects_own_faults(document):
        yield (
            next(iter(given)),
            "this experiment's faults are monkeyproof's own, which record and prove themselves",
        )
        return
    allowed = {
        "inject": ("an action of the method", _actions(document, "method")),
        "evidence": ("a probe", [one for one in every_activity(document) if one.get("type") == "probe"]),
        "undo": (
            "an action of the method or the rollbacks",
            [*_actions(document, "method"), *_actions(document, "rollbacks")],
        ),
    }
    for role, name in given.items():
        words, candidates = allowed[role]
        names = [name_of(one) for one in candidates]
        if role == "undo" and _says_nothing_to_undo(document, named):
            continue
        if name not in names:
            yield role, f"{name!r} is not {words}{_hint(name, names)}"
    roles = roles_of(document, named)
    if roles is None:
        return
    # Also of the defaults: an undo with the name of the injection would inject once more.
    every = [name_of(one) for one in every_activity(document) if "ref" not in one]
    parts = {roles.evidence: "evidence", **dict.fromkeys(roles.undo, "undo"), roles.inject: "inject"}
    for name, role in parts.items():
        if name and every.count(name) > 1:
            yield role, f"{every.count(name)} activities are named {name!r}; give each a name of its own"
    if _reverts_ours(activity_named(document, named.undo) or {}):
        yield "undo", f"{named.undo!r} reverts only monkeyproof's own faults"
    if roles.inject in roles.undo:
        yield "undo", f"{roles.inject!r} injects; it cannot undo as well"
    if (
        named.evidence
        and _in_background(document, named)
        and named.evidence not in after_injection(document, named)
    ):
        yield "evidence", "the probe that proves a fault in the background must follow it in the method"


def external_activities(document: Mapping[str, Json]) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """External actions beside this harness's own faults, as ``(place, why not, what to do)``.

    Own faults are recorded one by one, external ones by following the whole experiment. In a mixture, the external
    actions would have no record, and their effects would count for the own fault.
    """
    if not injects_own_faults(document):
        return
    hypothesis = document.get("steady-state-hypothesis") or {}
    sections: dict[tuple[str, ...], Json] = {
        ("steady-state-hypothesis", "probes"): hypothesis.get("probes"),
        ("method",): document.get("method"),
        ("rollbacks",): document.get("rollbacks"),
    }
    for section, activities in sections.items():
        for index, one in enumerate(activities or ()):
            if one.get("type") == "action" and not (_module(one).startswith(OWN) or is_own_fault(one)):
                yield (
                    (*section, index),
                    f"{name_of(one)!r} is an external action beside faults of monkeyproof's own: it would have no "
                    "record, no proof and no undo",
                    "put it into an experiment of its own, which names the activities that inject, prove and undo "
                    "(inject, evidence, undo)",
                )


def after_injection(document: Mapping[str, Json], named: ActivityNames | ActivityRoles) -> list[str]:
    """Names of the activities that follow the injecting one in the method."""
    method = [name_of(one) for one in document.get("method") or ()]
    inject = named.inject or (roles.inject if (roles := roles_of(document, ActivityNames())) else "")
    return method[method.index(inject) + 1 :] if inject in method else []


def uses(document: Mapping[str, Json], function: str) -> bool:
    """Whether an activity of the experiment calls a function of this harness, such as ``hold_until_recovered``."""
    return any(
        one.get("provider", {}).get("func") == function
        and str(one["provider"].get("module", "")).startswith("monkeyproof.")
        for one in every_activity(document)
        if "ref" not in one
    )


def is_action(document: Mapping[str, Json], name: str) -> bool:
    """Whether the activity with that name is an action, not a probe."""
    return (activity_named(document, name) or {}).get("type") == "action"


def name_of(activity: Mapping[str, Json]) -> str:
    """The name of an activity, or of the one that it refers to."""
    return str(activity.get("ref") or activity.get("name", ""))


def activity_named(document: Mapping[str, Json], name: str) -> Mapping[str, Json] | None:
    """The activity with that name; None if there is none."""
    return next((one for one in every_activity(document) if "ref" not in one and one.get("name") == name), None)


def injects_own_faults(document: Mapping[str, Json]) -> bool:
    """Whether an activity of the experiment calls a fault of this harness or of a plugin."""
    return any(is_own_fault(one) for one in every_activity(document) if "ref" not in one)


def is_own_fault(activity: Mapping[str, Json]) -> bool:
    """Whether an activity calls a fault of this package or of a plugin: both record, prove and undo themselves."""
    module = _module(activity)
    if not module or module.startswith(OWN):
        return module.startswith(OWN_FAULTS)
    from monkeyproof.injection.fault_registry import fault_at  # Not for --help.

    return fault_at(module, str(activity["provider"].get("func", ""))) is not None


def _module(activity: Mapping[str, Json]) -> str:
    """The module of a Python activity; "" for other providers."""
    provider = activity.get("provider", {})
    return str(provider.get("module", "")) if provider.get("type") == "python" else ""


def _in_background(document: Mapping[str, Json], named: ActivityNames) -> bool:
    roles = roles_of(document, named)
    activity = activity_named(document, roles.inject) if roles else None
    return bool(activity and activity.get("background"))


def every_activity(document: Mapping[str, Json]) -> list[Mapping[str, Json]]:
    """The activities of the hypothesis, the method and the rollbacks, in that order, including references."""
    hypothesis = document.get("steady-state-hypothesis") or {}
    return [*(hypothesis.get("probes") or ()), *(document.get("method") or ()), *(document.get("rollbacks") or ())]


def _actions(document: Mapping[str, Json], section: str) -> list[Mapping[str, Json]]:
    """The actions of a section; a reference counts as the activity that it names."""
    found = []
    for one in document.get(section) or ():
        meant = activity_named(document, one["ref"]) if "ref" in one else one
        if meant is not None and meant.get("type") == "action":
            found.append(meant)
    return found


def _hint(name: str, names: Sequence[str]) -> str:
    if not names:
        return "; there is none"
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(dict.fromkeys(names))}"
