"""Mutated target and experiment files: each is read or refused in words with the place; no traceback, no hang."""

from __future__ import annotations

import copy
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import yaml

from monkeyproof import paths
from monkeyproof.config.target_file import read_target_file
from monkeyproof.errors import Refusal, UsageError
from monkeyproof.experiment import catalogue
from monkeyproof.probes.prober.answers import Judge
from monkeyproof.probes.prober.golden import read_golden
from monkeyproof.probes.prober.question import Question

CPU_LIMIT_S = 2.0
"""For one file, in processor time: how busy the machine is says nothing about a hang."""
MESSAGE_MAX = 4000

TARGET = """\
name: fraud-staging
predict:
  url: http://127.0.0.1:8080/invocations?v=1
  method: POST
  headers: {Authorization: "Bearer ${FRAUD_TOKEN}"}
  golden: golden.jsonl
  answer: $.predictions[0]
  degraded: X-Degraded
  model_version: $.version
slo:
  latency_ms: 250
  objective: 0.99
  stable_for_s: 2
  recovery: {within_s: 10, share: 0.9, confidence: 0.95, invalid_share_max: 0.2}
  wrong_answers: {at_most: 0}
  false_heals: {at_most: 0}
windows: {baseline_s: 1.5, horizon_s: 15, after_revert_s: 5}
prober: {rate_per_s: 50, timeout_ms: 1000}
load: {rate_per_s: 20}
links:
  features: {listen: "127.0.0.1:7001", forward: "127.0.0.1:6379", protocol: tcp}
registry: {uri: "http://127.0.0.1:5000", model: fraud, alias: champion}
allow_faults: [network, registry]
"""
FOREIGN = """\
title: A stranger's experiment
description: Plain activities, a reference, configuration and secrets.
tags: [one, two]
configuration:
  place: http://127.0.0.1:9
  mode: {type: env, key: HOME}
secrets:
  service: {token: {type: env, key: HOME}, other: inline}
controls:
  - name: monkeyproof
    provider: {type: python, module: monkeyproof.control}
steady-state-hypothesis:
  title: It is there
  probes:
    - type: probe
      name: there
      tolerance: 200
      provider: {type: http, url: "${place}/", timeout: 2, headers: {X-Token: "${token}"}, secrets: [service]}
method:
  - type: action
    name: stop
    background: false
    pauses: {before: 0.1, after: 0.1}
    provider: {type: process, path: sh, arguments: [-c, "true"], timeout: 5}
  - type: probe
    name: is-stopped
    tolerance: {type: regex, target: stdout, pattern: "^x"}
    provider: {type: process, path: sh, arguments: "-c true"}
  - ref: is-stopped
  - type: probe
    name: exists
    tolerance: true
    provider: {type: python, module: os.path, func: exists, arguments: {path: /}}
rollbacks:
  - type: action
    name: go-on
    provider: {type: http, url: "http://127.0.0.1:9/go", method: POST, arguments: {a: 1}}
extensions:
  - name: monkeyproof
    inject: stop
    evidence: is-stopped
    undo: go-on
    expect: {none: [fault_removed]}
"""
GOLDEN = '{"body": {"x": 1}, "expect": [1, {"y": 2.5}], "tolerance": 0.1}\n{"body": {"x": 2}, "expect": "ok"}\n'
WORDS = [
    "../../x", "/etc/passwd", "..", ".", "", "a/b", "x" * 5000, "a\nb", "a\0b", "\x1b[31mred", "\u202e", "\ud800",
    "ü.example", "${HOME}", "${NOT_SET_ANYWHERE}", "${", "%s%n{0}", "<script>", "]]>", "-", "~", "null", "1:1:1",
    "http://[::1", "http://x:99999/", "http://u:p@127.0.0.1/", "127.0.0.1:99999", "$..*", "$.[", "/dev/zero",
    "monkeyproof.probes..x", "..x", "os", "X-A: b",
]  # fmt: skip
VALUES: list[Any] = [
    *WORDS, None, True, 0, -1, 3, 10**400, -(10**5000), 1e308, 1e-320, float("nan"), float("inf"), float("-inf"),
    [], {}, [[]], [None], {"a": None}, {1: 2}, {None: None}, [1, "a"], b"\xff\xfe", [[[[[{"x": [{}]}]]]]],
]  # fmt: skip
# fmt: off
LINES = [
    "\t- x", "? [a, b]\n: c", "<<: {a: 1}", "a: &a [*a]", "b: &b {<<: *b}",
    "c: !!python/object/apply:os.system [id]",
    "d: !!python/name:os.system", "e: !!int x", "e: !!int ''", "f: !!timestamp x", "g: !!binary '*'",
    "h: !!bool x",
    "i: 0001-01-01T00:00:00+23:59", "j: 2001-99-99", "k: " + "1:" * 2000 + "1.5",
    "k: " + "1:" * 2000 + "1",
    "l: 0x" + "f" * 9000, "m: " + "9" * 9000, "n: " + "[" * 2000, "n: " + "{a: " * 60 + "}" * 60, "o: *nothing",
    "p: !unknown x", "q: !!set {a, b}", "r: !!omap [a: 1]", "s: !!float ''", "t: \"\\ud800\"", 'u: "\\0"',
    "---", "...",
    "%YAML 9.9", "\x07", "\x1b]0;x\x07", "v: |\n" + "  x\n" * 50, "w: '" + "x" * 20000 + "'", "%TAG ! tag:x,2000:",
    "@",
    "`", "x: &x\ny: *x", "\ufeff", "z: !!null x", "aa: !!merge x", "<<: 3", "=: 3", "a: =",
]
# fmt: on
BOMB = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'lol'] * 10)}]\n" for n in range(12))
MERGES = "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" if n else "a0: &a0 {k: v}\n" for n in range(9)
)


