"""Plugins are found, imported when they are needed, and refused with a message that says what to do."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from undo_world import FakeTarget, fault

from monkeyproof.cli import fault_list
from monkeyproof.config.target_file import TargetFile, read_target_file
from monkeyproof.errors import NotReverted, Refusal, RenamedWarning, UsageError
from monkeyproof.experiment import catalogue
from monkeyproof.injection import fault_registry
from monkeyproof.injection.inject import Context, inject, revert
from monkeyproof.plugins import registry as plugins
from monkeyproof.undo.log import Undo, read_open

TARGET = """
name: mine
predict: {url: "http://127.0.0.1:1/", golden: g.jsonl}
allow_faults: [noop, my_faults]
plugins:
- my_faults
"""
MODULE = """
from monkeyproof.injection.fault_registry import fault
from monkeyproof.plugins import undo
from os import system

@fault(evidence="a file", undo="removes the file", healing="none")
def break_it(count: int, name: str = "") -> dict:
    '''Break it.'''

@undo
def mend_it(target) -> str:
    '''Mend it.'''
    return "mended"

def not_an_undo(target) -> str:
    '''Look.'''
    return "looked"
"""
EXPERIMENT = """
title: It breaks
description: And is mended.
method:
- type: action
  name: break
  provider: {{type: python, module: my_faults, func: break_it, arguments: {{{arguments}}}}}
- type: action
  name: else
  provider: {{type: python, module: {module}, func: {function}}}
"""
Install = Callable[..., Path]


@pytest.fixture(autouse=True)
def _forget_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test declares and imports ends with it."""
    before = set(sys.modules)
    monkeypatch.setattr(plugins, "_declared", {})
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("my_faults", "acme_faults", "acme_more", "helper"):
            del sys.modules[name]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a package where Python finds it, with its metadata."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def installed(package: str, points: Sequence[str], **modules: str) -> Path:
        folder = site / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text("\n".join(points) + "\n")
        for name, text in modules.items():
            (site / f"{name}.py").write_text(text)
        plugins._installed.cache_clear()
        return site

    return installed


def target_file(folder: Path, text: str = TARGET, module: str | None = MODULE) -> Path:
    if module is not None:
        (folder / "my_faults.py").write_text(module)
    (folder / "t.yaml").write_text(text)
    return folder / "t.yaml"


def test_a_module_beside_the_target_file_brings_a_family(tmp_path: Path) -> None:
    file = read_target_file(target_file(tmp_path))
    assert file.allow_faults == ("noop", "my_faults")
    assert "my_faults" not in sys.modules
    found = fault_registry.find("my_faults.break_it")
    assert found.key == ("my_faults", "break_it")
    assert found.origin == "my_faults (named in t.yaml)"
    assert [one.name for one in found.parameters] == ["count", "name"]
    assert fault_registry.all_faults()[-1] is found
    assert found not in fault_registry.built_in_faults()
    assert "my_faults" not in fault_list.as_markdown()
    probes = {one.function: one.origin for one in fault_list.all_probes()}
    assert probes["not_an_undo"] == "my_faults (named in t.yaml)"
    assert probes["slo_holds"] == "built in"
    assert not {"mend_it", "break_it", "system"} & set(probes)


def test_a_module_may_be_imported_before_its_target_file_is_read(tmp_path: Path) -> None:
    package = tmp_path / "my_faults"
    package.mkdir()
    (package / "parts.py").write_text(MODULE)
    (package / "__init__.py").write_text("from my_faults.parts import break_it")
    sys.path.insert(0, str(tmp_path))
    try:
        importlib.import_module("my_faults.parts")
        read_target_file(target_file(tmp_path, module=None))
        assert fault_registry.find("my_faults.break_it").key == ("my_faults", "break_it")
        assert fault_registry.fault_at("my_faults.parts", "break_it") is fault_registry.find("my_faults.break_it")
    finally:
        sys.path.remove(str(tmp_path))


RENAMED = MODULE.replace('healing="none"', 'healing="none", former_names=["old_name"]')


