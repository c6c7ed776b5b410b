"""Judges one HTTP answer: whether it is right, whether a fallback made it, which model version it is from."""

from __future__ import annotations

import json
import reprlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from monkeyproof.config.redaction import redact_text
from monkeyproof.config.target_file import Predict
from monkeyproof.config.user_files import line_in
from monkeyproof.errors import UsageError
from monkeyproof.probes.prober.golden import Golden, JsonPath, is_right
from monkeyproof.record.readings import SignalState
from monkeyproof.types import Json

TAG_CHARACTERS_MAX = 100
TEXT_CHARACTERS_MAX = 4000
VALUES_MAX = 100_000
"""In one answer: a mebibyte of empty lists takes seconds to walk through, and no question is asked meanwhile."""
EFFORT_SHARE = 0.25
EFFORT_BURST_S = 0.1


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, whole. Header names are in small letters."""

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Judgement:
    """The judgement of an answer. ``correct`` is UNKNOWN where there is no prediction to be judged (not a 2xx)."""

    correct: SignalState
    degraded: bool = False
    model_version: str = ""
    problem: str = ""


class JudgingBudget:
    """Keeps judging to a share of the time, so that no service can keep the prober from its schedule."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._owed_s = 0.0
        self._at_s = clock()

    def allowed(self) -> bool:
        """Whether the time spent lately leaves some for one more answer."""
        now_s = self._clock()
        self._owed_s = max(0.0, self._owed_s - EFFORT_SHARE * (now_s - self._at_s))
        self._at_s = now_s
        return self._owed_s <= EFFORT_BURST_S

    def spent(self) -> None:
        """Count the time since ``allowed`` as spent."""
        self._owed_s += self._clock() - self._at_s


class Judge:
    """Judges answers as a target file's ``predict`` block says. Building one checks its paths."""

    def __init__(self, predict: Predict, file: Path) -> None:
        """Compile the paths.

        Raises:
            UsageError: one of them is not a JSONPath; with file and line.
        """
        try:
            name = "answer"
            self._answer = JsonPath(predict.answer, name)
            name = "degraded"
            self._degraded = _tag(predict.degraded, name)
            name = "model_version"
            self._model_version = _tag(predict.model_version, name)
        except UsageError as error:
            raise UsageError(f"{file}:{line_in(file, ('predict', name))}: predict.{error}") from None
        self._budget = JudgingBudget()

    def __call__(self, answer: Answer, golden: Golden) -> Judgement:
        """Judge the answer; unknown, never good, where judging it would take too long."""
        if not self._budget.allowed():
            return Judgement(SignalState.UNKNOWN, problem="not judged: answers take too long to read")
        try:
            return self._judge(answer, golden)
        finally:
            self._budget.spent()

    def _judge(self, answer: Answer, golden: Golden) -> Judgement:
        if sum(map(answer.body.count, (b",", b"[", b"{", b":"))) > VALUES_MAX:
            return Judgement(SignalState.UNKNOWN, problem="not judged: too many values in the answer")
        document, problem = _document(answer)
        correct = SignalState.UNKNOWN
        if answer.ok:
            correct = SignalState.BAD
            if not problem:
                try:
                    right = is_right(self._answer.take(document), golden)
                    correct, problem = (SignalState.GOOD, "") if right else (SignalState.BAD, "wrong answer")
                except (LookupError, TypeError, RecursionError):
                    problem = "no prediction in the answer"
        else:
            problem = f"status {answer.status}"
        return Judgement(
            correct,
            _is_yes(_look_up(self._degraded, answer, document)),
            _as_text(_look_up(self._model_version, answer, document)),
            problem,
        )


def _document(answer: Answer) -> tuple[Json, str]:
    try:
        return json.loads(answer.body), ""
    except (ValueError, RecursionError):
        return None, "answer is not JSON"


def _tag(place: str, where: str) -> JsonPath | bytes:
    return JsonPath(place, where) if place.startswith("$") else place.lower().encode("latin-1", "replace")


def _look_up(place: JsonPath | bytes, answer: Answer, document: Json) -> Json:
    if isinstance(place, bytes):
        found = answer.headers.get(place) if place else None
        return None if found is None else found.decode("latin-1")
    try:
        return place.find(document)
    except (TypeError, RecursionError):
        return None


def _as_text(value: Json) -> str:
    """On one line, short, and harmless wherever it is shown: the text comes from the service."""
    if value is None:
        return ""
    text = value[:TEXT_CHARACTERS_MAX] if isinstance(value, str) else reprlib.repr(value)
    text = redact_text(text)[:TAG_CHARACTERS_MAX]  # Before it is cut: half a secret would not be found.
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def _is_yes(value: Json) -> bool:
    """Whether the value is there, and does not mean no."""
    return _as_text(value).strip().lower() not in ("", "0", "false", "no", "none", "null", "[]", "{}")
