"""The golden set and the judgement of answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monkeyproof.config.target_file import Predict
from monkeyproof.errors import UsageError
from monkeyproof.probes.prober.answers import Answer, Judge
from monkeyproof.probes.prober.golden import Golden, JsonPath, is_right, read_golden, too_few_words
from monkeyproof.record.readings import SignalState

NAN, INF = float("nan"), float("inf")


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "golden.jsonl"
    path.write_text(text)
    return path


def test_reads_lines_with_and_without_tolerance(tmp_path: Path) -> None:
    path = write(
        tmp_path, '{"body": {"a": [1, 2]}, "expect": 0}\n\n{"body": 3, "expect": [1.5], "tolerance": 0.1}\n'
    )
    assert read_golden(path) == (Golden(b'{"a":[1,2]}', 0, 0.0), Golden(b"3", [1.5], 0.1))


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("", ":1:", "empty"),
        ('{"body": 1, "expect": 0}\n{"body": 1\n', ":2:", "not JSON"),
        ('{"body": 1}\n', ":1:", 'a line of a golden set is {"body"'),
        ("[1]\n", ":1:", "a line of a golden set"),
        ('{"body": 1, "expect": 0, "tolerence": 1}\n', ":1:", "tolerence: unknown key"),
        ('{"body": 1, "expect": 0, "tolerance": -1}\n', ":1:", "not negative (found -1)"),
        ('{"body": 1, "expect": 0, "tolerance": "1"}\n', ":1:", "not negative (found '1')"),
        ('{"body": 1, "expect": 0, "tolerance": true}\n', ":1:", "not negative"),
        ('{"body": 1, "expect": NaN}\n', ":1:", "NaN"),
        ('{"body": 1, "expect": 0, "tolerance": Infinity}\n', ":1:", "Infinity"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, text: str, where: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_golden(write(tmp_path, text))
    assert f"golden.jsonl{where}" in str(caught.value)
    assert what in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.jsonl: the golden set cannot be read: No such file"):
        read_golden(tmp_path / "nothing.jsonl")


@pytest.mark.parametrize(
    ("found", "expected", "tolerance", "right"),
    [
        (0, 0, 0, True),
        (0.0, 0, 0, True),
        (1, 0, 0, False),
        (0.51, 0.5, 0.02, True),
        (0.53, 0.5, 0.02, False),
        (NAN, 0, 1e9, False),
        (INF, 0, 1e9, False),
        (10**400, 0, 1e9, False),
        (None, 0, 1, False),
        ("0", 0, 1, False),
        (False, 0, 0, False),
        (True, True, 0, True),
        (1, True, 0, False),
        ("cat", "cat", 0, True),
        ("Cat", "cat", 0, False),
        (None, None, 0, True),
        ([1, 2.05], [1, 2], 0.1, True),
        ([1, 2.5], [1, 2], 0.1, False),
        ([1], [1, 2], 0.1, False),
        ([1, NAN], [1, 2], 1e9, False),
        (1, [1], 0, False),
        ({"p": 0.9}, {"p": 1}, 0.2, True),
        ({"p": 0.9, "q": 1}, {"p": 1}, 0.2, False),
    ],
)
def test_is_right(found: object, expected: object, tolerance: float, right: bool) -> None:
    assert is_right(found, Golden(b"", expected, tolerance)) is right


def test_json_paths() -> None:
    document = {"predictions": [7, 8], "meta": {"v": None}}
    assert JsonPath("$.predictions[0]", "here").take(document) == 7
    assert JsonPath("$.predictions[*]", "here").take(document) == [7, 8]
    assert JsonPath("$.meta.v", "here").take(document) is None
    with pytest.raises(LookupError):
        JsonPath("$.predictions[2]", "here").take(document)
    with pytest.raises(UsageError, match=r"target\.yaml: predict\.answer: '\$\.\[' is not a JSONPath"):
        JsonPath("$.[", "target.yaml: predict.answer")


def answer(body: object = None, status: int = 200, **headers: str) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, {name.replace("_", "-").encode(): text.encode() for name, text in headers.items()}, raw)


def judge(**changes: str) -> Judge:
    return Judge(Predict(url="http://h/p", golden=Path(), **changes), Path("target.yaml"))


@pytest.mark.parametrize(
    ("found", "correct", "problem"),
    [
        (answer({"predictions": [1]}), SignalState.GOOD, ""),
        (answer({"predictions": [0]}), SignalState.BAD, "wrong answer"),
        (answer({"predictions": []}), SignalState.BAD, "no prediction in the answer"),
        (answer({"error": "sorry"}), SignalState.BAD, "no prediction in the answer"),
        (answer([1]), SignalState.BAD, "no prediction in the answer"),
        (answer(None), SignalState.BAD, "no prediction in the answer"),
        (answer(b"hello"), SignalState.BAD, "answer is not JSON"),
        (answer(b"\xff\xfe"), SignalState.BAD, "answer is not JSON"),
        (answer(b"[" * 100_000), SignalState.BAD, "answer is not JSON"),
        (answer({"predictions": [1]}, 503), SignalState.UNKNOWN, "status 503"),
        (answer({"predictions": [1]}, 302), SignalState.UNKNOWN, "status 302"),
    ],
)
def test_judges_answers(found: Answer, correct: SignalState, problem: str) -> None:
    judged = judge()(found, Golden(b"", 1))
    assert (judged.correct, judged.problem) == (correct, problem)


@pytest.mark.parametrize(
    ("value", "degraded"),
    [("fallback", True), ("true", True), ("1", True), ("false", False), ("0", False), ("", False)],
)
def test_degraded_is_present_and_not_a_no(value: str, degraded: bool) -> None:
    by_header = judge(degraded="X-Degraded")
    assert by_header(answer({}, x_degraded=value), Golden(b"", 1)).degraded is degraded
    assert by_header(answer({}), Golden(b"", 1)).degraded is False
    by_path = judge(degraded="$.meta.fallback")
    assert by_path(answer({"meta": {"fallback": value}}), Golden(b"", 1)).degraded is degraded
    assert by_path(answer({"meta": {"fallback": False}}), Golden(b"", 1)).degraded is False
    assert by_path(answer(b"hello"), Golden(b"", 1)).degraded is False


def test_model_version_by_header_or_path() -> None:
    assert (
        judge(model_version="X-Model-Version")(answer({}, x_model_version="3"), Golden(b"", 1)).model_version
        == "3"
    )
    assert judge(model_version="$.v")(answer({"v": 3}), Golden(b"", 1)).model_version == "3"
    assert judge(model_version="$.v")(answer({"v": "x" * 999}), Golden(b"", 1)).model_version == "x" * 100
    assert judge()(answer({"v": 3}), Golden(b"", 1)).model_version == ""


def test_a_short_golden_set_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "golden.jsonl"
    lines = [json.dumps({"body": {"x": k}, "expect": k}) + "\n" for k in range(100)]
    path.write_text("".join(lines))
    assert too_few_words(path) == ""
    path.write_text("".join(lines[:99] + lines[:1]))
    assert "99 different questions are few" in too_few_words(path)
