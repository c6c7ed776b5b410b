"""``monkeyproof stop``: ends the running campaign, and prevents new ones until the stop is cleared.

Imports its modules only when it runs, as the whole command line does.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import click

from monkeyproof.errors import EXIT_REFUSED, MonkeyproofError, NotReverted, UsageError

CHECK_EVERY_S = 0.02


class OtherCampaignsRun(MonkeyproofError):
    """Campaigns of other homes continue: not everything has ended."""

    exit_code = EXIT_REFUSED


@click.command("stop")
@click.option("--clear", is_flag=True, help="Remove the stop, so that campaigns may begin again.")
@click.option(
    "--within-s",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    help="How many seconds to wait for the end of the running campaign.",
)
def stop(*, clear: bool, within_s: float) -> None:
    """End the running campaign of this MONKEYPROOF_HOME, and prevent new ones until 'stop --clear'.

    Writes the stop file into the harness's home and waits. A running trial reverts its faults at once; the
    campaign then writes its report and ends. Exit code 5 if it does not end in time, or if something is left; 4 if
    campaigns of yours with another MONKEYPROOF_HOME still run: the command names them.
    """
    from monkeyproof.runtime.stop_file import stop_file

    if clear:
        there = stop_file().exists()
        with _stop_file_errors():
            stop_file().unlink(missing_ok=True)
        click.echo("Campaigns may begin again." if there else "Nothing was stopped.")
        return
    # The first step, before the imports that the checks of running campaigns need.
    begun_s, begun_utc_s = time.monotonic(), time.time()
    with _stop_file_errors():
        stop_file().touch(mode=0o600)
    from monkeyproof import paths
    from monkeyproof.runtime.locks import campaigns_of_other_homes
    from monkeyproof.safety.replay import running_campaign
    from monkeyproof.trial.cleanup import residue_since
    from monkeyproof.undo.log import describe_open, open_logs

    pid = running_campaign()
    clean_s = begun_s
    while (running := running_campaign()) is not None:
        pid = pid or running
        if _anything_open():
            clean_s = time.monotonic()
        if time.monotonic() - begun_s > within_s:
            raise NotReverted(
                f"the campaign of process {running} still runs after {within_s:g} s, and may still be reverting "
                "faults; run 'monkeyproof stop' again, or end the process and run 'monkeyproof revert'"
            )
        time.sleep(CHECK_EVERY_S)
    if left := describe_open(open_logs()):
        raise NotReverted(f"{left}; run 'monkeyproof revert'")
    if residue := residue_since(begun_utc_s):
        raise NotReverted(residue)
    if pid is None:
        click.echo(f"No campaign was running, and nothing is open, in {paths.home()}.")
    else:
        click.echo(
            f"The campaign of process {pid} ended after {time.monotonic() - begun_s:.1f} s; "
            f"its last fault was seen {clean_s - begun_s:.1f} s after the stop, and nothing is open."
        )
    click.echo(f"No campaign of {paths.home()} begins until 'monkeyproof stop --clear'.")
    if others := campaigns_of_other_homes():
        raise OtherCampaignsRun(
            f"still running: {', '.join(str(one) for one in others)}; run 'monkeyproof stop' there as well, or "
            "end the process with Ctrl-C"
        )


@contextlib.contextmanager
def _stop_file_errors() -> Iterator[None]:
    from monkeyproof.runtime.stop_file import stop_file

    try:
        yield
    except OSError as error:
        raise UsageError(f"{stop_file()}: {error.strerror}; end campaigns with Ctrl-C instead") from None


def _anything_open() -> bool:
    from monkeyproof.undo.log import open_logs

    try:
        return bool(open_logs())
    except FileNotFoundError:
        return True  # Another process moved a log away during the read: check again.
