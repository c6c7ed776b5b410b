from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkeyproof.config.limits import CAUTIOUS, AbortIf, Limits
from monkeyproof.config.redaction import redact
from monkeyproof.config.target_file import read_target_file
from monkeyproof.errors import UsageError

WHOLE = """\
name: fraud-staging
predict:
  url: http://127.0.0.1:8080/invocations
  headers: {Authorization: "Bearer ${FRAUD_TOKEN}"}
  golden: golden.jsonl
  answer: $.predictions[0]
slo: {latency_ms: 250, objective: 0.99, stable_for_s: 2, recovery: {within_s: 10, share: 0.9, confidence: 0.95}}
windows: {baseline_s: 1.5, horizon_s: 15, after_revert_s: 5}
prober: {rate_per_s: 50, timeout_ms: 1000}
links: {features: {listen: "127.0.0.1:0", forward: "127.0.0.1:6379"}}
registry: {uri: "http://127.0.0.1:5000", model: fraud, alias: champion}
allow_faults: [network, replicas, registry]
"""

LIMITS = "wrong_answers: {at_most: 0}, false_heals: {at_most: 2}"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "t.yaml"
    path.write_text(text)
    return path


def test_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_TOKEN", "secret")
    file = read_target_file(written(tmp_path, WHOLE))
    assert file.predict.headers == {"Authorization": "Bearer secret"}
    assert file.predict.golden == tmp_path / "golden.jsonl"
    assert file.slo.recovery.share == 0.9
    assert file.links["features"].protocol == "tcp"
    assert file.allow_faults == ("network", "replicas", "registry")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("latency_ms: 250", "latency_ms: fast"), r"t.yaml:7: slo.latency_ms: .*valid number"),
        (
            ("latency_ms: 250", "latency_ms: true"),
            r"t.yaml:7: slo.latency_ms: neither a number nor text .found true",
        ),
        (("[network", "[off, network"), r"t.yaml:12: allow_faults.0: neither a number nor text .found false"),
        (("latency_ms: 250", "latency_ms: .inf"), r"t.yaml:7: slo.latency_ms: .*finite"),
        (("objective: 0.99", "objective: 1.5"), r"t.yaml:7: slo.objective"),
        (("objective: 0.99", "objektive: 0.99"), r"t.yaml:7: slo.objektive: unknown key"),
        (("name: fraud-staging\n", ""), r"t.yaml:1: name: missing"),
        (("name: fraud-staging", "name: ../../etc"), r"t.yaml:1: name"),
        (("  golden: golden.jsonl\n", ""), r"t.yaml:2: predict.golden: missing"),
        (("http://127.0.0.1:8080/invocations", "ftp://x/"), r"t.yaml:3: predict.url"),
        (("rate_per_s: 50", "rate_per_s: 5000"), r"t.yaml:9: prober.rate_per_s"),
        (('listen: "127.0.0.1:0"', 'listen: "0.0.0.0:0"'), r"t.yaml:10: links.features.listen"),
        (("${FRAUD_TOKEN}", "${NOT_SET}"), r"t.yaml:4: \$\{NOT_SET\} is not set"),
        (("allow_faults:", "abort_when: []\nallow_faults:"), r"t.yaml:12: abort_when: unknown key"),
        (("allow_faults:", "limits: {replicas: 1}\nallow_faults:"), r"t.yaml:12: limits.replicas: unknown key"),
        (("allow_faults:", "limits: {replicas_down: 0}\nallow_faults:"), r"t.yaml:12: limits.replicas_down: .*1"),
        (("allow_faults:", "limits: {rows_share: .nan}\nallow_faults:"), r"t.yaml:12: limits.rows_share"),
        (
            ("allow_faults:", "abort_if:\n- {sli_below: 0.5}\nallow_faults:"),
            r"t.yaml:13: .*sli_below: for_s is missing",
        ),
        (
            ("allow_faults:", "abort_if:\n- {for_s: 5}\nallow_faults:"),
            r"t.yaml:13: abort_if.0: name exactly one of",
        ),
        (
            (
                "allow_faults:",
                'abort_if:\n- {sli_below: 0.5, for_s: 5}\n- health_url: "http://h/"\n  query: up\nallow_faults:',
            ),
            r"t.yaml:15: abort_if.1.query: has no meaning beside health_url",
        ),
        (
            (
                "allow_faults:",
                'abort_if: [{prometheus: "http://p", query: up, above: 1, below: 0}]\nallow_faults:',
            ),
            r"t.yaml:12: abort_if.0.prometheus: name either above or below",
        ),
        (
            ("allow_faults:", 'abort_if: [{prometheus: "file:///p", query: up, above: 1}]\nallow_faults:'),
            r"t.yaml:12: abort_if.0.prometheus: String should match",
        ),
        (
            ("allow_faults:", 'abort_if: [{health_url: "http://me:secret@[::1"}]\nallow_faults:'),
            r"t.yaml:12: abort_if.0.health_url: not an address that can be asked$",
        ),
        (
            ("allow_faults:", 'abort_if: [{prometheus: "http://p:99999", query: up, above: 1}]\nallow_faults:'),
            r"t.yaml:12: abort_if.0.prometheus: not an address that can be asked$",
        ),
        (
            ("objective: 0.99, stable", "objective: 1, stable"),
            r"t.yaml:13: abort_if.0.error_budget_spent: an objective of 1 leaves no budget",
        ),
        (("allow_faults:", "name: again\nallow_faults:"), r"t.yaml:12: name: duplicate key"),
        (("windows: {", "windows: {{"), r"t.yaml:\d+: not YAML"),
        (("[network", "!!python/object/apply:os.system [network"), r"t.yaml:12: not YAML"),
    ],
)
def test_each_mistake_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], words: str
) -> None:
    monkeypatch.setenv("FRAUD_TOKEN", "secret")
    assert change[0] in WHOLE
    budget = "abort_if: [{error_budget_spent: 0.2}]\n" if "error_budget" in words else ""
    with pytest.raises(UsageError, match=words):
        read_target_file(written(tmp_path, WHOLE.replace(*change) + budget))


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_TOKEN", "secret")
    plain = read_target_file(written(tmp_path, WHOLE))
    assert plain.abort_if == ()
    assert plain.limits_in_force == CAUTIOUS
    file = read_target_file(
        written(tmp_path, WHOLE + "limits: {latency_ms: 90}\nabort_if: [{sli_below: 0.5, for_s: 5}]\n")
    )
    assert file.limits_in_force == Limits(CAUTIOUS.replicas_down, CAUTIOUS.rows_share, 90)
    assert file.abort_if == (AbortIf(sli_below=0.5, for_s=5),)
    embedded = WHOLE + "stack: {control: c.sock}\n"
    assert read_target_file(written(tmp_path, embedded)).limits_in_force == Limits()
    limited = read_target_file(written(tmp_path, embedded + "limits: {replicas_down: 2}\n"))
    assert limited.limits_in_force == Limits(replicas_down=2)


