"""Which activities of an experiment inject, prove and undo, where its faults are not this harness's own."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from monkeyproof.types import Json

OWN = "monkeyproof."
OWN_FAULTS = f"{OWN}faults."
NOTHING_TO_UNDO = "none"
"""Said instead of an undo's name, by an author who knows that there is nothing to take back."""


@dataclass(frozen=True, slots=True)
class Named:
    """Names of activities, as an experiment's extension or the command line gives them; "" for not given."""

    inject: str = ""
    evidence: str = ""
    undo: str = ""

    def over(self, other: Named) -> Named:
        """These, and the other's where these say nothing."""
        return Named(self.inject or other.inject, self.evidence or other.evidence, self.undo or other.undo)

    def given(self) -> dict[str, str]:
        every = {"inject": self.inject, "evidence": self.evidence, "undo": self.undo}
        return {role: name for role, name in every.items() if name}


@dataclass(frozen=True, slots=True)
class Roles:
    """Who does what in an experiment of somebody else's."""

    inject: str
    evidence: str
    """"" if nothing proves the fault: then its trials are unproven."""
    undo: tuple[str, ...]
    """In the order in which they run; empty where nothing would undo the fault."""
    nothing_to_undo: bool = False
    """Whether the author says that there is nothing to take back."""

    @property
    def why_no_way_back(self) -> tuple[str, str]:
        """Why it must not be injected, and what to do; empty words if it may."""
        if self.undo or self.nothing_to_undo:
            return "", ""
        return (
            f"nothing would undo {self.inject!r} if this harness were killed: the experiment has no rollbacks and "
            "names no undo",
            "add rollbacks; or name the action of the method that undoes it (undo: NAME in the experiment's "
            "extension, or --undo NAME); or say undo: none, if there is nothing to take back",
        )


def roles_of(document: Mapping[str, Json], named: Named) -> Roles | None:
    """Who does what; what is not named is guessed: the first action injects, and the rollbacks undo.

    Returns:
        None for an experiment of this harness's own faults, which record and prove themselves, and for one
        that does nothing at all.
    """
    inject = named.inject or next((name_of(one) for one in _actions(document, "method")), "")
    if not inject or _own(document):
        return None
    if _says_nothing_to_undo(document, named):
        return Roles(inject, named.evidence, (), nothing_to_undo=True)
    rollbacks = [name_of(one) for one in _actions(document, "rollbacks") if not _reverts_ours(one)]
    return Roles(inject, named.evidence, (named.undo,) if named.undo else tuple(rollbacks))


def _reverts_ours(activity: Mapping[str, Json]) -> bool:
    """Whether it takes back this harness's own faults: as the undo of another's, it would call itself."""
    provider = activity.get("provider", {})
    return (provider.get("module"), provider.get("func")) == ("monkeyproof.injection", "revert")


def _says_nothing_to_undo(document: Mapping[str, Json], named: Named) -> bool:
    return named.undo == NOTHING_TO_UNDO and activity_named(document, NOTHING_TO_UNDO) is None


def problems(document: Mapping[str, Json], named: Named) -> Iterator[tuple[str, str]]:
    """What is wrong with the names, as ``(role, words)``."""
    given = named.given()
    if given and _own(document):
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
    # Also of those that are guessed: an undo that carries the injection's name would inject once more.
    every = [name_of(one) for one in every_activity(document) if "ref" not in one]
    parts = {roles.evidence: "evidence", **dict.fromkeys(roles.undo, "undo"), roles.inject: "inject"}
    for name, role in parts.items():
        if name and every.count(name) > 1:
            yield role, f"{every.count(name)} activities are named {name!r}; give each a name of its own"
    if _reverts_ours(activity_named(document, named.undo) or {}):
        yield "undo", f"{named.undo!r} takes back monkeyproof's own faults alone"
    if roles.inject in roles.undo:
        yield "undo", f"{roles.inject!r} injects; it cannot undo as well"
    if (
        named.evidence
        and _in_background(document, named)
        and named.evidence not in after_injection(document, named)
    ):
        yield "evidence", "what proves a fault in the background has to stand after it in the method"


def strangers(document: Mapping[str, Json]) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """Actions of somebody else's beside this harness's own faults: ``(place, why not, what to do)``.

    Own faults are recorded one by one, and others by following the whole experiment: of these nobody would
    know, and what they break or mend would count for the own fault.
    """
    if not _own(document):
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
                    f"{name_of(one)!r} is no action of monkeyproof's, and stands beside faults that are: it would "
                    "have no record, no proof and no undo",
                    "put it into an experiment of its own, which names what injects, proves and undoes (inject, "
                    "evidence, undo)",
                )


def after_injection(document: Mapping[str, Json], named: Named | Roles) -> list[str]:
    """Names of what follows the injecting activity in the method."""
    method = [name_of(one) for one in document.get("method") or ()]
    inject = named.inject or (roles.inject if (roles := roles_of(document, Named())) else "")
    return method[method.index(inject) + 1 :] if inject in method else []


def uses(document: Mapping[str, Json], function: str) -> bool:
    """Whether an experiment calls a function of this harness by itself: ``hold_until_recovered``."""
    return any(
        one.get("provider", {}).get("func") == function
        and str(one["provider"].get("module", "")).startswith("monkeyproof.")
        for one in every_activity(document)
        if "ref" not in one
    )


def is_action(document: Mapping[str, Json], name: str) -> bool:
    """Whether the activity of that name does something, and does not only look."""
    return (activity_named(document, name) or {}).get("type") == "action"


def name_of(activity: Mapping[str, Json]) -> str:
    """Of an activity, or of the one that it refers to."""
    return str(activity.get("ref") or activity.get("name", ""))


def activity_named(document: Mapping[str, Json], name: str) -> Mapping[str, Json] | None:
    """The activity that carries a name; None if none does."""
    return next((one for one in every_activity(document) if "ref" not in one and one.get("name") == name), None)


def _own(document: Mapping[str, Json]) -> bool:
    return any(is_own_fault(one) for one in every_activity(document) if "ref" not in one)


def is_own_fault(activity: Mapping[str, Json]) -> bool:
    """Whether an activity calls a fault of this package or of a plugin: both record, prove and undo themselves."""
    module = _module(activity)
    if not module or module.startswith(OWN):
        return module.startswith(OWN_FAULTS)
    from monkeyproof.injection.fault_registry import fault_at  # Not for --help.

    return fault_at(module, str(activity["provider"].get("func", ""))) is not None


def _module(activity: Mapping[str, Json]) -> str:
    """Of a Python function; "" for all else."""
    provider = activity.get("provider", {})
    return str(provider.get("module", "")) if provider.get("type") == "python" else ""


def _in_background(document: Mapping[str, Json], named: Named) -> bool:
    roles = roles_of(document, named)
    activity = activity_named(document, roles.inject) if roles else None
    return bool(activity and activity.get("background"))


def every_activity(document: Mapping[str, Json]) -> list[Mapping[str, Json]]:
    """Of the hypothesis, the method and the rollbacks, in that order; references among them."""
    hypothesis = document.get("steady-state-hypothesis") or {}
    return [*(hypothesis.get("probes") or ()), *(document.get("method") or ()), *(document.get("rollbacks") or ())]


def _actions(document: Mapping[str, Json], section: str) -> list[Mapping[str, Json]]:
    """What it refers to counts as what it is."""
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
