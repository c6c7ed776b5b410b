"""How a campaign goes, while it goes: a live panel on a terminal, plain lines everywhere else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from monkeyproof.campaign import Watcher
from monkeyproof.probes.watch import LiveView, live
from monkeyproof.trial import TrialPlan
from monkeyproof.types import Outcome, TrialResult

STYLES = {
    Outcome.ABSORBED: "green",
    Outcome.HEALED: "green",
    Outcome.SELF_RECOVERED: "green",
    Outcome.FAULT_REMOVED: "yellow",
    Outcome.NOT_RECOVERED: "red",
    Outcome.INVALID: "magenta",
}
BAR_CELLS = 24


@contextlib.contextmanager
def watcher(folder: Path, console: Console | None = None) -> Iterator[Watcher]:
    """A watcher that suits the console: live on a terminal, lines in CI and pipes."""
    console = console or Console(highlight=False)
    console.print(f"Campaign {folder.name}")
    if not console.is_terminal:
        yield Lines(console)
        return
    with Live(console=console, refresh_per_second=8, transient=True) as panel:
        yield Panel(console, panel)


class Lines:
    """One line when a trial starts, one for each new phase, one when it ends."""

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


class Panel(Lines):
    """Finished trials scroll by; the running one stays at the bottom and moves."""

    def __init__(self, console: Console, panel: Live) -> None:
        super().__init__(console)
        self._panel = panel

    def trial_started(self, plan: TrialPlan, number: int, of: int) -> None:
        self._heading = heading(plan, number, of)
        self._panel.update(Text(self._heading, style="bold"))

    def tick(self, folder: Path) -> None:
        view = live(folder)
        self._panel.update(Group(Text(self._heading, style="bold"), _gauge(view), Text(f"  {broken(view, ' ')}")))

    def trial_ended(self, result: TrialResult) -> None:
        self._panel.update(Text(""))
        self._console.print(Text(self._heading, style="bold"))
        super().trial_ended(result)


def heading(plan: TrialPlan, number: int, of: int) -> str:
    """``[2/5] latency-spike  healer elephant  seed 1``"""
    return f"[{number}/{of}] {plan.experiment}  healer {plan.arm}  seed {plan.seed}"


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
    text.append(f": {recovery.reason}")
    return text
