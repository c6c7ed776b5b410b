"""How a campaign goes, while it goes: a live panel on a terminal, plain lines everywhere else."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from monkeyproof.campaign.runner import ProgressListener
from monkeyproof.probes.watch import LiveView, live
from monkeyproof.reports.model.report import Report
from monkeyproof.reports.model.verdict import CampaignVerdict
from monkeyproof.reports.text import clean
from monkeyproof.trial.plan import TrialPlan
from monkeyproof.types import Outcome, TrialResult

STYLES = {
    Outcome.ABSORBED: "green",
    Outcome.HEALED: "green",
    Outcome.SELF_RECOVERED: "green",
    Outcome.FAULT_REMOVED: "yellow",
    Outcome.NOT_RECOVERED: "red",
    Outcome.INVALID: "magenta",
    Outcome.UNPROVEN: "magenta",
}
BAR_CELLS = 24
SPARK_S = 20
SPARKS = "▁▂▃▄▅▆▇█"


@contextlib.contextmanager
def watcher(folder: Path, console: Console | None = None) -> Iterator[ProgressListener]:
    """A watcher that suits the console: live on a terminal, lines in CI and pipes."""
    console = console or Console(highlight=False)
    console.print(f"Campaign {folder.name}")
    if not console.is_terminal:
        yield Lines(console)
        return
    with Live(console=console, refresh_per_second=8, transient=True) as panel:
        yield Panel(console, panel)


class Lines:
    """One line when a trial starts, one for each new phase, one when it ends; the verdict so far after a block."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._heading = ""

    def trial_started(self, plan: TrialPlan, number: int, of: int) -> None:
        self._phase = ""
        self._heading = heading(plan, number, of)
        self._console.print(self._heading)

    def tick(self, folder: Path) -> None:
        view = live(folder)
        if view.phase and view.phase != self._phase:
            self._phase = view.phase
            words = f"  {view.elapsed_s:6.1f} s  {view.phase.replace('_', ' ')}{broken(view)}"
            self._console.print(words, soft_wrap=True)

    def trial_ended(self, result: TrialResult) -> None:
        self._console.print(verdict(result), soft_wrap=True)

    def so_far(self, report: Report, left: int, block_ended: bool) -> None:
        # After the last block, the summary gives the verdict.
        if block_ended and left:
            self._console.print(f"  {so_far_words(report.verdict, left)}", soft_wrap=True)


class Panel(Lines):
    """Finished trials scroll by; the running one stays at the bottom and moves."""

    def __init__(self, console: Console, panel: Live) -> None:
        super().__init__(console)
        self._panel = panel
        self._so_far = ""
        self._shares: deque[float | None] = deque(maxlen=SPARK_S)
        self._second = -1

    def trial_started(self, plan: TrialPlan, number: int, of: int) -> None:
        self._heading = heading(plan, number, of)
        self._shares.clear()
        self._second = -1
        self._panel.update(Text(self._heading, style="bold"))

    def tick(self, folder: Path) -> None:
        view = live(folder)
        if int(view.elapsed_s) > self._second:
            self._second = int(view.elapsed_s)
            self._shares.append(view.good_share)
        rows = [Text(self._heading, style="bold"), _gauge(view), Text(f"  {sparkline(self._shares)}")]
        rows[-1].append(broken(view))
        if self._so_far:
            rows.append(Text(f"  {self._so_far}", style="dim"))
        self._panel.update(Group(*rows))

    def trial_ended(self, result: TrialResult) -> None:
        self._panel.update(Text(""))
        self._console.print(Text(self._heading, style="bold"))
        super().trial_ended(result)

    def so_far(self, report: Report, left: int, block_ended: bool) -> None:  # noqa: ARG002
        self._so_far = so_far_words(report.verdict, left)


def sparkline(shares: Iterable[float | None]) -> str:
    """The good share, a second a cell, the newest to the right; a dot where it is not known."""
    top = len(SPARKS) - 1
    # Rounded down: only a second without one bad answer stands as high as it can.
    return "".join("·" if share is None else SPARKS[int(share * top)] for share in shares).rjust(SPARK_S)


def so_far_words(found: CampaignVerdict, left: int) -> str:
    """``so far inconclusive: latency-spike (elephant) 3 of 3 in time; at most 12 trials left``"""
    parts = [
        f"{one.experiment} ({_who(one.arm)}) {one.in_time.successes} of {one.in_time.count} in time"
        for one in found.verdicts
        if one.judged and one.in_time
    ]
    told = f"so far {found.decision}" + (f": {', '.join(parts)}" if parts else "")
    return f"{told}; at most {left} {'trial' if left == 1 else 'trials'} left"


def heading(plan: TrialPlan, number: int, of: int) -> str:
    """``[2/5] latency-spike  healer elephant  seed 1``"""
    who = _who(plan.arm) if plan.arm == "none" else f"healer {plan.arm}"
    return f"[{number}/{of}] {plan.experiment}  {who}  seed {plan.seed}"


def _who(arm: str) -> str:
    return "no healer" if arm == "none" else arm


def broken(view: LiveView, before: str = "  ") -> str:
    """What is being broken right now, if anything."""
    return f"{before}broken: {', '.join(view.faults)}" if view.faults else ""


def _gauge(view: LiveView) -> Text:
    """Phase, elapsed time, the good share as a bar, and the latency."""
    text = Text(f"  {view.phase.replace('_', ' ') or 'starting':13} {view.elapsed_s:5.1f} s  right answers ")
    if view.good_share is None:
        return text + Text("could not tell", style="dim")
    cells = round(view.good_share * BAR_CELLS)
    style = "green" if view.good_share >= 0.99 else "red"
    text.append("█" * cells, style)
    text.append("░" * (BAR_CELLS - cells), "dim")
    text.append(f" {view.good_share:4.0%}", style)
    if view.latency_p50_ms is not None:
        text.append(f"  p50 {view.latency_p50_ms:.0f} ms")
    return text


def verdict(result: TrialResult) -> Text:
    """One line on how a trial ended."""
    recovery = result.recovery
    text = Text("  ")
    text.append(recovery.outcome.replace("_", " "), STYLES[recovery.outcome])
    text.append(f": {clean(recovery.reason)}")
    return text