@pytest.mark.parametrize("early", [False, True])
def test_a_former_name_of_a_plugin_fault_works_and_is_in_no_list(tmp_path: Path, early: bool) -> None:
    path = target_file(tmp_path, module=None if early else RENAMED)
    words = r"'my_faults\.old_name' is named 'my_faults\.break_it' now"
    if early:
        package = tmp_path / "my_faults"
        package.mkdir()
        (package / "parts.py").write_text(RENAMED)
        (package / "__init__.py").write_text("from my_faults.parts import break_it, old_name")
        sys.path.insert(0, str(tmp_path))
    try:
        if early:
            importlib.import_module("my_faults.parts")
        read_target_file(path)
        listed = [one.name for one in fault_registry.all_faults() if one.module]
        probes = [one.function for one in fault_list.all_probes()]
        with pytest.warns(RenamedWarning, match=words):
            found = fault_registry.find("my_faults.old_name")
        assert fault_registry.fault_at("my_faults", "old_name") is found
        with pytest.warns(RenamedWarning, match=words):
            importlib.import_module("my_faults").old_name(count=1)
    finally:
        if early:
            sys.path.remove(str(tmp_path))
    assert listed == ["my_faults.break_it"]
    assert "old_name" not in probes


def test_the_check_of_an_experiment_names_the_line_of_a_former_name(tmp_path: Path) -> None:
    read_target_file(target_file(tmp_path, module=RENAMED))
    file = tmp_path / "e.yaml"
    text = EXPERIMENT.format(arguments="count: 1", module="monkeyproof.injection", function="revert")
    file.write_text(text.replace("break_it", "old_name"))
    with pytest.warns(
        RenamedWarning, match=rf"{file}:7: 'my_faults\.old_name' is named 'my_faults\.break_it' now"
    ):
        document = catalogue.read(file, "e").document
    assert document["method"][0]["provider"]["func"] == "break_it"


def test_the_short_form_takes_a_plugin_fault(tmp_path: Path) -> None:
    read_target_file(target_file(tmp_path))
    file = tmp_path / "e.yaml"
    method = EXPERIMENT.partition("- type: action\n  name: else")[0].format(arguments="count: 1")
    file.write_text(f"{method}extensions:\n- {{name: monkeyproof, trial: {{watch: false}}}}\n")
    names = [one["name"] for one in catalogue.read(file, "e").document["method"]]
    assert names == ["break", "hold", "revert"]


def test_only_named_modules_of_the_folder_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("")
    read_target_file(target_file(tmp_path))
    plugins.load_declared()
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("helper")


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (None, "ModuleNotFoundError: No module named 'my_faults'; it has to lie in {}, as a file or a package"),
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name' ({}/my_f"),
        ("\n\n1 / 0", "ZeroDivisionError: division by zero ({}/my_faults.py:3)"),
        ("def f(:", "{}/my_faults.py:1: invalid syntax"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
    ],
)
def test_an_import_error_names_file_and_line(tmp_path: Path, module: str | None, words: str) -> None:
    path = target_file(tmp_path, module=module)
    read_target_file(path)
    with pytest.raises(UsageError) as told:
        plugins.load_declared()
    assert str(told.value).startswith(f"{path}:6: plugins.0: 'my_faults' cannot be imported: ")
    assert words.format(tmp_path) in str(told.value)


