"""The summary that the command line prints at the end of a campaign."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monkeyproof.config.target_file import Slo
from monkeyproof.reports import text as words
from monkeyproof.reports.model import facts, judgement
from monkeyproof.reports.model.facts import GroupFacts
from monkeyproof.reports.model.judgement import VerdictFacts
from monkeyproof.reports.model.verdict import judge
from monkeyproof.reports.stats.summary import summarise
from monkeyproof.types import Campaign

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
"""For terminals and pipes that cannot hold them."""


def print_summary(campaign: Campaign, slo: Slo, console: Console) -> None:
    """Print the verdict, the figures of every experiment and arm, and the comparisons.

    Where the table has no room, each row becomes a few lines: a number is never cut.
    """
    from rich.measure import Measurement
    from rich.text import Text

    verdict, summary = judge(campaign, slo), summarise(campaign, slo)
    lines = judgement.verdict_facts(verdict)
    by_arm = {(line.verdict.experiment, line.verdict.arm): line for line in lines}
    rows = [
        (row, by_arm.get((row.group.experiment, row.group.arm)))
        for row in facts.group_facts(facts.under_fault(summary.groups))
    ]
    table = _table(rows, slo, console)
    console.print()
    if Measurement.get(console, console.options.update(width=10_000), table).maximum <= console.width:
        console.print(table)
    else:
        for row, line in rows:
            _block(row, line, slo, console)
    for pair in summary.pairs:
        _say(console, judgement.comparison_line(pair))
    for sham in judgement.sham_facts(campaign):
        acted = f" ({sham.acted})" if sham.false_count else ""
        said = f"a healer acted in {sham.false_count} of {sham.count}{acted}"
        _say(console, f"Shams (nothing was broken), {sham.arm}: {said}", "red" if sham.false_count else "")
    for warning in facts.warnings(campaign, summary):
        _say(console, warning, "yellow")
    for line in judgement.lines_beside(verdict, judged_only=True):
        _say(console, f"{line.word}: {line.experiment}, {line.arm}. {line.reason}", STYLES[line.word][5:])
    told = Text("Verdict: ", "bold")
    told.append(verdict.decision, STYLES[verdict.decision])
    told.append(_fit(f". {judgement.reason(verdict)}", console))
    for part in told.wrap(console, console.width):
        part.rstrip()
        console.print(part)


def _table(rows: list[tuple[GroupFacts, VerdictFacts | None]], slo: Slo, console: Console) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    confidence = words.percent(slo.recovery.confidence)
    for name in ("experiment", "arm", "n", "outcomes", f"median ({confidence})", "p90", "restricted mean"):
        table.add_column(name, justify="right" if name == "n" else "left", no_wrap=True)
    table.add_column(f"within {words.setting(slo.recovery.within_s)}", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    before = ""
    for row, line in rows:
        name = "" if row.group.experiment == before else words.clean(row.group.experiment)
        before = row.group.experiment
        cells = (name, judgement.healer_name(row.group.arm), str(len(row.group.observations)), *_figures(row))
        word = line.word if line else ""
        table.add_row(*(Text(_fit(cell, console)) for cell in cells), Text(word, STYLES.get(word, "")))
    return table


def _figures(row: GroupFacts) -> list[str]:
    return [
        ", ".join(f"{number} {word}" for _, word, number in row.outcomes),
        _with(row.median, row.median_interval),
        row.p90,
        _with(row.restricted_mean, row.restricted_mean_interval),
        _with(row.in_time, row.in_time_interval),
    ]


def _block(row: GroupFacts, line: VerdictFacts | None, slo: Slo, console: Console) -> None:
    from rich.text import Text

    outcomes, median, p90, mean, in_time = _figures(row)
    head = Text(
        _fit(f"{words.clean(row.group.experiment)}, {judgement.healer_name(row.group.arm)}", console), "bold"
    )
    if line:
        head.append(": ")
        head.append(line.word, STYLES.get(line.word, ""))
    console.print(head)
    _say(console, f"  {words.count(len(row.group.observations), 'valid trial')}: {outcomes}")
    _say(console, f"  within {words.setting(slo.recovery.within_s)}: {in_time}")
    _say(console, f"  median {median}, p90 {p90}")
    _say(console, f"  restricted mean {mean}, up to {row.horizon}" if row.horizon else f"  restricted mean {mean}")


def _with(value: str, interval: str) -> str:
    return f"{value} ({interval})" if interval else value


def _say(console: Console, text: str, style: str = "") -> None:
    """One line; foreign text in it is not markup. What is too long is wrapped, and set in."""
    from rich.text import Text

    indent = len(text) - len(text.lstrip())
    for line in Text(_fit(text.lstrip(), console), style).wrap(console, console.width - indent):
        line.rstrip()
        console.print(Text(" " * indent).append_text(line))


def _fit(text: str, console: Console) -> str:
    if console.encoding.startswith("utf"):
        return text
    return text.translate(_PLAIN).encode(console.encoding, "replace").decode(console.encoding)