@contextmanager
def no_hang() -> Iterator[None]:
    def over(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise AssertionError(f"took more than {CPU_LIMIT_S} s of processor time")

    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def mutated_text(text: str, rng: np.random.Generator) -> bytes:
    """Lines and characters changed, as an editor, a merge or a bad disk would."""
    for _ in range(rng.integers(1, 4)):
        lines = text.split("\n")
        place = int(rng.integers(len(lines)))
        spot = int(rng.integers(len(text) + 1))
        match int(rng.integers(8)):
            case 0:
                del lines[place]
            case 1:
                lines.insert(place, lines[place])
            case 2:
                lines[place] = "  " + lines[place]
            case 3:
                lines.insert(place, LINES[int(rng.integers(len(LINES)))])
            case 4:
                lines = (text[:spot] + chr(int(rng.integers(0x250))) + text[spot + 1 :]).split("\n")
            case 5:
                lines = text[:spot].split("\n")
            case 6:
                other = int(rng.integers(len(lines)))
                lines[place], lines[other] = lines[other], lines[place]
            case _:
                word = WORDS[int(rng.integers(len(WORDS)))]
                lines = (text[:spot] + word + text[spot:]).split("\n")
        text = "\n".join(lines) or " "
    raw = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.03:
        spot = int(rng.integers(len(raw)))
        raw = raw[:spot] + bytes(rng.integers(0, 256, 5, dtype=np.uint8)) + raw[spot:]
    return raw


def mutated_value(text: str, rng: np.random.Generator) -> bytes:
    """One value anywhere in the tree becomes another: a type, a size or an unexpected name."""
    document = yaml.safe_load(text)
    holder, key = document, next(iter(document))
    for _ in range(int(rng.integers(1, 7))):
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = keys[int(rng.integers(len(keys)))]
        if not isinstance(holder[key], dict | list) or not holder[key]:
            break
        if rng.random() < 0.8:
            holder = holder[key]
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            key = keys[int(rng.integers(len(keys)))]
    new = copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])
    match int(rng.integers(5)):
        case 0 if isinstance(holder, dict):
            holder[WORDS[int(rng.integers(len(WORDS)))]] = new
        case 1 if isinstance(holder, list):
            holder.insert(0, new)
        case 2:
            del holder[key]
        case _:
            holder[key] = new
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return yaml.dump(document, sort_keys=False, allow_unicode=bool(rng.integers(2))).encode(
            "utf-8", "surrogatepass"
        )
    finally:
        sys.set_int_max_str_digits(limit)


