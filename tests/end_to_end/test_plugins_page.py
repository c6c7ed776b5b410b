"""docs/extending/plugins.md, word for word: its files, its commands, and a package that pip installs."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from plugin_world import free_port, install_package, running_service, with_packages

PAGE = Path(__file__).parents[2] / "docs" / "extending" / "plugins.md"
FILE = re.compile(r"`([\w./-]+)`:\n\n```\w+\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"^ {4}(\S.*)$", re.MULTILINE)

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True, slots=True)
class Page:
    folder: Path
    commands: list[str]
    environment: dict[str, str]

    def run(self, start: str) -> subprocess.CompletedProcess[str]:
        """Run the one command that begins like this."""
        (command,) = (one for one in self.commands if one.startswith(start))
        return subprocess.run(
            [sys.executable, "-P", "-m", "monkeyproof.cli", *shlex.split(command)[1:]],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """The page's files, with a free port in them, and its service up."""
    port = free_port()
    text = PAGE.read_text(encoding="utf-8").replace("5001", str(port))
    for name, content in FILE.findall(text):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    commands = COMMAND.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    (serve,) = (one for one in commands if one.startswith("python "))
    environment = with_packages(tmp_path / "site")
    words = [sys.executable, *shlex.split(serve.removesuffix("&"))[1:]]
    with running_service(words, tmp_path, port):
        yield Page(tmp_path, commands, environment)


def test_the_package(page: Page) -> None:
    (install,) = (one for one in page.commands if one.startswith("pip "))
    install_package(page.folder / shlex.split(install)[-1], page.folder / "site")
    done = page.run("monkeyproof run ")
    assert done.returncode == 0, done.stdout + done.stderr
    out = page.folder / "runs" / "acme"
    (trial,) = json.loads((out / "results.json").read_text())["trials"]
    assert trial["recovery"]["outcome"] == "fault_removed", trial["recovery"]
    assert trial["evidence"] == ["the service answers 503"]
    assert not (page.folder / "maintenance").exists()
    if importlib.util.find_spec("monkeyproof.reports.format_table"):
        assert (out / "outcomes.txt").read_text() == "maintenance: fault_removed\n"


def test_the_plain_module(page: Page) -> None:
    text = (page.folder / "acme-chaos" / "acme_chaos" / "faults.py").read_text()
    for old, new in (("acme.maintenance", "my_faults.maintenance"), ("acme_chaos.faults:", "my_faults:")):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (page.folder / "my_faults.py").write_text(text)
    done = page.run("monkeyproof fault ")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the service is out of maintenance" in done.stdout