def test_limits_of_the_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_TOKEN", "secret")
    plain = read_target_file(written(tmp_path, WHOLE)).slo
    assert (plain.wrong_answers, plain.false_heals, plain.recovery.invalid_share_max) == (None, None, 0.2)
    text = WHOLE.replace("confidence: 0.95}", "confidence: 0.95, invalid_share_max: 0}, " + LIMITS)
    slo = read_target_file(written(tmp_path, text)).slo
    assert slo.wrong_answers is not None
    assert slo.false_heals is not None
    assert (slo.wrong_answers.at_most, slo.false_heals.at_most, slo.recovery.invalid_share_max) == (0, 2, 0.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("at_most: 0", "at_most: -1"), r"t.yaml:7: slo.wrong_answers.at_most: .*greater than or equal to 0"),
        (("at_most: 0", "at_most: 0.5"), r"t.yaml:7: slo.wrong_answers.at_most: .*integer"),
        (("at_most: 0", ""), r"t.yaml:7: slo.wrong_answers.at_most: missing"),
        (("at_most: 2", "atmost: 2"), r"t.yaml:7: slo.false_heals.atmost: unknown key"),
        (("{at_most: 2}", "2"), r"t.yaml:7: slo.false_heals"),
        (("share: 0.9,", "share: 1,"), r"t.yaml:7: slo.recovery.share: .*less than 1"),
        (("share: 0.9,", "share: 0,"), r"t.yaml:7: slo.recovery.share: .*greater than 0"),
        (("share: 0.9,", "share: 0.9, invalid_share_max: 1.1,"), r"t.yaml:7: slo.recovery.invalid_share_max"),
    ],
)
def test_mistakes_in_the_limits_of_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], words: str
) -> None:
    monkeypatch.setenv("FRAUD_TOKEN", "secret")
    text = WHOLE.replace("confidence: 0.95}", "confidence: 0.95}, " + LIMITS)
    assert change[0] in text
    with pytest.raises(UsageError, match=words):
        read_target_file(written(tmp_path, text.replace(*change)))