def test_a_broken_module_ends_a_run_before_anything_starts(tmp_path: Path) -> None:
    target_file(tmp_path, module="1 / 0")
    done = monkeyproof(tmp_path, "run", "sham", "--target", "t.yaml", "--out", "out")
    assert done.returncode == 2
    assert "t.yaml:6: plugins.0: 'my_faults' cannot be imported: ZeroDivisionError" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("noop, my_faults", "noop, my_fault", r"t.yaml:4: allow_faults.1: .*'my_fault': did you mean 'my_faults'"),
        ("noop, my_faults", "netwrok", r"t.yaml:4: allow_faults.0: no family of faults 'netwrok': .*'network'"),
        ("- my_faults", "- my-faults", r"t.yaml:6: plugins.0: .*pattern"),
        ("- my_faults", "- my_faults\n- a.network", r"t.yaml:7: plugins.1: 'a.network': .*'network' is monkeyp"),
        (
            "- my_faults",
            "- my_faults\n- a.my_faults",
            r"t.yaml:7: plugins.1: .*my_faults \(named in t.yaml\) has a",
        ),
    ],
)
def test_wrong_names_in_a_target_file(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = target_file(tmp_path, TARGET.replace(old, new))
    with pytest.raises(UsageError, match=words):
        read_target_file(path)


@pytest.mark.parametrize("name", ["json", "click"])
def test_a_module_must_not_share_its_name_with_another(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    text = TARGET.replace("noop, my_faults", "noop").replace("- my_faults", f"- {name}")
    read_target_file(target_file(tmp_path, text))
    with pytest.raises(
        UsageError, match=rf"t.yaml:6: plugins.0: '{name}' is both .*/{name}.py and .*; rename yours"
    ):
        plugins.load_declared()


def test_an_installed_package_is_imported_when_needed(install: Install) -> None:
    install("acme", ["[monkeyproof.faults]", "acme = acme_faults"], acme_faults=MODULE)
    assert list(plugins.families()) == ["acme"]
    fault_registry.find("network.add_latency")
    assert "acme_faults" not in sys.modules
    found = fault_registry.find("acme.break_it")
    assert (found.key, found.origin) == (("acme_faults", "break_it"), "acme 1.0")


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (["network = acme_faults"], r"plugin 'network' of acme 1.0 .*the family 'network' is monkeyproof's own"),
        (["foreign = acme_faults"], r"the family 'foreign' is monkeyproof's own; rename its entry point"),
        (["a.b = acme_faults"], r"'a.b' is not the name of a family"),
        (["acme = acme_faults", "acme = acme_more"], r"acme 1.0 has a family 'acme' too; rename its entry point"),
    ],
)
def test_a_family_whose_name_is_taken_or_none_is_refused(install: Install, points: list[str], words: str) -> None:
    install("acme", ["[monkeyproof.faults]", *points], acme_faults=MODULE, acme_more=MODULE)
    with pytest.raises(UsageError, match=words):
        fault_registry.all_faults()
    # It must not pass for the built-in family.
    with pytest.raises(UsageError, match=words):
        fault_registry.fault_at("acme_faults", "break_it")


def test_commands_that_need_no_plugin_import_none(install: Install, tmp_path: Path) -> None:
    groups = (f"[{group}]\nacme = acme_faults" for group in plugins.GROUPS)
    site = install("acme", list(groups), acme_faults="raise RuntimeError('imported')")
    for words in (["--help"], ["list"], ["run", "--help"], ["revert"], ["list", "--faults", "--markdown"]):
        done = monkeyproof(tmp_path, *words, PYTHONPATH=str(site))
        assert done.returncode == 0, (words, done.stderr)
    done = monkeyproof(tmp_path, "list", "--faults", PYTHONPATH=str(site))
    assert done.returncode == 2
    assert "the plugin 'acme' of acme 1.0 (module 'acme_faults') cannot be imported: RuntimeError" in done.stderr
    assert "repair or uninstall that package" in done.stderr


def test_the_list_shows_where_a_fault_comes_from(tmp_path: Path) -> None:
    target_file(tmp_path)
    done = monkeyproof(tmp_path, "list", "--faults", "--target", "t.yaml", COLUMNS="200")
    assert done.returncode == 0, done.stderr
    listed = done.stdout.split("my_faults.break_it")[1]
    assert "my_faults (named in t.yaml)" in listed
    assert "built in" in done.stdout.split("my_faults.break_it")[0]
    probes = monkeyproof(tmp_path, "list", "--probes", "--target", "t.yaml", COLUMNS="200")
    assert "not_an_undo  Look." in probes.stdout
    stray = monkeyproof(tmp_path, "list", "--target", "t.yaml")
    assert stray.returncode == 2
    assert "--target: use it together with --faults or --probes" in stray.stderr


