"""What a person sees of a campaign, on a terminal and in a pipe."""

from __future__ import annotations

import io
from pathlib import Path

from campaign_world import FakeRunner, plan_of, target_file
from rich.console import Console

from monkeyproof.campaign.runner import run_campaign
from monkeyproof.cli.progress import SPARK_S, progress_on, sparkline
from monkeyproof.clock import ManualClock


def shown(folder: Path, *, terminal: bool) -> str:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=200, highlight=False)
    target = target_file(folder)
    plan = plan_of(folder / "c", target, arms="none,elephant", trials_count=2)
    with progress_on(plan.folder, console) as progress:
        run_campaign(plan, progress, ManualClock(), run_trial=FakeRunner(target))
    return text.getvalue()


def test_a_full_spark_means_that_every_answer_was_right() -> None:
    assert sparkline([1.0, 0.999, 0.5, 0.0, None]) == "█▇▄▁·".rjust(SPARK_S)


def test_plain_lines_show_the_verdict_so_far_after_each_block(tmp_path: Path) -> None:
    lines = shown(tmp_path, terminal=False).splitlines()
    assert [line[:5] for line in lines if line.startswith("[")] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    told = [line.strip() for line in lines if "so far" in line]
    assert told == ["so far inconclusive: latency-spike (elephant) 1 of 1 in time; at most 2 trials left"]
    assert "\x1b" not in "".join(lines)


def test_a_terminal_keeps_every_finished_trial(tmp_path: Path) -> None:
    text = shown(tmp_path, terminal=True)
    assert text.count("absorbed") == 4