CONDITIONS = """\
abort_if:
  - health_url: http://127.0.0.1:9/health
    headers: {Authorization: "Bearer ${HEALTH_TOKEN}"}
  - {prometheus: "http://127.0.0.1:9", query: up, below: 1, headers: {X-Key: "${METRICS_KEY}"}}
"""


def test_headers_of_conditions_are_filled_and_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_TOKEN", "secret")
    monkeypatch.setenv("HEALTH_TOKEN", "health-token-4711")
    path = written(tmp_path, WHOLE + CONDITIONS)
    with pytest.raises(UsageError, match=r"t.yaml:16: \$\{METRICS_KEY\} is not set in the environment"):
        read_target_file(path)
    monkeypatch.setenv("METRICS_KEY", "metrics-key-4712")
    first, second = read_target_file(path).abort_if
    assert first.headers == {"Authorization": "Bearer health-token-4711"}
    assert second.headers == {"X-Key": "metrics-key-4712"}
    assert "471" not in first.words + second.words
    assert redact(["it said health-token-4711, metrics-key-4712"]) == ["it said [HEALTH_TOKEN], [METRICS_KEY]"]
    monkeypatch.setenv("METRICS_KEY", "two\nlines")
    with pytest.raises(UsageError, match=r"t.yaml:16: a header value holds a line break"):
        read_target_file(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("X-Key:", '"X Key":'), r"t.yaml:16: abort_if.1.headers.X Key: not the name of a header"),
        (("X-Key: ", "X-Key: [1], Y: "), r"t.yaml:16: abort_if.1.headers.X-Key: Input should be a valid string$"),
        (("query: up, ", "query: up, sli_below: 0.5, "), r"t.yaml:16: abort_if.1"),
    ],
)
def test_mistakes_in_the_headers_of_conditions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], words: str
) -> None:
    for name in ("FRAUD_TOKEN", "HEALTH_TOKEN", "METRICS_KEY"):
        monkeypatch.setenv(name, "secret")
    with pytest.raises(UsageError, match=words):
        read_target_file(written(tmp_path, WHOLE + CONDITIONS.replace(*change)))


def test_missing_file_and_binary_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_target_file(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_target_file(tmp_path / "b.yaml")


@given(
    st.text(max_size=200)
    | st.integers(0, len(WHOLE) - 1).flatmap(
        lambda place: st.text(min_size=1, max_size=3).map(lambda new: WHOLE[:place] + new + WHOLE[place + 1 :])
    )
)
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("t") / "t.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with contextlib.suppress(UsageError):
        read_target_file(path)
