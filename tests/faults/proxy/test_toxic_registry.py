"""Toxics are found without being listed, and refused where they cannot act; modules import in one direction."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from monkeyproof.errors import UsageError
from monkeyproof.faults import proxy
from monkeyproof.faults.proxy import toxic_registry, toxics
from monkeyproof.faults.proxy.hooks import REFUSAL, RESPONSE_HEAD, HeadToxic, RefusingToxic, ShareOfMessages
from monkeyproof.faults.proxy.toxic_registry import kinds, parse, toxic

PACKAGE = "monkeyproof.faults.proxy"
FOLDER = Path(proxy.__path__[0])


def test_every_file_of_the_folder_is_one_kind_of_toxic_of_that_name() -> None:
    files = {file.stem for file in Path(toxics.__path__[0]).glob("*.py")} - {"__init__"}
    assert set(kinds()) == files
    for kind, made in kinds().items():
        assert (made.kind, made.__module__) == (kind, f"{PACKAGE}.toxics.{kind}")


def test_a_class_that_cannot_act_at_its_hook_is_refused() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Other(RefusingToxic): ...

    with pytest.raises(TypeError, match="other: acts at response_head, so Other has to derive from HeadToxic"):
        toxic("other", hook=RESPONSE_HEAD)(Other)


def test_a_parameter_that_no_client_can_send_is_refused() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Other(ShareOfMessages, HeadToxic):
        when: Mapping[str, bytes]

    with pytest.raises(TypeError, match="other: when is none of"):
        toxic("other", hook=RESPONSE_HEAD)(Other)


def test_a_name_that_is_taken_is_refused() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Other(RefusingToxic): ...

    with pytest.raises(TypeError, match=r"hang: monkeyproof\.faults\.proxy\.toxics\.hang has that name already"):
        toxic("hang", hook=REFUSAL)(Other)
    assert toxic_registry.kinds()["hang"].__module__ == f"{PACKAGE}.toxics.hang"


@pytest.mark.parametrize(
    ("kind", "parameters", "protocol", "words"),
    [
        ("rewind", {}, "http", "'rewind': no such toxic; there are bandwidth, blackhole"),
        ("drop_headers", {}, "tcp", "drop_headers: needs a link whose protocol is http, and this one is tcp"),
        ("stale_values", {}, "http", "stale_values: needs a link whose protocol is redis"),
        ("drop_headers", {"seed": 1}, "http", "drop_headers: parameter 'names' is missing; it takes seed, share"),
        ("hang", {"loudly": 1}, "tcp", "hang: unknown parameter 'loudly'; it takes none"),
        ("truncate", {"seed": True}, "http", "truncate: seed must be a whole number, not True"),
        ("truncate", {"seed": 1, "share": "1"}, "http", "truncate: share must be a finite number, not '1'"),
        (
            "truncate",
            {"seed": 1, "share": float("inf")},
            "http",
            "truncate: share must be a finite number, not inf",
        ),
    ],
)
def test_wrong_requests_for_a_toxic(
    kind: str, parameters: Mapping[str, object], protocol: str, words: str
) -> None:
    with pytest.raises(UsageError) as refusal:
        parse(kind, parameters, protocol)
    assert str(refusal.value).startswith(words)


def test_the_modules_of_the_proxy_import_one_another_in_one_direction() -> None:
    """Imports for types alone and within functions count too."""
    modules = {
        ".".join((PACKAGE, *file.relative_to(FOLDER).with_suffix("").parts)).removesuffix(".__init__"): file
        for file in FOLDER.rglob("*.py")
    }
    imported: dict[str, set[str]] = {}
    for name, file in modules.items():
        found = imported[name] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                found |= {f"{node.module}.{one.name}" for one in node.names} | {node.module}
        found &= set(modules) - {name}
    assert imported[f"{PACKAGE}.link"] >= {f"{PACKAGE}.relay", f"{PACKAGE}.hooks"}
    tuple(TopologicalSorter(imported).static_order())  # Raises CycleError with the modules of a circle.
