"""Failures that a user can act on, each with the exit code of the command line.

Messages say what is wrong, where, and what to do. The command line prints them without a traceback.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAIL = 1
"""The verdict of ``monkeyproof gate``, like 3; no other command uses them."""
EXIT_USAGE = 2
EXIT_INCONCLUSIVE = 3
EXIT_REFUSED = 4
EXIT_NOT_REVERTED = 5


LINE_MAX = 1000
LINES_MAX = 25


class MonkeyproofError(Exception):
    """Base of every failure whose message is for the user; the command line returns ``exit_code``."""

    exit_code = EXIT_USAGE

    def __init__(self, words: str = "") -> None:
        # The message may quote a file or a service's answer, and is printed on a terminal.
        lines = [
            line if len(line) <= LINE_MAX else f"{line[:LINE_MAX]}..." for line in printable(words).split("\n")
        ]
        if len(lines) > LINES_MAX:
            lines[LINES_MAX:] = [f"... and {len(lines) - LINES_MAX} lines more"]
        super().__init__("\n".join(lines))


def printable(text: str) -> str:
    """The text with each control or invisible character escaped as its number."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in str(text)
    )


class UsageError(MonkeyproofError):
    """A wrong name, file or parameter, or a target that does not answer: nothing was changed."""


class Refusal(MonkeyproofError):
    """The harness refused to inject, or to do something else. Reads ``not injecting: why; what to do``."""

    exit_code = EXIT_REFUSED

    def __init__(self, why: str, what_to_do: str, *, doing: str = "injecting") -> None:
        super().__init__(f"not {doing}: {why}; {what_to_do}")


class Unproven(MonkeyproofError):
    """A fault was injected and no evidence of an effect was found: the trial is invalid."""


class NotReverted(MonkeyproofError):
    """An injected fault could not be reverted; the message says what is left and how to repair it."""

    exit_code = EXIT_NOT_REVERTED


class TargetError(MonkeyproofError):
    """The target answered a control request with a failure, or not at all."""


class NotThere(TargetError):
    """The requested thing does not exist on the target: a retry changes nothing."""


class RenamedWarning(FutureWarning):
    """A name in a file, on the command line or in a call has been replaced, and works for one version more."""
