"""``monkeyproof stop``: everything that breaks something ends, and nothing new begins until that is taken back.

Imports what it needs only when it runs, as the command line does.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import click

from monkeyproof.errors import NotReverted, UsageError

LOOK_EVERY_S = 0.02


@click.command("stop")
@click.option("--clear", is_flag=True, help="Take the stop back: campaigns may begin again.")
@click.option(
    "--within-s",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    help="How long to wait for the end of a running campaign.",
)
def stop(*, clear: bool, within_s: float) -> None:
    """End any campaign on this machine, everything reverted; none begins until 'stop --clear'.

    Writes the stop file into the harness's home and waits. A trial takes its faults back at once; the campaign
    then writes its report, and ends. Exit code 5 if it does not end in time, or if something is left.
    """
    from monkeyproof.stopping import stop_file

    if clear:
        there = stop_file().exists()
        with _told():
            stop_file().unlink(missing_ok=True)
        click.echo("Campaigns may begin again." if there else "Nothing was stopped.")
        return
    # First of all, for what it takes to look at campaigns is imported only then.
    begun_s, begun_utc_s = time.monotonic(), time.time()
    with _told():
        stop_file().touch(mode=0o600)
    from monkeyproof.aftermath import left_since
    from monkeyproof.reverting import running_campaign
    from monkeyproof.undo import open_logs, read_open

    pid = running_campaign()
    clean_s = begun_s
    while (running := running_campaign()) is not None:
        pid = pid or running
        if _anything_open():
            clean_s = time.monotonic()
        if time.monotonic() - begun_s > within_s:
            raise NotReverted(
                f"the campaign of process {running} still runs after {within_s:g} s, and may still be taking "
                "things back; say 'monkeyproof stop' again, or end the process and say 'monkeyproof revert'"
            )
        time.sleep(LOOK_EVERY_S)
    left = [fault for log in open_logs() for fault in read_open(log)]
    if left:
        raise NotReverted(
            f"{len(left)} fault{'s' if len(left) > 1 else ''} may still be there "
            f"({left[0].fault} on {left[0].subject}); run 'monkeyproof revert'"
        )
    if residue := left_since(begun_utc_s):
        raise NotReverted(residue)
    if pid is None:
        click.echo("No campaign was running, and nothing is open.")
    else:
        click.echo(
            f"The campaign of process {pid} ended after {time.monotonic() - begun_s:.1f} s; "
            f"its last fault was seen {clean_s - begun_s:.1f} s after the stop, and nothing is open."
        )
    click.echo("No campaign begins until 'monkeyproof stop --clear'.")


@contextlib.contextmanager
def _told() -> Iterator[None]:
    from monkeyproof.stopping import stop_file

    try:
        yield
    except OSError as error:
        raise UsageError(f"{stop_file()}: {error.strerror}; end campaigns with Ctrl-C instead") from None


def _anything_open() -> bool:
    from monkeyproof.undo import open_logs

    try:
        return bool(open_logs())
    except FileNotFoundError:
        return True  # A log was moved away while it was being read: look again.