def read_as_a_run_does(path: Path) -> None:
    """All that the command line, the prober and the load read of a target file before anything is asked."""
    file = read_target_file(path)
    Judge(file.predict, file.path)
    Question.of(file)


def read_experiment(path: Path) -> None:
    catalogue.find(str(path))


def outcome(read: Callable[[Path], None], path: Path) -> str:
    """Why it was refused; "" if it was read."""
    try:
        with no_hang():
            read(path)
    except (UsageError, Refusal) as error:
        return str(error)
    return ""


def fuzz(
    read: Callable[[Path], None], seeds: list[str], path: Path, count: int, seed: int, values_share: float = 0.5
) -> tuple[int, int]:
    rng = np.random.default_rng(seed)
    counts = [0, 0]
    for number in range(count):
        text = seeds[number % len(seeds)]
        raw = (mutated_value if rng.random() < values_share else mutated_text)(text, rng)
        path.write_bytes(raw)
        try:
            words = outcome(read, path)
            named = not words or re.search(rf"{re.escape(path.name)}(:\d+)?: |golden|/", words)
            assert named, f"says no place: {words}"
            assert len(words) < MESSAGE_MAX, f"says too much: {words[:500]}"
            assert words.replace("\n", "").isprintable(), f"would reach a terminal: {words!r}"
        except BaseException:
            print(f"case {number}:\n{raw!r}")
            raise
        counts[bool(words)] += 1
    return counts[0], counts[1]


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_TOKEN", "not-told-to-anybody")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "golden.jsonl").write_text(GOLDEN)


def test_mutated_target_files(tmp_path: Path) -> None:
    read, refused = fuzz(read_as_a_run_does, [TARGET], tmp_path / "t.yaml", 500, 1)
    # Neither is everything refused nor everything taken: the mutations reach what they are meant for.
    assert read > 20, read
    assert refused > 200, refused


def test_mutated_experiments(tmp_path: Path) -> None:
    shipped = [(paths.experiments() / f"{name}.yaml").read_text() for name in catalogue.names()]
    read, refused = fuzz(read_experiment, [FOREIGN, *shipped, FOREIGN], tmp_path / "e.yaml", 600, 2)
    assert read > 50, read
    assert refused > 200, refused


def test_mutated_golden_sets(tmp_path: Path) -> None:
    def read(path: Path) -> None:
        read_golden(path)

    refused = fuzz(read, [GOLDEN], tmp_path / "g.jsonl", 200, 3, values_share=0)[1]
    assert refused > 50


@pytest.mark.parametrize(
    "text", [BOMB, MERGES, "a: " + "[" * 5000, "&a [*a]", "a: &a {b: *a}", "", "\n", "- x", "3"]
)
def test_bombs_and_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(text)
    assert re.search(r"t.yaml:\d+: ", outcome(read_as_a_run_does, path))
    assert re.search(r"t.yaml:\d+: ", outcome(read_experiment, path))


def test_what_is_no_file_and_what_is_too_large(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "large.yaml").write_text("a: 1\n" * 100_000)
    for name in ("pipe.yaml", "/dev/zero", ".", "large.yaml"):
        for read in (read_as_a_run_does, read_experiment):
            assert "cannot be read" in outcome(read, Path(name))
    for golden in ("pipe.yaml", "/dev/zero", ".", "x" * 300):
        (tmp_path / "t.yaml").write_text(TARGET.replace("golden.jsonl", golden))
        assert "the golden set cannot be read" in outcome(read_as_a_run_does, tmp_path / "t.yaml")


