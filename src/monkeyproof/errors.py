"""Failures that a person can act on, and the exit code that each one ends the command line with.

Messages say what is wrong, where, and what to do. The command line prints them without a traceback.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAIL = 1
"""Of ``monkeyproof gate`` alone, as 3 is: the verdict."""
EXIT_USAGE = 2
EXIT_INCONCLUSIVE = 3
EXIT_REFUSED = 4
EXIT_NOT_REVERTED = 5


LINE_MAX = 1000
LINES_MAX = 25


class MonkeyproofError(Exception):
    """Base of every failure that is the user's to read; ``exit_code`` is what the command line returns."""

    exit_code = EXIT_USAGE

    def __init__(self, words: str = "") -> None:
        # They may quote a file, or what a service said, and are printed on a terminal.
        lines = [
            line if len(line) <= LINE_MAX else f"{line[:LINE_MAX]}..." for line in printable(words).split("\n")
        ]
        if len(lines) > LINES_MAX:
            lines[LINES_MAX:] = [f"... and {len(lines) - LINES_MAX} lines more"]
        super().__init__("\n".join(lines))


def printable(text: str) -> str:
    """The text with each character that would act on a terminal, or show as nothing, as its number."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in str(text)
    )


class UsageError(MonkeyproofError):
    """A wrong name, file or parameter, or a target that does not answer: nothing was changed."""


class Refusal(MonkeyproofError):
    """The harness declined to inject, or something else. Reads ``not injecting: why; what to do``."""

    exit_code = EXIT_REFUSED

    def __init__(self, why: str, what_to_do: str, *, doing: str = "injecting") -> None:
        super().__init__(f"not {doing}: {why}; {what_to_do}")


class Unproven(MonkeyproofError):
    """A fault was injected and no evidence of an effect was found: the trial is invalid, and says so itself."""


class NotReverted(MonkeyproofError):
    """Something that was injected could not be undone; the message says what is left and how to mend it."""

    exit_code = EXIT_NOT_REVERTED


class TargetError(MonkeyproofError):
    """The target answered a control request with a failure, or not at all."""


class NotThere(TargetError):
    """What the target was asked for does not exist: asking again changes nothing."""


class RenamedWarning(FutureWarning):
    """A name in a file, on the command line or in a call has been replaced, and works for one version more."""
