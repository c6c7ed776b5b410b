"""What one HTTP answer says: whether it is right, whether a fallback made it, which model version it is from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from monkeyproof.config import Predict
from monkeyproof.probes.golden import Golden, JsonPath, is_right
from monkeyproof.readings import Sight
from monkeyproof.types import Json

TAG_CHARACTERS_MAX = 100


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
    """What an answer says. ``correct`` is UNKNOWN where there is no prediction to be judged (not a 2xx)."""

    correct: Sight
    degraded: bool = False
    model_version: str = ""
    problem: str = ""


class Judge:
    """Judges answers as a target file's ``predict`` block says. Building one checks its paths."""

    def __init__(self, predict: Predict, file: Path) -> None:
        """Compile the paths.

        Raises:
            UsageError: one of them is not a JSONPath.
        """
        self._answer = JsonPath(predict.answer, f"{file}: predict.answer")
        self._degraded = _tag(predict.degraded, f"{file}: predict.degraded")
        self._model_version = _tag(predict.model_version, f"{file}: predict.model_version")

    def __call__(self, answer: Answer, golden: Golden) -> Judgement:
        document, problem = _document(answer)
        correct = Sight.UNKNOWN
        if answer.ok:
            correct = Sight.BAD
            if not problem:
                try:
                    right = is_right(self._answer.take(document), golden)
                    correct, problem = (Sight.GOOD, "") if right else (Sight.BAD, "wrong answer")
                except (LookupError, TypeError, RecursionError):
                    problem = "no prediction in the answer"
        else:
            problem = f"status {answer.status}"
        return Judgement(
            correct,
            _says_yes(_look_up(self._degraded, answer, document)),
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
    return "" if value is None else str(value)[:TAG_CHARACTERS_MAX]


def _says_yes(value: Json) -> bool:
    """Present, and not a way of saying no."""
    return _as_text(value).strip().lower() not in ("", "0", "false", "no", "none", "null", "[]", "{}")
