"""The plan of a randomised fault schedule (a storm, as its files call it): a pure function of its seed.

Faults are drawn by chance, with random gaps and overlaps. A plan is stored as the Chaos Toolkit experiment that
runs the schedule, so that ``monkeyproof run FILE`` replays it, too.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from monkeyproof.config.target_file import TargetFile
from monkeyproof.config.user_files import load_yaml, problem_words, read_text
from monkeyproof.errors import UsageError
from monkeyproof.injection.fault_registry import Fault
from monkeyproof.targets.port import Links
from monkeyproof.types import Json

INTENSITIES = {"low": 0.25, "medium": 0.5, "high": 1.0}
INTENSITY_LEAST = 0.05
"""The lowest intensity: below it, the drawn faults are too weak to be seen."""
SHORTEST_S = 2.0
"""The shortest fault, in seconds: a shorter one may end before it is proven."""
SCHEDULE_FILE = "storm.yaml"
"""The name of a plan in its campaign's folder."""
_DRAWN = "monkeyproof.injection.schedule_plan"
"""The extension that holds what a schedule was drawn from."""
_RUN_SCHEDULE = {"type": "python", "module": "monkeyproof.faults.actions.schedule", "func": "run_schedule"}
_MODULES = (_RUN_SCHEDULE["module"], "monkeyproof.faults.storm")
"""Modules that have had this action: files of the version before name the second one."""
_STRICT = ConfigDict(extra="forbid")
_Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class ScheduledFault:
    """One fault of a schedule; times count from the schedule's start."""

    start_s: _Seconds
    duration_s: _Seconds
    fault: str
    arguments: Mapping[str, Json] = field(default_factory=dict)
    seed: int = 0
    """The seed of what the fault itself draws: the fault does the same whichever others are left out."""

    @property
    def end_s(self) -> float:
        return round(self.start_s + self.duration_s, 2)

    def __str__(self) -> str:
        given = ", ".join(f"{name}={_shown(value)}" for name, value in self.arguments.items())
        return f"{self.start_s:6.1f} s, for {self.duration_s:4.1f} s: {self.fault} {given}".rstrip()


@dataclass(frozen=True, slots=True)
class SchedulePlan:
    """A fault schedule, and what it was drawn from."""

    seed: int
    minutes: float
    intensity: float
    families: tuple[str, ...]
    """The families that were drawn from."""
    max_at_once: int
    horizon_s: float
    """How long the target may take to recover after the schedule."""
    faults: tuple[ScheduledFault, ...]
    """In the order of their start."""

    def only(self, faults: Iterable[ScheduledFault]) -> SchedulePlan:
        """The same schedule with these faults alone, the first of them at once."""
        kept = sorted(faults, key=lambda one: one.start_s)
        early_s = kept[0].start_s if kept else 0.0
        moved = (replace(one, start_s=round(one.start_s - early_s, 2)) for one in kept)
        return replace(self, faults=tuple(moved))

    def document(self) -> dict[str, Json]:
        """The experiment that runs it: the same bytes for the same plan."""
        words = f"{len(self.faults)} faults drawn by chance, seed {self.seed}, intensity {self.intensity:g}"
        return {
            "title": f"Random faults for {self.minutes:g} minutes, seed {self.seed}",
            "description": f"{words}. After all of them are reverted, the target has to recover by itself.",
            "tags": ["storm"],
            "controls": [{"name": "monkeyproof", "provider": {"type": "python", "module": "monkeyproof.control"}}],
            "steady-state-hypothesis": {
                "title": "Answers are there, fast and right",
                "probes": [
                    _activity("probe", "slo-holds", "monkeyproof.probes.steady_state", "slo_holds")
                    | {"tolerance": True}
                ],
            },
            "method": [
                {
                    "type": "action",
                    "name": "storm",
                    "provider": _RUN_SCHEDULE
                    | {"arguments": {"faults": [_plain(asdict(one)) for one in self.faults]}},
                },
                _activity("action", "revert", "monkeyproof.injection", "revert"),
                _activity(
                    "probe",
                    "watch-after-storm",
                    "monkeyproof.probes.watch",
                    "watch_after_revert",
                    at_most_s=self.horizon_s,
                ),
            ],
            "rollbacks": [_activity("action", "revert-whatever-is-left", "monkeyproof.injection", "revert")],
            "extensions": [
                {
                    "name": "monkeyproof",
                    "expect": {arm: ["absorbed", "fault_removed"] for arm in ("elephant", "none")},
                },
                {"name": _DRAWN} | _plain({k: v for k, v in asdict(self).items() if k != "faults"}),
            ],
        }

    def text(self) -> str:
        """The content of the plan's file."""
        return yaml.safe_dump(self.document(), sort_keys=False, allow_unicode=True, width=110)


