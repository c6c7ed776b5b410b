"""Commands in the documentation are run as they stand; a command that is not run here is listed with why."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from command_line import ended_everything_here, monkeyproof

from monkeyproof.cli import main
from monkeyproof.config.target_file import read_target_file
from monkeyproof.experiment import catalogue

ROOT = Path(__file__).parents[1]
AT_THE_ROOT = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
PAGES = [*(ROOT / name for name in AT_THE_ROOT), *sorted((ROOT / "docs").rglob("*.md"))]

ELSEWHERE = {
    "git clone": "the clone is where this runs",
    "cd monkeyproof": "the same",
    "make demo": "runs what tests/end_to_end runs",
    "make test": "is running",
    "make lint": "runs before the tests",
    "make quick": "runs a part of what is running",
    "make catalogue": "runs other tests, in CI too",
    "make coverage": "runs a part of what is running, in CI too",
    "MONKEYPROOF_HOME=": "runs until it is ended, beside all tests",
    "monkeyproof run": "tests/end_to_end runs every experiment, and `chaos run`",
    "monkeyproof calibrate": "takes half a minute: tests/probes/test_calibrate.py",
    "monkeyproof gate": "tests/end_to_end/test_campaigns.py",
    "chaos run": "tests/end_to_end",
    "monkeyproof target up": "tests/targets",
    "monkeyproof target down": "tests/targets",
    "monkeyproof report runs/": "needs a finished campaign: tests/end_to_end",
    "monkeyproof fault network.add_latency link=": "needs a target: tests/trial/test_manual.py",
    "monkeyproof unleash": "needs a target: tests/end_to_end/test_storm_trials.py",
    "monkeyproof proxy": "runs until it is ended: tests/targets",
    "monkeyproof fault my_faults.": "tests/end_to_end/test_plugins_page.py",
    "pip install": "needs a registry",
    "uv pip compile": "needs a registry",
    "kubectl": "needs a cluster",
    "kind": "needs a cluster",
    "MONKEYPROOF_NAMESPACE=": "needs a cluster",
    "pytest": "the plugin: tests/trial/test_pytest_plugin.py",
}


def commands() -> list[tuple[str, str]]:
    """Every indented or fenced shell line of every page that begins like a command."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        text = re.sub(r"\\\n\s*", "", text)
        for line in re.findall(r"^ {4}(\S.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE):
            command = line.split("  #")[0].strip()
            if re.match(r"(monkeyproof|chaos|make|git|cd|pip|uv|kubectl|kind|pytest|[A-Z_]+=\S+) ?", command):
                found.append((page.name, command))
    return found


def test_there_are_commands_to_run() -> None:
    assert len(commands()) >= 8


@pytest.mark.parametrize(("page", "command"), commands())
def test_command(page: str, command: str, tmp_path: Path) -> None:
    if any(command.startswith(start) for start in ELSEWHERE):
        _check_words(command)
        return
    words = shlex.split(command)
    assert words[0] == "monkeyproof", f"{page}: {command!r} is neither run nor listed in ELSEWHERE"
    done = monkeyproof(tmp_path, *words[1:])
    output = done.stdout + done.stderr
    if words[1] == "stop":
        assert ended_everything_here(done), output
    else:
        # `target status` reports by its exit code that no target is up.
        assert done.returncode in ((0, 1) if "status" in words else (0,)), output


def _check_words(command: str) -> None:
    """What is not run has at least to be spelt right: the subcommand, its options, and names of experiments."""
    words = [word for word in shlex.split(command) if "=" not in word or word.startswith("-")]
    if words[0] != "monkeyproof" or "my_faults." in command:  # That plugin is made on its own page.
        return
    group = main
    context = main.make_context("monkeyproof", [], resilient_parsing=True)
    rest = words[1:]
    while hasattr(group, "commands"):
        child = group.get_command(context, rest.pop(0))  # type: ignore[attr-defined]
        assert child is not None, command
        group = child
    group.make_context(words[1], [word for word in rest if word not in ("...",)], resilient_parsing=False)
    for word in rest:
        if word in catalogue.names():
            catalogue.find(word)


def test_target_file_of_the_documentation_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_TOKEN", "x")
    blocks = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs" / "target-file.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert blocks
    for block in blocks:
        (tmp_path / "t.yaml").write_text(block)
        read_target_file(tmp_path / "t.yaml")


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_experiment_is_documented() -> None:
    page = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    for name in catalogue.names():
        assert f"`{name}`" in page, name
