"""Two campaigns beside one another, as ``monkeyproof compare`` prints them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from monkeyproof.reports import text
from monkeyproof.reports.model import judgement
from monkeyproof.reports.stats.comparison import Comparison

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


def print_comparison(
    found: Sequence[Comparison], unlike: Sequence[str], names: tuple[str, str], confidence: float, console: Console
) -> None:
    """A table of ``found``, effect first and p-value second, and in what the campaigns were not alike.

    Each experiment and arm takes two lines, A over B, so that no number is cut at 80 columns or in a pipe.
    """
    from rich.table import Table

    for letter, name in zip("AB", names, strict=True):
        console.print(_text(f"{letter}: {text.clean(name)}", console), soft_wrap=True)
    console.print()
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("experiment", "", "n", "recovered", "mean", f"A back ({text.percent(confidence)})", "p"):
        table.add_column(title, overflow="fold")
    for one in found:
        for cells in _rows(one):
            table.add_row(*(_text(cell, console) for cell in cells))
    console.print(table)
    console.print()
    for note in _notes(found):
        console.print(_text(note, console))
    if unlike:
        console.print("The two campaigns were not alike, and what differs may come from that:", style="yellow")
        for said in unlike:
            console.print(_text(f"- {text.clean(said)}", console), style="yellow")


def _rows(one: Comparison) -> tuple[list[str], list[str]]:
    paired = bool(one.pairs_count)
    pairs = text.count(one.pairs_count, "pair") if paired else "not paired"
    tests = [f"{judgement.p_value(one.log_rank_p)} log-rank"]
    if paired:
        test, p = judgement.paired_test(one)
        tests.insert(0, f"{judgement.p_value(p)} {test}")
    ours = [
        text.clean(one.experiment),
        "A",
        str(one.count),
        f"{one.recovered_count} of {one.compared_count}",
        text.seconds(one.restricted_mean_s),
        judgement.effect(one),
        tests[0],
    ]
    theirs = [
        f"  {judgement.healer_name(one.arm)}",
        "B",
        str(one.reference_count),
        f"{one.reference_recovered_count} of {one.reference_compared_count}",
        text.seconds(one.reference_restricted_mean_s),
        f"{pairs}, up to {text.seconds(one.horizon_s)}",
        tests[1] if paired else "",
    ]
    return ours, theirs


def _notes(found: Sequence[Comparison]) -> list[str]:
    said = [
        "n counts valid trials; recovered: of the trials compared, while the fault was held. The mean is that of "
        "the time without right answers, up to the horizon named (restricted mean)."
    ]
    if any(one.sooner.value_s is not None and one.sooner.low_s is None for one in found):
        said.append("No interval: fewer than two trials or pairs, or all of them ended alike.")
    if any(judgement.paired_test(one)[0] == "sign test" for one in found):
        said.append(
            "Where nearly all trials of a side ended alike, the interval allows for what so few cannot show, and "
            "p is that of the sign test: which of a pair recovered first."
        )
    return said


def _text(said: str, console: Console) -> Text:
    """Foreign text is not markup, and what a terminal cannot write is replaced."""
    from rich.text import Text

    return Text(said.replace("–", "-").encode(console.encoding, "replace").decode(console.encoding))