def read_plan(path: Path) -> SchedulePlan:
    """Read a plan from its file.

    Raises:
        UsageError: the file cannot be read, or holds no plan.
    """
    _, document = load_yaml(read_text(path), str(path))
    try:
        (drawn,) = (dict(one) for one in document["extensions"] if one["name"] == _DRAWN)
        del drawn["name"]
        (action,) = (one for one in document["method"] if one["provider"].get("module") in _MODULES)
        faults = action["provider"]["arguments"]["faults"]
        return TypeAdapter(SchedulePlan).validate_python({**drawn, "faults": faults})
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise UsageError(f"{path}: {where}: {problem_words(problem)}") from None
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UsageError(f"{path}: not a fault schedule; 'monkeyproof unleash' writes such files") from None


def plan_schedule(
    target: TargetFile,
    registry: Sequence[Fault],
    *,
    seed: int,
    minutes: float,
    intensity: float,
    families: Sequence[str] = (),
    max_at_once: int | None = None,
) -> SchedulePlan:
    """Draw a schedule. The same arguments give the same plan, on any machine and at any time.

    Faults that need the same capability of the target never overlap: the undo of one would find what the other
    left. Faults on links may overlap, for each is removed by its own id; but not on one link, where one fault
    would hide the proof of another, or pass for it.

    Args:
        registry: the faults to draw from, as far as the target allows them.
        intensity: in (0, 1]: shorter gaps, longer faults, more of them at once, and more of each.
        families: the families to draw from; none means all that the target allows.
        max_at_once: how many faults are held at the same time; None: by the intensity.

    Raises:
        UsageError: the target does not allow one of the families, or no fault can be drawn for it.
    """
    chosen = _families_to_draw_from(target, families)
    able = [fault for fault in registry if fault.draw is not None and fault.family in chosen]
    at_once = max_at_once or 1 + round(2 * intensity)
    rng = np.random.default_rng([seed, zlib.crc32(b"unleash")])
    now_s, planned = 0.0, list[ScheduledFault]()
    while True:
        now_s, duration_s = _next_slot(rng, planned, now_s, intensity, at_once)
        start_s = round(now_s, 2)
        duration_s = round(min(duration_s, 60.0 * minutes - start_s), 2)
        if duration_s < SHORTEST_S:
            break
        own = np.random.default_rng([seed, zlib.crc32(b"unleash/fault"), len(planned)])
        beside = [other for other in planned if other.end_s > start_s]
        drawn = _draw(own, able, beside, target, intensity)
        if drawn is not None:
            planned.append(ScheduledFault(start_s, duration_s, drawn[0], drawn[1], int(own.integers(2**31))))
        elif not beside:
            what = f"nothing can be drawn for target {target.name!r}"
            raise UsageError(f"{what} from the families {', '.join(chosen) or '(none is allowed)'}")
    return SchedulePlan(seed, minutes, intensity, chosen, at_once, target.windows.horizon_s, tuple(planned))


def _families_to_draw_from(target: TargetFile, families: Sequence[str]) -> tuple[str, ...]:
    """In the order of the target file.

    Raises:
        UsageError: the target does not allow one of them.
    """
    for family in families:
        if family not in target.allow_faults:
            allowed = ", ".join(target.allow_faults) or "none"
            raise UsageError(f"family {family!r}: target {target.name!r} does not allow it; it allows {allowed}")
    return tuple(family for family in target.allow_faults if not families or family in families)


def _next_slot(
    rng: np.random.Generator, planned: Sequence[ScheduledFault], now_s: float, intensity: float, at_once: int
) -> tuple[float, float]:
    """Start and duration of the next fault, in seconds; it waits while ``at_once`` others are held."""
    gap_s = float(rng.exponential(2.0 + 8.0 * (1.0 - intensity)))
    now_s += max(0.2, gap_s) if planned else min(1.0, gap_s)
    duration_s = float(rng.uniform(SHORTEST_S, 3.0 + 9.0 * intensity))
    held = sorted(other.end_s for other in planned if other.end_s > now_s)
    return (held[-at_once] if len(held) >= at_once else now_s), duration_s


def _draw(
    rng: np.random.Generator,
    faults: Sequence[Fault],
    beside: Sequence[ScheduledFault],
    target: TargetFile,
    intensity: float,
) -> tuple[str, dict[str, Json]] | None:
    """The first fault, in a drawn order, that has a place in this target beside those that are held."""
    known = {fault.name: fault for fault in faults}
    parts = {part for one in beside for part in known[one.fault].needs if part is not Links}
    links = {known[one.fault].link(one.arguments) for one in beside} - {None}
    for place in rng.permutation(len(faults)):
        fault = faults[int(place)]
        if fault.draw is None or parts & set(fault.needs):
            continue
        arguments = fault.draw(rng, target, intensity)
        if arguments is not None and fault.link(arguments) not in links:
            return fault.name, _plain(dict(arguments))
    return None


def _plain(value: Any) -> Any:
    """A value as JSON has it, without the types of Python and numpy alone."""
    return json.loads(json.dumps(value, default=lambda one: one.item()))


def _activity(kind: str, name: str, module: str, function: str, **arguments: Json) -> dict[str, Json]:
    given = {"arguments": arguments} if arguments else {}
    return {
        "type": kind,
        "name": name,
        "provider": {"type": "python", "module": module, "func": function, **given},
    }


def _shown(value: Json) -> str:
    return '""' if value == "" else str(value)
