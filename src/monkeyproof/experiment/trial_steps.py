"""The short form of an experiment: the file names its faults, and ``expand`` adds a trial's steps around them.

An experiment asks for the steps in its extension:

    extensions:
      - name: monkeyproof
        trial: {hold: {at_least_s: 4.0, at_most_s: 8.0}, watch: {at_most_s: 6.0}}

``trial: {}`` adds all of them with their defaults: the steady-state hypothesis ``slo-holds`` (if the file has no
hypothesis), ``hold``, ``revert`` and ``watch-after-revert`` at the end of the method, and a last revert at the end
of the rollbacks. ``hold: false``, ``revert: false`` and ``watch: false`` leave one out; without a revert there is
nothing to watch after. An experiment that does not ask for them runs exactly as it is written.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from monkeyproof.config.user_files import shown
from monkeyproof.experiment.activity_roles import injects_own_faults
from monkeyproof.types import Json

Place = tuple[str | int, ...]
"""Where something stands in an experiment: ``("method", 0, "provider")``."""
Problem = tuple[Place, str]

EXTENSION = "monkeyproof"
"""The name of this harness's entry in ``extensions``."""
TRIAL = "trial"
"""The key of that entry which asks for the steps."""


def _activity(kind: str, name: str, module: str, function: str) -> dict[str, Json]:
    return {"type": kind, "name": name, "provider": {"type": "python", "module": module, "func": function}}


_STEPS: Mapping[str, Mapping[str, Json]] = {
    "hold": _activity("probe", "hold", "monkeyproof.probes.watch", "hold_until_recovered"),
    "revert": _activity("action", "revert", "monkeyproof.injection", "revert"),
    "watch": _activity("probe", "watch-after-revert", "monkeyproof.probes.watch", "watch_after_revert"),
}
"""What ends the method, in this order, under the keys of ``trial``."""
_HYPOTHESIS: Mapping[str, Json] = {
    "title": "Answers are there, fast and right",
    "probes": [
        _activity("probe", "slo-holds", "monkeyproof.probes.steady_state", "slo_holds") | {"tolerance": True}
    ],
}
_LAST_REVERT: Mapping[str, Json] = {**_STEPS["revert"], "name": "revert-whatever-is-left"}
_TAKES_ARGUMENTS = ("hold", "watch")


@dataclass(frozen=True, slots=True)
class ExpandedExperiment:
    """An experiment as it runs, and what of it the file does not spell out."""

    document: dict[str, Json]
    added: Mapping[Place, Place] = field(default_factory=dict)
    """The place of each added step in ``document``, and the place in the file that asked for it."""

    def written_at(self, place: Place) -> Place:
        """The place in the file that answers for a place in ``document``."""
        for step, asked_by in self.added.items():
            if place[: len(step)] == step:
                rest = place[len(step) :]
                return (*asked_by, *(rest[2:] if rest[:2] == ("provider", "arguments") else ()))
        return place

    @property
    def added_steps(self) -> tuple[str, ...]:
        """One phrase for each added step, in the order in which they run: ``hold (at_most_s 8)``."""
        return tuple(_phrase(self.document, step) for step in self.added)


def place_of_extension(document: Mapping[str, Json]) -> Place:
    """Where this harness's entry in ``extensions`` stands; ``()`` if there is none."""
    for index, extension in enumerate(document.get("extensions") or ()):
        if isinstance(extension, dict) and extension.get("name") == EXTENSION:
            return "extensions", index
    return ()


def asks_for_steps(document: Mapping[str, Json]) -> bool:
    """Whether a file is in the short form."""
    return bool(_asked(document)[0])


