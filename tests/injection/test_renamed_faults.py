"""Former names of faults: they work for one version more, with a warning, and no list shows them."""

from __future__ import annotations

import inspect
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from monkeyproof.cli import fault_list
from monkeyproof.errors import Refusal, RenamedWarning
from monkeyproof.experiment import catalogue
from monkeyproof.faults import network
from monkeyproof.injection import fault_registry

RENAMED = [one for one in fault_registry.all_faults() if one.former_names]
FILE = """
title: A black hole
description: What is sent does not arrive.
method:
- type: action
  name: break
  provider:
    type: python
    module: {module}
    func: {function}
    arguments: {arguments}
"""


@pytest.mark.parametrize("fault", RENAMED, ids=lambda one: one.name)
def test_every_former_name_finds_its_fault_and_is_a_function_for_chaos_toolkit(
    fault: fault_registry.Fault,
) -> None:
    module, _ = fault.key
    functions = dict(inspect.getmembers(sys.modules[module], inspect.isfunction))
    for name in fault.former_names:
        with pytest.warns(RenamedWarning, match=f"'{fault.family}.{name}' is named '{fault.name}' now"):
            assert fault_registry.find(f"{fault.family}.{name}") is fault
        assert inspect.signature(functions[name]) == inspect.signature(fault.function)
        assert f"{fault.family}.{name}" not in fault_list.as_markdown()
        assert name not in sys.modules[module].__all__


def test_a_call_by_a_former_name_warns_and_does_what_the_fault_does() -> None:
    with (
        pytest.warns(RenamedWarning, match=r"'network\.swallow' is named 'network\.blackhole' now"),
        pytest.raises(Refusal, match="no trial is open"),
    ):
        network.swallow("web")


@pytest.mark.parametrize(
    ("module", "function", "arguments", "line", "found"),
    [
        ("monkeyproof.faults.network", "swallow", "{link: a}", 10, ("func", "blackhole")),
        (
            "monkeyproof.faults.compound",
            "when_seen",
            "{event: healer.acting, fault: network.swallow, arguments: {link: a}, within_s: 2.0}",
            11,
            ("fault", "network.blackhole"),
        ),
    ],
)
def test_a_former_name_in_an_experiment_warns_once_with_its_line(
    tmp_path: Path, module: str, function: str, arguments: str, line: int, found: tuple[str, str]
) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(FILE.format(module=module, function=function, arguments=arguments))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", RenamedWarning)
        provider = catalogue.read(file, "e").document["method"][0]["provider"]
    (warning,) = caught
    assert str(warning.message).startswith(f"{file}:{line}: 'network.swallow' is named 'network.blackhole' now")
    assert (provider | provider["arguments"])[found[0]] == found[1]


def test_the_command_line_shows_the_warning_as_a_line_of_its_own() -> None:
    command = [Path(sys.executable).with_name("monkeyproof"), "fault", "network.swallow", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "Make the link a black hole" in done.stdout
    assert done.stderr == (
        "monkeyproof: warning: 'network.swallow' is named 'network.blackhole' now; use that name, for the old one "
        "works in this version only\n"
    )
