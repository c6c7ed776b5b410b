"""The verdict, comparisons and the clock's resolution in words, once for every format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from monkeyproof.reports import text as words
from monkeyproof.reports.model.verdict import CampaignVerdict, Verdict
from monkeyproof.reports.stats.comparison import NO_HEALER, Comparison
from monkeyproof.types import Campaign, Json, TrialResult

SHAM_COLUMNS = ("Arm", "Shams", "With a false heal", "What the healer did")

COMPARISON_COLUMNS = (
    "Right answers back",
    "p (paired)",
    "p (log-rank)",
    "Recovered with it",
    "Recovered with no healer",
    "Only with it",
    "Only without",
)


@dataclass(frozen=True, slots=True)
class VerdictFacts:
    """A line of the verdict: one experiment under one arm."""

    verdict: Verdict
    experiment: str
    arm: str
    word: str
    """The decision; of what is not judged, why not."""
    reason: str


@dataclass(frozen=True, slots=True)
class ShamFacts:
    """What healers did in one arm where nothing was broken."""

    arm: str
    count: int
    false_count: int
    acted: str
    """What they did, or that they did nothing."""


def healer_name(arm: str) -> str:
    return "no healer" if arm == NO_HEALER else words.clean(arm)


def verdict_facts(verdict: CampaignVerdict) -> list[VerdictFacts]:
    """What is judged comes first, each in the order of the campaign."""
    ordered = sorted(verdict.verdicts, key=lambda one: not one.judged)
    return [
        VerdictFacts(
            verdict=one,
            experiment=words.clean(one.experiment),
            arm=healer_name(one.arm),
            word=one.decision if one.judged else _not_judged(one),
            reason=sentence(one.reason),
        )
        for one in ordered
    ]


def lines_beside(verdict: CampaignVerdict, *, judged_only: bool = False) -> list[VerdictFacts]:
    """The lines that say something beside the campaign's own verdict: if one alone is judged, that has said it."""
    judged = [one for one in verdict.verdicts if one.judged]
    said = judged if len(judged) == 1 and judged[0].reason in verdict.reason else []
    lines = [line for line in verdict_facts(verdict) if line.verdict not in said]
    return [line for line in lines if line.verdict.judged or not judged_only]


def reason(verdict: CampaignVerdict) -> str:
    """Why, as a sentence; the name of an experiment keeps its spelling."""
    said = words.clean(verdict.reason)
    named = any(said.startswith(words.clean(one.experiment)) for one in verdict.verdicts)
    return said + "." if named else sentence(said)


def comparison_cells(found: Comparison) -> list[str]:
    """The effect with its interval first, p-values second, then what was counted; pairs are of equal seeds."""
    count, of = (found.pairs_count,) * 2 if found.pairs_count else (found.count, found.reference_count)
    only = (str(found.only_ours_count), str(found.only_reference_count)) if found.pairs_count else ("", "")
    return [
        f"{effect(found)}, in means up to {words.seconds(found.horizon_s)}",
        _paired_cell(found),
        p_value(found.log_rank_p),
        f"{found.recovered_count} of {count}",
        f"{found.reference_recovered_count} of {of}",
        *only,
    ]


def comparison_line(found: Comparison) -> str:
    """A comparison in one sentence."""
    pairs = words.count(found.pairs_count, "pair") if found.pairs_count else "not paired"
    test, p = paired_test(found)
    tests = [f"{test} p {p_value(p)}"] if found.pairs_count else []
    tests.append(f"log-rank p {p_value(found.log_rank_p)}")
    return (
        f"{words.clean(found.experiment)}, {healer_name(found.name)} against {healer_name(found.reference)} "
        f"({pairs}): right answers back: {effect(found)}, in means up to {words.seconds(found.horizon_s)}; "
        f"{', '.join(tests)}"
    )


def paired_test(found: Comparison) -> tuple[str, float | None]:
    """The test of pairs and its p-value: exact where too few trials differ for that of the means."""
    by_sign = found.paired_p is None and found.sign_p is not None
    return ("sign test", found.sign_p) if by_sign else ("paired", found.paired_p)


def effect(found: Comparison) -> str:
    """``4.10 s sooner (2.20–6.00 s)``; an interval that holds zero says which side is which."""
    value_s, low_s, high_s = found.sooner.value_s, found.sooner.low_s, found.sooner.high_s
    if value_s is None:
        return words.UNKNOWN
    said = _way(value_s)
    if low_s is None or high_s is None:
        return f"{said} (no interval)"
    if low_s >= 0 and value_s >= 0:
        return f"{said} ({_range(low_s, high_s)})"
    if high_s <= 0 and value_s <= 0:
        return f"{said} ({_range(-high_s, -low_s)})"
    return f"{said} ({_way(low_s)} to {_way(high_s)})"


def p_value(found: float | None) -> str:
    if found is None:
        return "not defined"
    if found < 0.001:
        return "< 0.001"
    return f"{found:.3f}" if found < 0.1 else f"{found:.2f}"


