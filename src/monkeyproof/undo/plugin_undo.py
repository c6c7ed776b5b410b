"""Undo functions of plugins: which ones an undo log may name, and whether a fresh process finds them.

Run as ``python -m monkeyproof.undo.plugin_undo MODULE:FUNCTION TARGET_FILE`` it resolves one as the watchdog and
``monkeyproof revert`` would, and exits with 2 and a message where it cannot.
"""

from __future__ import annotations

import functools
import inspect
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from monkeyproof.config.target_file import plugins_named_in
from monkeyproof.errors import EXIT_USAGE, UsageError
from monkeyproof.plugins import registry as plugins
from monkeyproof.plugins.registry import Plugin, holder_of_undo, is_undo

FOUND_WITHIN_S = 30.0
"""How long a fresh process may take to import a plugin."""


def resolve(function: str, target_file: Path | None, package: str = "") -> Callable[..., object]:
    """The undo function that a log names.

    It has to be marked with ``monkeyproof.plugins.undo`` and be defined in a plugin: of an installed package, or
    of those that the target file names at this moment.

    Args:
        function: ``acme_faults:start_again``.
        target_file: of the fault.
        package: what the function came with, as the log has it; "" if it does not say.

    Raises:
        UsageError: there is no such undo; says what is missing.
    """
    module, _, name = function.partition(":")
    named, unread = _named_in(target_file)
    plugin = holder_of_undo(module, named)
    if plugin is None:
        raise UsageError(_missing(function, target_file, package, unread))
    if plugin in named:
        plugins.declare([plugin])
    found = getattr(plugin.imported(module), name, None)
    if not inspect.isfunction(found) or not is_undo(found) or not plugin.holds(found.__module__):
        raise UsageError(
            f"undo log: {plugin.origin} has no undo {function!r}; an undo is a function that is defined there and "
            "marked with monkeyproof.plugins.undo"
        )
    return found


def origin_of(function: str, target_file: Path) -> str:
    """What an undo function comes with, for the log; "" if it is built in."""
    plugin = holder_of_undo(function.partition(":")[0], _named_in(target_file)[0])
    return plugin.origin if plugin is not None else ""


@functools.lru_cache
def why_lost(function: str, target_file: Path) -> str:
    """Why the watchdog, or ``monkeyproof revert``, would not find an undo; "" if a fresh process finds it.

    That process has this one's environment, but neither its folder nor what it did to its module search path.
    """
    words = [sys.executable, "-P", "-m", __name__, function, str(target_file)]
    try:
        done = subprocess.run(
            words,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=FOUND_WITHIN_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"{function!r} takes more than {FOUND_WITHIN_S:g} s to import"
    lines = done.stderr.strip().splitlines() or [f"its import ended the process ({done.returncode})"]
    return "" if done.returncode == 0 else lines[-1]


def _named_in(target_file: Path | None) -> tuple[Sequence[Plugin], str]:
    """What a target file names, and why that is not known."""
    if target_file is None:
        return (), ""
    try:
        return plugins_named_in(target_file), ""
    except UsageError as error:
        return (), str(error)


def _missing(function: str, target_file: Path | None, package: str, unread: str) -> str:
    if unread:
        return f"undo log: {function!r} is not found: {unread}"
    if package:
        return (
            f"undo log: {function!r} is not found: it came with {package}, which is missing now; restore that, "
            "then run 'monkeyproof revert'"
        )
    where = f", and {target_file} does not name it in plugins" if target_file is not None else ""
    return (
        f"undo log: {function!r} is not an undo of monkeyproof's: no installed package has the plugin "
        f"{function.partition(':')[0]!r}{where}"
    )


def main() -> None:
    """Entry of the fresh process."""
    try:
        resolve(sys.argv[1], Path(sys.argv[2]))
    except UsageError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(EXIT_USAGE)


if __name__ == "__main__":
    main()
