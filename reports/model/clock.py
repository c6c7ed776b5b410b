"""What the calibration of the clock proves about a campaign's times, in words."""

from __future__ import annotations

from collections.abc import Mapping

from monkeyproof.reports import text
from monkeyproof.types import Campaign, Json


def clock(campaign: Campaign) -> str:
    """How finely the clock was proven to tell the time on the machine of the campaign."""
    found = campaign.calibration
    if not found:
        return (
            "The clock was not calibrated on this machine; 'monkeyproof calibrate' does it in under a minute, for "
            "the campaigns after it."
        )
    held, of, rate_per_s = (_number(found, name) for name in ("held_count", "episodes_count", "rate_per_s"))
    if held is None or of is None or rate_per_s is None:
        return "The clock's calibration cannot be read; 'monkeyproof calibrate' makes it anew."
    where = "another machine" if _machine_differences(campaign) else "this machine"
    width_ms = _total_outage_width_ms(found)
    finely = (
        "" if width_ms is None else f", and the end of a total outage is known to {text.milliseconds(width_ms)}"
    )
    return (
        f"Clock: calibrated on {where} {text.moment(str(found.get('utc', '')))}, at {rate_per_s:g} questions a "
        f"second: {held:.0f} of {of:.0f} known outages lay within the interval that was reported{finely}"
        f"{' (median width)' if finely else ''}."
    )


def clock_warnings(campaign: Campaign) -> list[str]:
    """Why the calibration does not hold for this campaign; empty if it does, or if there is none."""
    found = campaign.calibration
    if not found:
        return []
    warnings = []
    if found.get("passed") is not True:
        warnings.append(
            "The clock did not pass its calibration: recovery times may be off by more than their intervals say. "
            "Run 'monkeyproof calibrate' while the machine is quiet."
        )
    if differs := _machine_differences(campaign):
        warnings.append(
            f"The clock was calibrated on another machine, or before this one was changed ({differs}): how finely "
            "it tells the time here is not known. Run 'monkeyproof calibrate' here."
        )
    calibrated, asked = _number(found, "rate_per_s"), _number(campaign.prober, "rate_per_s")
    if calibrated != asked and calibrated is not None and asked is not None:
        warnings.append(
            f"The clock was calibrated at another rate ({calibrated:g} questions a second, here {asked:g}): how "
            "finely it tells the time here is not known. Run 'monkeyproof calibrate --rate-per-s "
            f"{asked:g}' here."
        )
    return warnings


def lateness(campaign: Campaign) -> str:
    """The prober's own lateness in the worst trial (p99): how far off the clock behind all numbers may be."""
    return text.milliseconds(max((trial.recovery.lateness_p99_ms for trial in campaign.trials), default=None))


def _total_outage_width_ms(found: Mapping[str, Json]) -> float | None:
    """The median width of the intervals of total outages. It leaves out partial and hung ones, whose end no prober
    can know as well."""
    rows = found.get("by_kind")
    if not isinstance(rows, list):
        return None
    dark = next((row for row in rows if isinstance(row, Mapping) and row.get("kind") == "dark"), {})
    # A width of 0 means that each of them was disturbed.
    return _number(dark, "width_p50_ms") if _number(dark, "width_max_ms") else None


def _machine_differences(campaign: Campaign) -> str:
    """In what the calibration's machine differs from the campaign's; empty if in nothing that both recorded."""
    then, now = campaign.calibration.get("machine"), campaign.machine
    if not isinstance(then, Mapping):
        return ""
    differs = [
        f"{text.clean(name).replace('_', ' ')} {text.clean(str(then[name]))}, here {text.clean(str(now[name]))}"
        for name in now
        if name in then and then[name] != now[name]
    ]
    return "; ".join(differs)


def _number(found: Mapping[str, Json], name: str) -> float | None:
    value = found.get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