@pytest.mark.parametrize(
    ("arguments", "other", "words"),
    [
        ("count: 1", ("monkeyproof.injection", "revert"), ""),
        ("count: many", ("monkeyproof.injection", "revert"), "count: Input should be a valid integer"),
        ("", ("monkeyproof.injection", "revert"), "break_it needs the argument 'count'"),
        ("count: 1, x: 2", ("monkeyproof.injection", "revert"), "takes no argument 'x'; it takes: count, name"),
        ("count: 1", ("os", "getpid"), "'else' is an external action beside faults of monkeyproof's own"),
    ],
)
def test_an_experiment_with_a_plugin_fault_is_checked(
    tmp_path: Path, arguments: str, other: tuple[str, str], words: str
) -> None:
    read_target_file(target_file(tmp_path))
    file = tmp_path / "e.yaml"
    file.write_text(EXPERIMENT.format(arguments=arguments, module=other[0], function=other[1]))
    if not words:
        found = fault_registry.faults_in(catalogue.read(file, "e").document)
        assert [one.name for one in found] == ["my_faults.break_it"]
        return
    with pytest.raises((UsageError, Refusal)) as told:
        catalogue.read(file, "e")
    assert words in str(told.value)


@pytest.fixture
def described(context: Context, tmp_path: Path) -> TargetFile:
    """The open trial's target, described by a file that names a plugin."""
    file = replace(read_target_file(target_file(tmp_path)), allow_faults=("noop", "my_faults"))
    assert isinstance(context.target, FakeTarget)
    context.target.file = file
    return file


def test_the_undo_log_records_where_an_undo_comes_from(context: Context, described: TargetFile) -> None:
    inject(fault(fault="my_faults.break_it", undo=Undo("my_faults:mend_it", {})))
    (opened,) = read_open(context.undo.path)
    assert opened.undo.package == "my_faults (named in t.yaml)"
    assert opened.undo.resolved(described.path).__name__ == "mend_it"
    assert revert() == ["mended"]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("os:system", "no installed package has the plugin 'os'"),
        ("my_faults:system", "has no undo"),
        ("my_faults:not_an_undo", "has no undo"),
        ("my_faults:break_it", "has no undo"),
        ("my_faults:none_such", "has no undo"),
        ("my_faults:mend_it.x", "has no undo"),
        ("monkeyproof.plugins:undo", "no installed package has the plugin"),
    ],
)
def test_an_undo_has_to_be_found_by_a_fresh_process(
    context: Context, described: TargetFile, function: str, words: str
) -> None:
    refused = fault(fault="my_faults.break_it", undo=Undo(function, {}), apply=pytest.fail)
    with pytest.raises(Refusal, match=f"^not injecting: neither the watchdog nor .*{words}") as told:
        inject(refused)
    assert str(described.path) in str(told.value)
    assert context.undo.path.read_bytes() == b""
    # An undo log that was planted does not get further.
    with pytest.raises(UsageError, match=words):
        Undo(function, {}).run(context.target, described.path)


def test_what_only_this_process_can_import_is_no_way_back(
    context: Context, described: TargetFile, install: Install
) -> None:
    # As where a script extends its own module search path.
    install("acme", ["[monkeyproof.faults]", "acme = acme_faults"], acme_faults=MODULE)
    assert Undo("acme_faults:mend_it", {}).resolved().__name__ == "mend_it"
    with pytest.raises(Refusal, match="no installed package has the plugin 'acme_faults'"):
        inject(fault(fault="my_faults.break_it", undo=Undo("acme_faults:mend_it", {}), apply=pytest.fail))
    assert not context.undo.open_faults()
    assert described.name == "mine"


def test_an_undo_needs_its_own_target_file_to_name_it(context: Context, described: TargetFile) -> None:
    inject(fault(fault="my_faults.break_it", undo=Undo("my_faults:mend_it", {})))
    other = described.path.with_name("other.yaml")
    other.write_text(TARGET.replace("plugins:\n- my_faults", "").replace(", my_faults", ""))
    (opened,) = context.undo.open_faults()
    with pytest.raises(UsageError, match=r"it came with my_faults \(named in t.yaml\), which is missing now"):
        opened.undo.resolved(other)
    described.path.unlink()
    with pytest.raises(NotReverted, match=r"t\.yaml: cannot be read"):
        revert()
    assert context.undo.open_faults() == [opened]
    described.path.write_text("plugins: [my_faults]\nwhatever: else")
    assert revert() == ["mended"]


def test_logs_of_earlier_versions_name_no_package(context: Context) -> None:
    inject(fault())
    entry = json.loads(context.undo.path.read_text().splitlines()[0])
    assert set(entry["undo"]) == {"function", "arguments"}
    assert read_open(context.undo.path)[0].undo.package == ""


def monkeyproof(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "monkeyproof.cli", *words],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
