from __future__ import annotations

import io
import json

import pytest

from monkeyproof.config import redaction
from monkeyproof.config.redaction import (
    HIDDEN,
    RedactedStream,
    redact,
    redact_text,
    register_experiment_secrets,
    register_header,
    register_secret,
)


@pytest.fixture(autouse=True)
def _own_knowledge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_registered", {})
    monkeypatch.setattr(redaction, "_pattern", None)


def test_a_value_is_found_as_it_is_in_a_url_and_in_json() -> None:
    register_secret('a b/"c"', "secrets.it")
    for text in ('x a b/"c" y', "x a%20b%2F%22c%22 y", "x a+b%2F%22c%22 y", r"x a b/\"c\" y"):
        assert redact_text(text) == "x [secrets.it] y"
    assert redact({'a b/"c"': [1, ('a b/"c"',)]}) == {"[secrets.it]": [1, ["[secrets.it]"]]}


def test_one_that_begins_another_does_not_leave_its_end() -> None:
    register_secret("abcd", "short")
    register_secret("abcdefgh", "long")
    assert redact_text("abcdefgh abcd") == "[long] [short]"


def test_what_is_too_short_or_no_secret_is_left() -> None:
    register_secret("", "nothing")
    register_secret("abc", "short")
    register_secret(True, "flag")
    register_header("Content-Type", "application/json")
    assert redact({"type": "abc", "on": True, "body": "application/json"}) == {
        "type": "abc",
        "on": True,
        "body": "application/json",
    }
    register_secret(48151623, "number")
    assert redact([48151623, "48151623"]) == ["[number]", "[number]"]


def test_an_experiment_names_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODE", "quiet")
    provider = {
        "type": "http",
        "url": "http://me:password-1@host/x?token=query-1&page=2&late=${setting}",
        "headers": {"X-Key": "Bearer header-1", "Accept": "text/html", "X-Ref": "${it}"},
        "arguments": {"password": "argument-1", "mode": "loud"},
    }
    document = {
        "configuration": {"mode": {"type": "env", "key": "MODE"}, "gone": {"type": "env", "key": "NOT_SET_HERE"}},
        "secrets": {"service": {"it": "secret-1", "list": ["secret-2"]}},
        "method": [{"provider": provider}, {"ref": "x"}, 3],
        "rollbacks": None,
    }
    register_experiment_secrets(document)
    told = json.dumps(redact({"experiment": document, "output": json.dumps(document), "said": "quiet!"}))
    for planted in ("secret-1", "secret-2", "password-1", "query-1", "header-1", "quiet"):
        assert planted not in told, planted
    shown = redact(document)
    assert shown["method"][0]["provider"] == {
        "type": "http",
        "url": f"http://{HIDDEN}@host/x?token=[url token]&page=2&late=${{setting}}",
        "headers": {"X-Key": HIDDEN, "Accept": "text/html", "X-Ref": "${it}"},
        "arguments": {"password": HIDDEN, "mode": "loud"},
    }
    assert shown["configuration"] == document["configuration"]


def test_what_holds_no_secret_stays_as_it_is() -> None:
    document = {
        "title": "t",
        "secrets": {"service": {"it": {"type": "env", "key": "NOT_SET_HERE"}}},
        "method": [
            {"provider": {"type": "http", "url": "http://h/x", "headers": {"A": "Bearer ${it}"}, "timeout": 3}},
            {"provider": {"type": "process", "arguments": ["-c", "x"]}},
        ],
    }
    register_experiment_secrets(document)
    assert redact(document) == document


def test_a_log_hides_secrets_and_terminal_characters() -> None:
    register_secret("secret-1", "it")
    log = io.StringIO()
    stream = RedactedStream(log)
    print("a secret-1 \x1b[31mred\u202e", file=stream)
    stream.flush()  # type: ignore[operator]
    assert log.getvalue() == "a [it] \\x1b[31mred\\u202e\n"
