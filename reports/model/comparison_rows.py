"""How much sooner one arm recovered than another, in words: effect first, p-value second."""

from __future__ import annotations

from dataclasses import dataclass

from monkeyproof.reports import text
from monkeyproof.reports.model.names import healer_name
from monkeyproof.reports.stats.comparison import Comparison

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
class ComparisonRow:
    """An arm against the arm without a healer, in one experiment."""

    comparison: Comparison
    cells: tuple[str, ...]
    """Under ``COMPARISON_COLUMNS``."""
    line: str
    """The same in one sentence."""


def comparison_rows(found: tuple[Comparison, ...]) -> tuple[ComparisonRow, ...]:
    return tuple(ComparisonRow(one, tuple(_cells(one)), _line(one)) for one in found)


def paired_test(found: Comparison) -> tuple[str, float | None]:
    """The test of pairs and its p-value: the exact sign test where too few trials differ for that of the means."""
    by_sign = found.paired_p is None and found.sign_p is not None
    return ("sign test", found.sign_p) if by_sign else ("paired", found.paired_p)


def effect(found: Comparison) -> str:
    """``4.10 s sooner (2.20–6.00 s)``; an interval that holds zero names the direction of each end."""
    value_s, low_s, high_s = found.sooner.value_s, found.sooner.low_s, found.sooner.high_s
    if value_s is None:
        return text.UNKNOWN
    shift = _shift(value_s)
    if low_s is None or high_s is None:
        return f"{shift} (no interval)"
    if low_s >= 0 and value_s >= 0:
        return f"{shift} ({_range(low_s, high_s)})"
    if high_s <= 0 and value_s <= 0:
        return f"{shift} ({_range(-high_s, -low_s)})"
    return f"{shift} ({_shift(low_s)} to {_shift(high_s)})"


def p_value(found: float | None) -> str:
    if found is None:
        return "not defined"
    if found < 0.001:
        return "< 0.001"
    return f"{found:.3f}" if found < 0.1 else f"{found:.2f}"


def _cells(found: Comparison) -> list[str]:
    """The effect with its interval, p-values, then counts; pairs are trials of equal seeds."""
    count, of = (found.pairs_count,) * 2 if found.pairs_count else (found.count, found.reference_count)
    only = (str(found.only_ours_count), str(found.only_reference_count)) if found.pairs_count else ("", "")
    return [
        f"{effect(found)}, in means up to {text.seconds(found.horizon_s)}",
        _paired_cell(found),
        p_value(found.log_rank_p),
        f"{found.recovered_count} of {count}",
        f"{found.reference_recovered_count} of {of}",
        *only,
    ]


def _line(found: Comparison) -> str:
    pairs = text.count(found.pairs_count, "pair") if found.pairs_count else "not paired"
    test, p = paired_test(found)
    tests = [f"{test} p {p_value(p)}"] if found.pairs_count else []
    tests.append(f"log-rank p {p_value(found.log_rank_p)}")
    return (
        f"{text.clean(found.experiment)}, {healer_name(found.name)} against {healer_name(found.reference)} "
        f"({pairs}): right answers back: {effect(found)}, in means up to {text.seconds(found.horizon_s)}; "
        f"{', '.join(tests)}"
    )


def _paired_cell(found: Comparison) -> str:
    if not found.pairs_count:
        return "not paired"
    test, p = paired_test(found)
    return p_value(p) if test == "paired" else f"{p_value(p)} ({test})"


def _shift(value_s: float) -> str:
    if abs(value_s) < 0.005:
        return "no difference"
    return f"{text.seconds(abs(value_s))} {'sooner' if value_s > 0 else 'later'}"


def _range(low_s: float, high_s: float) -> str:
    return f"{text.seconds(low_s).removesuffix(' s')}–{text.seconds(high_s)}"