def clock(campaign: Campaign) -> str:
    """How finely the clock was proven to tell the time where the campaign ran."""
    found = campaign.calibration
    if not found:
        return (
            "The clock was not calibrated on this machine; 'monkeyproof calibrate' does it in under a minute, for "
            "the campaigns after it."
        )
    held, of, rate_per_s = (_number(found, name) for name in ("held_count", "episodes_count", "rate_per_s"))
    if held is None or of is None or rate_per_s is None:
        return "The clock's calibration cannot be read; 'monkeyproof calibrate' makes it anew."
    where = "another machine" if _other_machine(campaign) else "this machine"
    width_ms = _total_outage_width_ms(found)
    finely = (
        "" if width_ms is None else f", and the end of a total outage is known to {words.milliseconds(width_ms)}"
    )
    return (
        f"Clock: calibrated on {where} {words.moment(str(found.get('utc', '')))}, at {rate_per_s:g} questions a "
        f"second: {held:.0f} of {of:.0f} known outages lay within the interval that was reported{finely}"
        f"{' (median width)' if finely else ''}."
    )


def clock_warnings(campaign: Campaign) -> list[str]:
    """Where the calibration does not carry over to this campaign."""
    found = campaign.calibration
    if not found:
        return []
    said = []
    if found.get("passed") is not True:
        said.append(
            "The clock did not pass its calibration: recovery times may be off by more than their intervals say. "
            "Run 'monkeyproof calibrate' while the machine is quiet."
        )
    if differs := _other_machine(campaign):
        said.append(
            f"The clock was calibrated on another machine, or before this one was changed ({differs}): how finely "
            "it tells the time here is not known. Run 'monkeyproof calibrate' here."
        )
    calibrated, asked = _number(found, "rate_per_s"), _number(campaign.prober, "rate_per_s")
    if calibrated != asked and calibrated is not None and asked is not None:
        said.append(
            f"The clock was calibrated at another rate ({calibrated:g} questions a second, here {asked:g}): how "
            "finely it tells the time here is not known. Run 'monkeyproof calibrate --rate-per-s "
            f"{asked:g}' here."
        )
    return said


def sham_facts(campaign: Campaign) -> list[ShamFacts]:
    """Shams by arm. They are never among the trials that headlines and shares are about."""
    by_arm: dict[str, list[TrialResult]] = {}
    for trial in campaign.trials:
        if trial.sham:
            by_arm.setdefault(trial.arm, []).append(trial)
    return [_sham(arm, trials) for arm, trials in by_arm.items()]


def sentence(text: str) -> str:
    """A reason as a sentence of its own."""
    said = words.clean(text).strip()
    return said[:1].upper() + said[1:] + ("" if not said or said[-1] in ".!?" else ".")


def _sham(arm: str, trials: list[TrialResult]) -> ShamFacts:
    acted = list(dict.fromkeys(words.clean(what).replace("_", " ") for one in trials for what in one.false_heals))
    more = [f"{len(acted) - 4} more"] if len(acted) > 5 else acted[4:]
    return ShamFacts(
        arm=healer_name(arm),
        count=len(trials),
        false_count=sum(bool(one.false_heals) for one in trials),
        acted=words.listing(acted[:4] + more) or ("there is none" if arm == NO_HEALER else "nothing"),
    )


def _not_judged(verdict: Verdict) -> str:
    return "reference" if verdict.arm == NO_HEALER else "no limit set"


def _paired_cell(found: Comparison) -> str:
    if not found.pairs_count:
        return "not paired"
    test, p = paired_test(found)
    return p_value(p) if test == "paired" else f"{p_value(p)} ({test})"


def _way(value_s: float) -> str:
    if abs(value_s) < 0.005:
        return "no difference"
    return f"{words.seconds(abs(value_s))} {'sooner' if value_s > 0 else 'later'}"


def _range(low_s: float, high_s: float) -> str:
    return f"{words.seconds(low_s).removesuffix(' s')}–{words.seconds(high_s)}"


def _total_outage_width_ms(found: Mapping[str, Json]) -> float | None:
    """The median width of the intervals of plain outages. Partial and hung ones, of which no prober can know the
    end as well, have no part in it."""
    rows = found.get("by_kind")
    if not isinstance(rows, list):
        return None
    dark = next((row for row in rows if isinstance(row, Mapping) and row.get("kind") == "dark"), {})
    # No width at all: each of them was disturbed.
    return _number(dark, "width_p50_ms") if _number(dark, "width_max_ms") else None


def _other_machine(campaign: Campaign) -> str:
    """In what the machine of the calibration is not the campaign's; empty if it is, or if nobody noted it."""
    then, now = campaign.calibration.get("machine"), campaign.machine
    if not isinstance(then, Mapping):
        return ""
    differs = [
        f"{words.clean(name).replace('_', ' ')} {words.clean(str(then[name]))}, here {words.clean(str(now[name]))}"
        for name in now
        if name in then and then[name] != now[name]
    ]
    return "; ".join(differs)


def _number(found: Mapping[str, Json], name: str) -> float | None:
    value = found.get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
