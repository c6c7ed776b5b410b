"""The golden set: questions whose right answers are known, and the judgement of an answer against them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from jsonpath_ng.parser import JsonPathParser

from monkeyproof.config.user_files import GOLDEN_BYTES_MAX, read_text, shown
from monkeyproof.errors import UsageError
from monkeyproof.types import Json

_KEYS = {"body", "expect", "tolerance"}
GOLDEN_MIN = 100
"""With fewer, answers that a cache or a broken model happens to have may pass for health."""


@dataclass(frozen=True, slots=True)
class Golden:
    """One question with its right answer."""

    body: bytes
    """The request's body, as JSON."""
    expect: Json
    tolerance: float = 0.0
    """How far a number may be from the expected one and still be right."""


def read_golden(path: Path) -> tuple[Golden, ...]:
    """Read a file of JSON lines ``{"body": ..., "expect": ..., "tolerance": 0}``; the tolerance is optional.

    Raises:
        UsageError: it is missing, empty, or a line is not understood; with file and line.
    """
    text = read_text(path, "the golden set ", GOLDEN_BYTES_MAX)
    found = tuple(
        _parse(line, f"{path}:{number}") for number, line in enumerate(text.split("\n"), start=1) if line.strip()
    )
    if not found:
        raise UsageError(
            f'{path}:1: the golden set is empty; give at least one line {{"body": ..., "expect": ...}}'
        )
    return found


def too_few_words(path: Path) -> str:
    """A warning for the person who wrote a golden set that is short; empty if it is long enough.

    Raises:
        UsageError: it is missing, empty, or a line is not understood.
    """
    count = len({golden.body for golden in read_golden(path)})
    if count >= GOLDEN_MIN:
        return ""
    return (
        f"{path}: {count} different questions are few: a cached answer can pass for health; "
        f"give at least {GOLDEN_MIN} real ones"
    )


def _parse(line: str, where: str) -> Golden:
    try:
        raw = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON: {error}") from None
    if not isinstance(raw, dict) or not {"body", "expect"} <= raw.keys():
        raise UsageError(f'{where}: a line of a golden set is {{"body": ..., "expect": ..., "tolerance": 0}}')
    unknown = sorted(raw.keys() - _KEYS)
    if unknown:
        raise UsageError(f"{where}: {unknown[0]:.80}: unknown key; a line has body, expect and tolerance")
    tolerance = raw.get("tolerance", 0)
    if not _is_number(tolerance) or not 0 <= tolerance <= sys.float_info.max:
        raise UsageError(f"{where}: tolerance: a number that is not negative (found {shown(tolerance)})")
    try:
        body = json.dumps(raw["body"], separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: body: cannot be sent as JSON: {error}") from None
    return Golden(body, raw["expect"], float(tolerance))


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON, and not an answer that can be right")


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_right(prediction: Json, golden: Golden) -> bool:
    """Whether a prediction is the known right answer, numbers within the tolerance. NaN is wrong."""
    return _same(prediction, golden.expect, golden.tolerance)


def _same(found: Json, expected: Json, tolerance: float) -> bool:
    # The recursion follows what is expected, which is our own file, and not what a broken service sends.
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(found) == len(expected)
            and all(_same(*pair, tolerance) for pair in zip(found, expected, strict=True))
        )
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and found.keys() == expected.keys()
            and all(_same(found[key], value, tolerance) for key, value in expected.items())
        )
    if _is_number(expected):
        if not _is_number(found):
            return False
        try:
            return bool(abs(found - expected) <= tolerance)  # False for NaN.
        except OverflowError:  # An integer beyond all floats.
            return False
    return type(found) is type(expected) and bool(found == expected)


_MISSING = object()


class JsonPath:
    """A compiled JSONPath. (Finding ``$.predictions[0]`` takes 3 us, so simple paths need no way of their own.)"""

    def __init__(self, path: str, where: str) -> None:
        """Compile ``path``; ``where`` names it in the message.

        Raises:
            UsageError: it is not a JSONPath.
        """
        try:
            self._path: Any = JsonPathParser().parse(path)
        except Exception as error:  # The library raises its own kinds, and AttributeError for some typos.
            raise UsageError(f"{where}: {path!r} is not a JSONPath: {error}") from None

    def find(self, document: Json, default: Json = None) -> Json:
        """What the path leads to; a list if it leads to several places; ``default`` if it leads nowhere."""
        found = [match.value for match in self._path.find(document)]
        return default if not found else found[0] if len(found) == 1 else found

    def take(self, document: Json) -> Json:
        """What the path leads to.

        Raises:
            LookupError: it leads nowhere.
        """
        found = self.find(document, _MISSING)
        if found is _MISSING:
            raise LookupError("no prediction")
        return found
