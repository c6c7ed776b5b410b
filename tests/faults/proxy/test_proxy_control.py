"""Who owns a toxic, how it ends with its owner, and what the proxy says to wrong questions."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from fault_world import Browser, add, in_background, pending

from monkeyproof.clock import wait_for
from monkeyproof.errors import TargetError
from monkeyproof.runtime.rpc import TOKEN_SUFFIX, Client, Token
from monkeyproof.targets.links import ProxyLinks
from monkeyproof.targets.port import Toxic

_OWNER = """
import sys, time
from pathlib import Path
from monkeyproof.targets.links import ProxyLinks
from monkeyproof.targets.port import Toxic
links = ProxyLinks(Path(sys.argv[1]))
for kind in ("latency", "hang", "down"):
    parameters = {"low_ms": 60000, "high_ms": 60000, "seed": 1} if kind == "latency" else {}
    links.add(Toxic("web" if kind == "latency" else "raw", kind, parameters, "owned-" + kind))
print("ready", flush=True)
time.sleep(60)
"""


def test_a_killed_owner_takes_its_toxics_along(proxy, browser, web):
    mine = add(proxy, "latency", low_ms=1, high_ms=1, seed=1)
    owner = subprocess.Popen([sys.executable, "-c", _OWNER, str(proxy.control)], stdout=subprocess.PIPE)
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        assert set(proxy.links.active()) == {mine, "owned-latency", "owned-hang", "owned-down"}
        answer = in_background(lambda: browser.ask("/held", body=b"b" * 1000))
        assert wait_for(lambda: pending(proxy, "owned-latency"), within_s=5)
        owner.send_signal(signal.SIGKILL)
        killed_s = time.monotonic()
        assert wait_for(lambda: list(proxy.links.active()) == [mine], within_s=1, every_s=0.001)
        assert answer() == (200, b"ok")
        assert time.monotonic() - killed_s < 1
    finally:
        owner.kill()
        owner.wait()
    assert web.saw[-1] == ("/held", b"b" * 1000)
    assert Browser(proxy, "raw").ask() == (200, b"ok")


def test_clients_choose_ids_and_may_remove_any_toxic(proxy):
    toxic = Toxic("web", "latency", {"low_ms": 1, "high_ms": 1, "seed": 1}, "chosen")
    assert proxy.links.add(toxic) == "chosen"
    with pytest.raises(TargetError, match="in force already"):
        proxy.links.add(toxic)
    other = ProxyLinks(proxy.control)
    assert other.remove("chosen")
    assert not other.remove("chosen")
    other.close()
    with pytest.raises(TargetError, match="not in force"):
        proxy.links.stats("chosen")
    unnamed = {add(proxy, "hang"), add(proxy, "hang")}
    assert set(proxy.links.active()) == unnamed


def test_an_owners_end_leaves_a_newer_toxic_of_the_same_name_alone(proxy):
    old, toxic = ProxyLinks(proxy.control), Toxic("web", "latency", {"low_ms": 1, "high_ms": 1, "seed": 1}, "name")
    old.add(toxic)
    proxy.links.remove("name")
    proxy.links.add(toxic)
    old.add(Toxic("raw", "latency", toxic.parameters, "other"))
    old.close()
    assert wait_for(lambda: "other" not in proxy.links.active(), within_s=1)
    assert list(proxy.links.active()) == ["name"]


def test_an_expired_lease_removes_its_toxic_with_a_reason(proxy, browser):
    held = {"low_ms": 60000, "high_ms": 60000, "seed": 1}
    proxy.links.add(Toxic("web", "latency", held, "leased", lease_s=0.3))
    forever = add(proxy, "latency", link="raw", low_ms=1, high_ms=1, seed=1)
    answer = in_background(lambda: browser.ask("/held"))
    for _ in range(6):
        time.sleep(0.1)
        assert proxy.links.renew() == {}
    assert pending(proxy, "leased")
    renewed_s = time.monotonic()
    assert wait_for(lambda: list(proxy.links.active()) == [forever], within_s=2, every_s=0.005)
    assert 0.25 < time.monotonic() - renewed_s < 1
    assert answer() == (200, b"ok")
    why = "latency on web was not renewed for 0.3 s, so the proxy dropped it"
    assert proxy.links.renew() == {"leased": why}
    with pytest.raises(TargetError, match=why):
        proxy.links.stats("leased")
    # Its undo finds that it has ended; then no lease reports it as lost any more.
    assert not proxy.links.remove("leased")
    assert proxy.links.renew() == {}


def test_an_old_lease_leaves_a_newer_toxic_of_the_same_name_alone(proxy):
    latency = {"low_ms": 1, "high_ms": 1, "seed": 1}
    proxy.links.add(Toxic("web", "latency", latency, "name", lease_s=0.2))
    proxy.links.remove("name")
    proxy.links.add(Toxic("web", "latency", latency, "name", lease_s=30.0))
    assert not wait_for(lambda: "name" not in proxy.links.active(), within_s=0.5)


@pytest.mark.parametrize("lease_s", [0.0, -1.0, float("nan"), 1e9])
def test_wrong_leases_are_refused(proxy, lease_s):
    with pytest.raises(TargetError, match="lease_s"):
        proxy.links.add(Toxic("web", "hang", {}, "x", lease_s=lease_s))
    assert list(proxy.links.active()) == []


WRONG = [
    ("nowhere", "hang", {}, "no such link; there are raw, web"),
    ("web", "rain", {}, "no such toxic; there are bandwidth, blackhole, corrupt_bytes"),
    ("web", "latency", {"low_ms": 1, "seed": 1}, "'high_ms' is missing; it takes low_ms, high_ms, seed, share"),
    ("web", "latency", {"low_ms": 1, "high_ms": 2, "seed": 1, "jitter": 3}, "unknown parameter 'jitter'"),
    ("web", "latency", {"low_ms": 3, "high_ms": 2, "seed": 1}, "low_ms <= high_ms"),
    ("web", "latency", {"low_ms": "1", "high_ms": 2, "seed": 1}, "low_ms must be a finite number, not '1'"),
    ("web", "latency", {"low_ms": True, "high_ms": 2, "seed": 1}, "low_ms must be a finite number"),
    ("web", "latency", {"low_ms": 1, "high_ms": float("inf"), "seed": 1}, "high_ms must be a finite number"),
    ("web", "latency", {"low_ms": 1, "high_ms": 2, "seed": 1.5}, "seed must be a whole number"),
    ("web", "latency", {"low_ms": 1, "high_ms": 2, "seed": 1, "share": 0}, "share is in (0, 1]"),
    ("web", "http_error", {"probability": 1.1, "status": 503, "seed": 1}, "probability is in (0, 1]"),
    ("web", "http_error", {"probability": 0.5, "status": 200, "seed": 1}, "status is in 400..599"),
    ("raw", "http_error", {"probability": 0.5, "status": 503, "seed": 1}, "protocol is http, and this one is tcp"),
    ("web", "down", {"mode": "sideways"}, "'reset' or 'refuse-like'"),
    ("web", "hang", {"for_s": 1}, "unknown parameter 'for_s'; it takes none"),
    ("web", "corrupt_records", {"fault": "scale", "parameters": {"share": 0.1, "low": 2}}, "'seed' is missing"),
    ("web", "corrupt_records", {"fault": "scale", "parameters": 7, "seed": 1}, "parameters must be a mapping"),
    ("web", "corrupt_records", {"fault": "rain", "parameters": {}, "seed": 1}, "no such fault of records"),
    (
        "web",
        "corrupt_records",
        {"fault": "scale", "parameters": {"share": 0.1, "low": 2, "high": 1}, "seed": 1},
        "corrupt_records: scale: low: 2 is above high, 1",
    ),
    ("raw", "blackhole", {"seed": 1}, "'direction' is missing; it takes seed, direction, share"),
    ("raw", "blackhole", {"seed": 1, "direction": "up"}, "direction is 'request' or 'response' or 'both'"),
    ("raw", "partition", {"seed": 1, "direction": "both"}, "direction is 'request' or 'response'"),
    ("raw", "reset", {"seed": 1, "direction": "request", "share": 0}, "share is in (0, 1]"),
    (
        "raw",
        "reset",
        {"seed": 1, "direction": "request", "after_bytes": 1.5},
        "after_bytes must be a whole number",
    ),
    ("raw", "reset", {"seed": 1, "direction": "request", "after_bytes": 1, "after_ms": 1.0}, "not both"),
    ("raw", "half_close", {"seed": 1, "direction": "request", "after_bytes": -1}, "after_bytes is at least 0"),
    ("raw", "bandwidth", {"seed": 1, "direction": "request", "kib_per_s": 0}, "kib_per_s is between 0.1 and"),
    ("raw", "slow_close", {"seed": 1, "direction": "request", "delay_ms": 0}, "delay_ms is in (0, 600000]"),
    ("raw", "corrupt_bytes", {"seed": 1, "direction": "request", "block_share": 2}, "block_share is in (0, 1]"),
    ("raw", "truncate", {"seed": 1}, "protocol is http, and this one is tcp"),
    ("web", "truncate", {"seed": 1, "keep_bytes": -1}, "keep_bytes is at least 0"),
    ("web", "rate_limit", {"limit_per_s": 1, "retry_after_s": -1}, "retry_after_s is in 0..86400"),
    ("web", "corrupt_json", {"seed": 1, "mode": "loudly"}, "mode is 'unparsable' or 'changed'"),
    ("web", "drop_headers", {"seed": 1, "names": ","}, "names is empty"),
]


@pytest.mark.parametrize(("link", "kind", "parameters", "words"), WRONG)
def test_wrong_toxics_are_refused_in_words(proxy, link, kind, parameters, words):
    with pytest.raises(TargetError) as refusal:
        proxy.links.add(Toxic(link, kind, parameters))
    assert words in str(refusal.value)
    assert list(proxy.links.active()) == []


@pytest.mark.parametrize(
    ("method", "params", "words"),
    [
        ("dance", {}, "no such method; there are ping"),
        ("add", {"link": "web"}, "'kind' is missing"),
        ("add", {"link": 3, "kind": "hang", "parameters": {}}, "link must be a str"),
        ("remove", {"id": "a", "now": True}, "unknown parameter 'now'"),
    ],
)
def test_wrong_calls_are_refused_in_words(proxy, method, params, words):
    with Client(proxy.control) as client, pytest.raises(TargetError) as refusal:
        client.call(method, **params)
    assert words in str(refusal.value)


def test_links_come_back_after_the_proxy_was_away(start_proxy, server):
    running = start_proxy({"a": (server.port, "tcp")})
    assert list(running.links.list()) == ["a"]
    os.kill(running.pid, signal.SIGTERM)

    def gone() -> bool:
        try:
            running.links.list()
        except TargetError:
            return True
        return False

    assert wait_for(gone, within_s=5)
    assert gone()  # A clear answer each time, not an error of a dead connection.


@pytest.mark.parametrize(
    ("links", "words"),
    [
        ("{", "not JSON"),
        ('{"a": {"listen": "127.0.0.1:0", "forward": "x:1", "colour": 1}}', "a.colour"),
        ('{"a": {"listen": "0.0.0.0:80", "forward": "x:1"}}', "a.listen"),
        (None, "cannot be read"),
        ("taken", "cannot listen on 127.0.0.1"),
    ],
)
def test_a_proxy_that_cannot_start_says_why(tmp_path, links, words):
    file = tmp_path / "links.json"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        if links == "taken":
            links = json.dumps({"a": {"listen": f"127.0.0.1:{taken.getsockname()[1]}", "forward": "127.0.0.1:1"}})
        if links is not None:
            file.write_text(links)
        found = subprocess.run(
            [
                sys.executable,
                "-m",
                "monkeyproof.faults.proxy.server",
                "--links",
                file,
                "--control",
                tmp_path / "s",
            ],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert found.returncode == 2
    assert words in found.stderr
    assert "Traceback" not in found.stderr


def test_another_runs_token_does_not_open_a_proxy(proxy, tmp_path):
    """A proxy that was started anew refuses clients that still have the old token."""
    Token(tmp_path / "another")
    another = (tmp_path / f"another{TOKEN_SUFFIX}").read_text()
    file = proxy.control.with_name(proxy.control.name + TOKEN_SUFFIX)
    right = file.read_text()
    assert list(proxy.links.active()) == []
    file.write_text(another)
    try:
        with Client(proxy.control) as client, pytest.raises(TargetError, match="begins with the token") as refusal:
            client.call("add", link="raw", kind="hang", parameters={})
    finally:
        file.write_text(right)
    assert another not in str(refusal.value)
    assert right not in str(refusal.value)
    assert list(proxy.links.active()) == []
