"""Formats numbers and foreign text for people, in the same way for every format.

Three things are never confused: a value, a value that is only known to be larger (censored), and no
knowledge at all ("could not tell").
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from monkeyproof.types import Interval, Outcome, Recovery, TrialResult

UNKNOWN = "could not tell"
NOT_REACHED = "not reached"

OUTCOMES = {
    Outcome.ABSORBED: ("absorbed", "the fault is proven and not one reading was bad"),
    Outcome.HEALED: ("healed", "recovered while the fault was held, after a healer's action"),
    Outcome.SELF_RECOVERED: (
        "self-recovered",
        "recovered while the fault was held, with no healer's action before it",
    ),
    Outcome.FAULT_REMOVED: ("fault removed", "recovered only after the Monkey had removed the fault"),
    Outcome.NOT_RECOVERED: ("not recovered", "had not recovered when watching ended"),
    Outcome.INVALID: ("invalid", "cannot be judged, and counts for nothing"),
    Outcome.UNPROVEN: (
        "unproven",
        "nothing names evidence that the fault took effect; it never counts for a pass",
    ),
}
"""The word for each outcome, and what it means."""

_CAME_BACK = "it came back when every fault of the storm was reverted"
STORMS = OUTCOMES | {
    Outcome.ABSORBED: ("storm survived", "not one reading was bad"),
    Outcome.FAULT_REMOVED: ("storm survived", _CAME_BACK),
    Outcome.NOT_RECOVERED: ("storm not survived", "it did not come back when every fault was reverted"),
}
"""The same for a storm, which tells nothing about recovery under a fault."""

_ESCAPE_SEQUENCES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
_BLANKS = re.compile(r"[\t\r\n\u2028\u2029]+")


def clean(text: str) -> str:
    """Text from a target, made harmless to print: one line, no terminal sequences, no control characters, no
    characters that turn the direction of writing, nothing that XML cannot hold."""
    return _UNPRINTABLE.sub("", _BLANKS.sub(" ", _ESCAPE_SEQUENCES.sub("", text)))


def short(text: str, characters: int) -> str:
    """The text, or as much of it as fits, with an ellipsis."""
    text = clean(text)
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"


def seconds(value_s: float | None) -> str:
    """``0.18 s``, ``15.0 s``, ``124 s``: as many digits as the prober's clock can carry."""
    if value_s is None or not math.isfinite(value_s):
        return UNKNOWN
    return f"{_digits(value_s)} s"


def setting(value_s: float) -> str:
    """``10 s``: a setting, with the digits that its author wrote."""
    return f"{value_s:g} s"


def duration(value_s: float) -> str:
    """``19 min 10 s``: how long something took, where tenths do not matter."""
    if not math.isfinite(value_s):
        return UNKNOWN
    minutes, rest_s = divmod(round(value_s), 60)
    return f"{minutes} min {rest_s} s" if minutes else f"{rest_s} s"


def moment(utc: str) -> str:
    """``2026-02-03 04:05 UTC``."""
    try:
        found = datetime.fromisoformat(utc)
    except ValueError:
        return clean(utc)
    return f"{found.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if found.tzinfo else clean(utc)


def span(interval: Interval | None) -> str:
    """``3.10–3.24 s``: an instant known only to lie within."""
    if interval is None:
        return UNKNOWN
    low, high = _digits(interval.low_s), _digits(interval.high_s)
    return f"{high} s" if low == high else f"{low}–{high} s"


def milliseconds(value_ms: float | None) -> str:
    if value_ms is None or not math.isfinite(value_ms):
        return UNKNOWN
    return f"{value_ms:.1f} ms" if abs(value_ms) < 10 else f"{value_ms:.0f} ms"


def percent(share: float) -> str:
    """``99.5 %``; never rounded up to 100 nor down to 0."""
    value = share * 100
    text = f"{value:.0f}" if math.isclose(value, round(value), abs_tol=1e-9) else f"{value:.1f}"
    if share < 1 and float(text) >= 100:
        return "> 99.9 %"
    if share > 0 and float(text) <= 0:
        return "< 0.1 %"
    return f"{text} %"