def short_form_problems(document: Mapping[str, Json]) -> Iterator[Problem]:
    """What is wrong with how a file asks for the steps of a trial. Its method has to be well-formed.

    The arguments of the steps are not checked here: they are checked as those of every activity are, once they
    stand in the method.
    """
    place, asked = _asked(document)
    if not place:
        return
    if not isinstance(asked, dict):
        yield place, f"{TRIAL}: not a mapping; 'trial: {{}}' adds every step with its defaults"
        return
    for key, value in asked.items():
        if key not in _STEPS:
            close = difflib.get_close_matches(str(key), _STEPS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"the steps are: {', '.join(_STEPS)}"
            yield (*place, key), f"{shown(key)}: no step of a trial; {hint}"
        elif key in _TAKES_ARGUMENTS and not (isinstance(value, dict) or value is False):
            yield (*place, key), f"{key}: neither a mapping of arguments nor false"
        elif key not in _TAKES_ARGUMENTS and not isinstance(value, bool):
            yield (*place, key), f"{key}: neither true nor false"
    if asked.get("revert") is False and isinstance(asked.get("watch"), dict):
        yield (*place, "watch"), "watch: without a revert there is nothing to watch after"
    own = next((one for one in _STEPS.values() if _calls(document, one)), None)
    if own is not None:
        yield (
            place,
            f"{TRIAL}: the method calls {own['provider']['func']} itself; leave out {TRIAL}, or the steps in the "
            "method",
        )
    if not injects_own_faults(document):
        yield (
            place,
            f"{TRIAL}: the method injects no fault of monkeyproof's; a trial holds and watches around an external "
            "experiment without being asked, so leave it out",
        )


def expand(document: dict[str, Json]) -> ExpandedExperiment:
    """The experiment with every step that its extension asks for; one that asks for none is returned as it is.

    The expanded document is a plain Chaos Toolkit experiment that asks for nothing, so expanding it again changes
    nothing. ``document`` must be free of ``short_form_problems``; it is not changed.
    """
    place, asked = _asked(document)
    if not place:
        return ExpandedExperiment(document)
    added: dict[Place, Place] = {}
    hypothesis = document.get("steady-state-hypothesis")
    if not hypothesis:
        hypothesis = {**_HYPOTHESIS, "probes": [_copy(one) for one in _HYPOTHESIS["probes"]]}
        added["steady-state-hypothesis", "probes", 0] = place
    method = list(document["method"])
    for key, step in _STEPS.items():
        given = asked.get(key, True)
        if given is False or (key == "watch" and asked.get("revert") is False):
            continue
        added["method", len(method)] = (*place, key) if key in asked else place
        method.append(_copy(step, given if isinstance(given, dict) else {}))
    rollbacks = list(document.get("rollbacks") or ())
    if not any(_is_call_of(one, _LAST_REVERT) for one in rollbacks):
        added["rollbacks", len(rollbacks)] = place
        rollbacks.append(_copy(_LAST_REVERT))
    extensions = list(document["extensions"])
    extensions[int(place[1])] = {key: value for key, value in extensions[int(place[1])].items() if key != TRIAL}
    changed = {"method": method, "rollbacks": rollbacks, "extensions": extensions}
    return ExpandedExperiment({**document, "steady-state-hypothesis": hypothesis, **changed}, added)


def _asked(document: Mapping[str, Json]) -> tuple[Place, Json]:
    """Where a file asks for the steps, and with which words; ``()`` if it does not."""
    place = place_of_extension(document)
    extension = document["extensions"][place[1]] if place else {}
    return ((*place, TRIAL), extension[TRIAL]) if TRIAL in extension else ((), None)


def _copy(step: Mapping[str, Json], arguments: Mapping[str, Json] | None = None) -> dict[str, Json]:
    provider = step["provider"] | ({"arguments": dict(arguments)} if arguments else {})
    return {**step, "provider": provider}


def _calls(document: Mapping[str, Json], step: Mapping[str, Json]) -> bool:
    return any(_is_call_of(one, step) for one in document.get("method") or ())


def _is_call_of(activity: Mapping[str, Json], step: Mapping[str, Json]) -> bool:
    provider = activity.get("provider") or {}
    return all(provider.get(key) == step["provider"][key] for key in ("module", "func"))


def _phrase(document: Mapping[str, Json], place: Place) -> str:
    activity: Json = document
    for part in place:
        activity = activity[part]
    given = (activity["provider"].get("arguments") or {}).items()
    words = ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in given
    )
    section = {"steady-state-hypothesis": "as the hypothesis", "rollbacks": "as a rollback"}.get(str(place[0]), "")
    remarks = ", ".join(one for one in (words, section) if one)
    return f"{activity['name']} ({remarks})" if remarks else str(activity["name"])
