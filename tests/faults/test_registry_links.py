"""The way to a registry is cut, slow, or fails: the faults of links, under the registry's own name."""

# ruff: noqa: ARG001  (fixtures are asked for what they set up)

from __future__ import annotations

from dataclasses import replace

import pytest

from monkeyproof.config.target_file import Link
from monkeyproof.errors import UsageError
from monkeyproof.faults import registry
from monkeyproof.faults.support.links import broken_how
from monkeyproof.injection.inject import current, revert
from monkeyproof.targets import port
from monkeyproof.targets.links import ProxyLinks


@pytest.fixture
def way(world, start_proxy, server, asked):
    """The small target with a link ``replica->registry``."""
    running = start_proxy({"replica->registry": (server.port, "http")})
    links = {
        name: Link("{}:{}".format(*address), f"127.0.0.1:{server.port}", "http")
        for name, address in running.addresses.items()
    }
    world.file = replace(world.file, links={**world.file.links, **links})
    world.parts[port.Links].close()
    world.parts[port.Links] = ProxyLinks(running.control)
    return running.addresses["replica->registry"]


def intended() -> tuple[str, str]:
    (one,) = current().undo.open_faults()
    return one.fault, one.subject


def test_an_outage(way):
    assert "our own connection was reset" in registry.outage()["evidence"]
    assert intended() == ("registry.outage", "replica->registry")
    assert broken_how(way) == "reset"
    (opened,) = current().undo.open_faults()
    assert revert() == ["replica->registry: fault removed"]
    assert broken_how(way) is None
    assert "had ended already" in opened.undo.run(current().target)


def test_slowness(way):
    found = registry.slow(low_ms=20, high_ms=30)
    assert intended()[0] == "registry.slow"
    assert found["data"]["delay_min_ms"] >= 20
    revert()


def test_failures(way):
    found = registry.failing(probability=0.5, status=500)
    assert intended()[0] == "registry.failing"
    assert "answered 500 by the fault proxy" in found["evidence"]
    revert()
    assert registry.failing()["fault"] == "registry.failing"  # The classic: 30 %.
    revert()


@pytest.mark.parametrize(
    ("inject", "words"),
    [
        (lambda: registry.outage("web"), "these do: replica->registry"),
        (lambda: registry.outage("nobody->registry"), "has no link 'nobody->registry'"),
        (lambda: registry.outage(mode="gently"), "mode: 'gently'"),
        (lambda: registry.slow(30, 20), "low_ms <= high_ms"),
        (lambda: registry.failing(probability=0), "probability: 0"),
        (lambda: registry.failing(status=200), "status: 200"),
    ],
)
def test_mistakes_are_reported(way, inject, words):
    with pytest.raises(UsageError) as refusal:
        inject()
    assert words in str(refusal.value)
