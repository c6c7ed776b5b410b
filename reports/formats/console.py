"""The summary that the command line prints at the end of a campaign."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from monkeyproof.config.target_file import Slo
from monkeyproof.reports import text as words
from monkeyproof.reports.model.group_rows import GroupRow
from monkeyproof.reports.model.names import healer_name
from monkeyproof.reports.model.report import Report
from monkeyproof.reports.model.verdict_rows import VerdictRow

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STYLES = {
    "pass": "bold green",
    "fail": "bold red",
    "inconclusive": "bold yellow",
    "aborted": "bold magenta",
    "reference": "dim",
}
_PLAIN = str.maketrans({"–": "-", "−": "-", "→": "->", "…": "..."})
"""For terminals and pipes that cannot print them."""


def print_summary(report: Report, console: Console) -> None:
    """Print the verdict, the figures of every experiment and arm, and the comparisons.

    Where the table does not fit, each row becomes a few lines: a number is never cut.
    """
    from rich.text import Text

    console.print()
    _print_groups(report, console)
    for comparison in report.comparisons:
        _print_line(console, comparison.line)
    for sham in report.shams:
        acted = f" ({sham.acted})" if sham.false_count else ""
        counts = f"a healer acted in {sham.false_count} of {sham.count}{acted}"
        _print_line(
            console, f"Shams (nothing was broken), {sham.arm}: {counts}", "red" if sham.false_count else ""
        )
    for warning in report.warnings:
        _print_line(console, warning, "yellow")
    for row in report.verdict_rows_beside:
        if row.verdict.judged:
            _print_line(console, f"{row.word}: {row.experiment}, {row.arm}. {row.reason}", STYLES[row.word][5:])
    line = Text("Verdict: ", "bold")
    line.append(report.verdict.decision, STYLES[report.verdict.decision])
    line.append(_printable(f". {report.verdict_reason}", console))
    for part in line.wrap(console, console.width):
        part.rstrip()
        console.print(part)


def _print_groups(report: Report, console: Console) -> None:
    from rich.measure import Measurement

    by_arm = {(row.verdict.experiment, row.verdict.arm): row for row in report.verdict_rows}
    rows = [(row, by_arm.get((row.group.experiment, row.group.arm))) for row in report.groups]
    table = _table(rows, report.slo, console)
    if Measurement.get(console, console.options.update(width=10_000), table).maximum <= console.width:
        console.print(table)
        return
    for row, verdict in rows:
        _print_block(row, verdict, report.slo, console)


def _table(rows: Sequence[tuple[GroupRow, VerdictRow | None]], slo: Slo, console: Console) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    confidence = words.percent(slo.recovery.confidence)
    for name in ("experiment", "arm", "n", "outcomes", f"median ({confidence})", "p90", "restricted mean"):
        table.add_column(name, justify="right" if name == "n" else "left", no_wrap=True)
    table.add_column(f"within {words.setting(slo.recovery.within_s)}", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    before = ""
    for row, verdict in rows:
        name = "" if row.group.experiment == before else words.clean(row.group.experiment)
        before = row.group.experiment
        cells = (name, healer_name(row.group.arm), str(len(row.group.observations)), *_figures(row))
        word = verdict.word if verdict else ""
        table.add_row(*(Text(_printable(cell, console)) for cell in cells), Text(word, STYLES.get(word, "")))
    return table


def _figures(row: GroupRow) -> list[str]:
    return [
        ", ".join(f"{number} {word}" for _, word, number in row.outcomes),
        _with(row.median, row.median_interval),
        row.p90,
        _with(row.restricted_mean, row.restricted_mean_interval),
        _with(row.in_time, row.in_time_interval),
    ]


def _print_block(row: GroupRow, verdict: VerdictRow | None, slo: Slo, console: Console) -> None:
    from rich.text import Text

    outcomes, median, p90, mean, in_time = _figures(row)
    head = Text(_printable(f"{words.clean(row.group.experiment)}, {healer_name(row.group.arm)}", console), "bold")
    if verdict:
        head.append(": ")
        head.append(verdict.word, STYLES.get(verdict.word, ""))
    console.print(head)
    _print_line(console, f"  {words.count(len(row.group.observations), 'valid trial')}: {outcomes}")
    _print_line(console, f"  within {words.setting(slo.recovery.within_s)}: {in_time}")
    _print_line(console, f"  median {median}, p90 {p90}")
    horizon = f", up to {row.horizon}" if row.horizon else ""
    _print_line(console, f"  restricted mean {mean}{horizon}")


def _with(value: str, interval: str) -> str:
    return f"{value} ({interval})" if interval else value


def _print_line(console: Console, text: str, style: str = "") -> None:
    """Print one line, wrapped and indented where it is too long. Foreign text in it is not markup."""
    from rich.text import Text

    indent = len(text) - len(text.lstrip())
    for line in Text(_printable(text.lstrip(), console), style).wrap(console, console.width - indent):
        line.rstrip()
        console.print(Text(" " * indent).append_text(line))


def _printable(text: str, console: Console) -> str:
    if console.encoding.startswith("utf"):
        return text
    return text.translate(_PLAIN).encode(console.encoding, "replace").decode(console.encoding)