def count(number: int, one: str, many: str = "") -> str:
    """``1 trial``, ``5 trials``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listing(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    if len(parts) < 2:
        return "".join(parts)
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def time_to_recover(recovery: Recovery) -> str:
    """The table's TTR: an interval, a bound, zero, or no knowledge."""
    if recovery.outcome is Outcome.INVALID:
        return UNKNOWN
    if recovery.outcome is Outcome.ABSORBED:
        return "0 s (absorbed)"
    if recovery.outcome is Outcome.UNPROVEN:
        return f"{_seen_unproven(recovery)} (unproven)"
    if recovery.ttr is not None:
        return span(recovery.ttr)
    if recovery.outcome.under_fault or recovery.censored_at_s is None:
        return UNKNOWN
    return f"> {seconds(recovery.censored_at_s)} (censored)"


def _seen_unproven(recovery: Recovery) -> str:
    if recovery.ttr is not None:
        return span(recovery.ttr)
    if recovery.censored_at_s is not None:
        return f"> {seconds(recovery.censored_at_s)}"
    return UNKNOWN if recovery.bad_count else "none bad"


def time_to_detect(trial: TrialResult) -> str:
    if trial.recovery.ttd_s is not None:
        return seconds(trial.recovery.ttd_s)
    if trial.recovery.outcome is Outcome.INVALID:
        return UNKNOWN
    return "no healer" if trial.arm == "none" else "not detected"


def time_to_first_wrong(recovery: Recovery) -> str:
    if recovery.first_wrong_s is not None:
        return seconds(recovery.first_wrong_s)
    return _none_if_no_wrong(recovery)


def silent_time(recovery: Recovery) -> str:
    if recovery.silent_s is not None:
        return seconds(recovery.silent_s)
    return _none_if_no_wrong(recovery)


def _none_if_no_wrong(recovery: Recovery) -> str:
    judged = recovery.wrong_count == 0 and recovery.outcome is not Outcome.INVALID
    return "none wrong" if judged else UNKNOWN


def time_to_come_back(trial: TrialResult) -> str:
    """The time to recover under the fault; of a storm, after its last fault was reverted."""
    found = trial.recovery
    if trial.storm and found.recovered is not None and found.reverted_s is not None:
        return f"{seconds(found.recovered.since(found.reverted_s).high_s)} after the storm"
    return UNKNOWN if trial.storm and found.outcome is Outcome.INVALID else time_to_recover(found)


def how_healed(trial: TrialResult) -> str:
    """What ended the outage: remedies, the system itself, the revert, or nothing; in a sham, if a healer acted.

    A storm does not show it.
    """
    if trial.storm:
        return "not judged in a storm"
    if trial.sham or trial.false_heals:
        acted = " → ".join(clean(remedy).replace("_", " ") for remedy in trial.false_heals)
        return f"false heal: {acted}" if acted else "nothing to heal"
    remedies = " → ".join(clean(remedy).replace("_", " ") for remedy in trial.healed_by)
    if remedies and trial.recovery.outcome is Outcome.HEALED:
        return remedies
    if remedies and trial.recovery.outcome is Outcome.ABSORBED:
        return f"{remedies}, in time"
    return {
        Outcome.ABSORBED: "nothing to heal",
        Outcome.HEALED: UNKNOWN,
        Outcome.SELF_RECOVERED: "by itself",
        Outcome.FAULT_REMOVED: "only by the revert",
        Outcome.NOT_RECOVERED: "not healed",
        Outcome.INVALID: UNKNOWN,
        Outcome.UNPROVEN: UNKNOWN,
    }[trial.recovery.outcome]


def pairs_of(mapping: Mapping[str, object]) -> list[tuple[str, str]]:
    """A mapping from a file (the machine, the versions, a load's statistics) as names and values to print."""
    return [(clean(str(key)).replace("_", " "), _value(value)) for key, value in mapping.items()]


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(child)}" for key, child in value.items())
    return UNKNOWN if value is None else clean(str(value))


def _digits(value_s: float) -> str:
    places = 2 if abs(value_s) < 9.995 else 1 if abs(value_s) < 99.95 else 0
    return f"{value_s:.{places}f}"