def through_the_command_line(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "monkeyproof.cli", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        # One campaign at a time in a home, and these are to run beside one another.
        env={**os.environ, "MONKEYPROOF_HOME": str(folder / "homes" / arguments[-1])},
    )


IN_TARGETS = [
    ("name: fraud-staging", "name: ../../x"),
    ("name: fraud-staging", "name: /etc/passwd"),
    ("name: fraud-staging", f"name: {'x' * 5000}"),
    ("name: fraud-staging", 'name: "a\\nb"'),
    ("name: fraud-staging", 'name: "\\ud800"'),
    ("name: fraud-staging", "name: !!python/object/apply:os.system [id]"),
    ("latency_ms: 250", "latency_ms: .nan"),
    ("latency_ms: 250", f"latency_ms: {'9' * 9000}"),
    ("latency_ms: 250", "latency_ms: 1e300"),
    ("127.0.0.1:8080", "user:password@127.0.0.1:8080"),
    ("golden: golden.jsonl", 'golden: "a\\0b"'),
    ("load: {rate_per_s: 20}", BOMB),
    ("load: {rate_per_s: 20}", "load: &a {rate_per_s: *a}"),
    ("load: {rate_per_s: 20}", "load: " + "[" * 3000),
]
IN_EXPERIMENTS = [
    ('provider: {type: process, path: sh, arguments: [-c, "true"], timeout: 5}', "provider: 3"),
    ("module: os.path", "module: ..path"),
    ("ref: is-stopped", "ref: is-stoped"),
    ("ref: is-stopped", "ref: [1]"),
    ("evidence: is-stopped", "evidence: is-stoped"),
    ("undo: go-on", "undo: {a: 1}"),
    ("tags: [one, two]", "tags: 7"),
    ("title: It is there\n  probes:", "title: It is there\n  probes: 3\n  others:"),
    ("secrets:\n  service", "secrets:\n  - service"),
    ("title: A stranger's experiment", "title: \x1b]0;owned\x07"),
]


def test_exit_code_and_place_through_the_command_line(tmp_path: Path) -> None:
    arguments = []
    for number, (old, new) in enumerate(IN_TARGETS):
        assert old in TARGET
        (tmp_path / f"t{number}.yaml").write_text(TARGET.replace(old, new))
        arguments.append(("run", "latency-spike", "--target", f"t{number}.yaml", "--out", f"out{number}"))
    for number, (old, new) in enumerate(IN_EXPERIMENTS):
        assert old in FOREIGN, old
        (tmp_path / f"e{number}.yaml").write_text(FOREIGN.replace(old, new))
        arguments.append(("gate", f"e{number}.yaml", "--target", "t.yaml", "--out", f"oute{number}"))
    for path in tmp_path.glob("[te][0-9]*.yaml"):
        words = outcome(read_as_a_run_does if path.name[0] == "t" else read_experiment, path)
        assert re.match(rf"{re.escape(str(path))}:\d+: ", words), words
    # Each process costs half a second, and there is only one way from those words to the terminal.
    arguments = arguments[::3]
    before = sorted(path.name for path in tmp_path.iterdir())
    with ThreadPoolExecutor(2) as threads:
        for words, done in zip(
            arguments,
            threads.map(lambda words: through_the_command_line(tmp_path, *words), arguments),
            strict=True,
        ):
            output = done.stdout + done.stderr
            assert done.returncode == 2, (words, output)
            assert "Traceback" not in output
            file = next(word for word in words if word.endswith(".yaml"))
            assert re.search(rf"{re.escape(file)}:\d+: ", done.stderr), (words, output)
            assert output.replace("\n", "").isprintable()
            assert "password@" not in output
            assert len(output) < MESSAGE_MAX
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "homes") == before
