"""Two campaigns beside one another, as ``monkeyproof compare`` prints them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from monkeyproof.reports import text
from monkeyproof.reports.model.campaign_comparison import CampaignComparison
from monkeyproof.reports.model.comparison_rows import effect, p_value, paired_test
from monkeyproof.reports.model.names import healer_name
from monkeyproof.reports.stats.comparison import Comparison

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


def print_comparison(found: CampaignComparison, console: Console) -> None:
    """Print a table, effect first and p-value second, and in what the campaigns were not alike.

    Each experiment and arm takes two lines, A over B, so that no number is cut at 80 columns or in a pipe.
    """
    from rich.table import Table

    for letter, name in zip("AB", found.names, strict=True):
        console.print(_text(f"{letter}: {text.clean(name)}", console), soft_wrap=True)
    console.print()
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    interval = f"A back ({text.percent(found.confidence)})"
    for title in ("experiment", "", "n", "recovered", "mean", interval, "p"):
        table.add_column(title, overflow="fold")
    for one in found.comparisons:
        for cells in _rows(one):
            table.add_row(*(_text(cell, console) for cell in cells))
    console.print(table)
    console.print()
    for note in _notes(found.comparisons):
        console.print(_text(note, console))
    if found.differences:
        console.print("The two campaigns were not alike, and what differs may come from that:", style="yellow")
        for difference in found.differences:
            console.print(_text(f"- {text.clean(difference)}", console), style="yellow")


def _rows(one: Comparison) -> tuple[list[str], list[str]]:
    paired = bool(one.pairs_count)
    pairs = text.count(one.pairs_count, "pair") if paired else "not paired"
    tests = [f"{p_value(one.log_rank_p)} log-rank"]
    if paired:
        test, p = paired_test(one)
        tests.insert(0, f"{p_value(p)} {test}")
    ours = [
        text.clean(one.experiment),
        "A",
        str(one.count),
        f"{one.recovered_count} of {one.compared_count}",
        text.seconds(one.restricted_mean_s),
        effect(one),
        tests[0],
    ]
    theirs = [
        f"  {healer_name(one.arm)}",
        "B",
        str(one.reference_count),
        f"{one.reference_recovered_count} of {one.reference_compared_count}",
        text.seconds(one.reference_restricted_mean_s),
        f"{pairs}, up to {text.seconds(one.horizon_s)}",
        tests[1] if paired else "",
    ]
    return ours, theirs


def _notes(found: Sequence[Comparison]) -> list[str]:
    notes = [
        "n counts valid trials; recovered: of the trials compared, while the fault was held. The mean is that of "
        "the time without right answers, up to the horizon named (restricted mean)."
    ]
    if any(one.sooner.value_s is not None and one.sooner.low_s is None for one in found):
        notes.append("No interval: fewer than two trials or pairs, or all of them ended alike.")
    if any(paired_test(one)[0] == "sign test" for one in found):
        notes.append(
            "Where nearly all trials of a side ended alike, the interval allows for what so few cannot show, and "
            "p is that of the sign test: which of a pair recovered first."
        )
    return notes


def _text(line: str, console: Console) -> Text:
    """Foreign text is not markup, and characters that the terminal cannot print are replaced."""
    from rich.text import Text

    return Text(line.replace("–", "-").encode(console.encoding, "replace").decode(console.encoding))
