"""A plugin that is installed, and a module that a target file names: real trials, and undoing after a kill."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from plugin_world import PACKAGE, SwitchedService, install_package, switched_service, with_packages

from monkeyproof.clock import wait_for
from monkeyproof.record.history import EVENTS_FILE, Kind, parse_events

pytestmark = pytest.mark.timeout(240)

MODULE = "my_faults"
RUN = ("run", "--healer", "none", "--no-tracking")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the package is installed in."""
    folder = tmp_path_factory.mktemp("site") / "packages"
    install_package(PACKAGE, folder)
    return folder


@pytest.fixture
def packaged(tmp_path: Path, site: Path) -> Iterator[SwitchedService]:
    """A service whose fault comes with an installed package."""
    with switched_service(tmp_path, with_packages(site)) as service:
        service.describe(family="sample", faults="sample_chaos.faults", probes="sample_chaos.probes")
        yield service


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[SwitchedService]:
    """A service whose fault stands in a module beside the target file."""
    with switched_service(tmp_path, os.environ) as service:
        (tmp_path / f"{MODULE}.py").write_text(plain_module())
        service.describe(family=MODULE, faults=MODULE, probes=MODULE, more=f"plugins: [{MODULE}]")
        yield service


def plain_module() -> str:
    """The package's fault and probe in one module."""
    faults = (PACKAGE / "sample_chaos" / "faults.py").read_text()
    faults = faults.replace("sample.maintenance", f"{MODULE}.maintenance").replace("sample_chaos.faults", MODULE)
    probe = (PACKAGE / "sample_chaos" / "probes.py").read_text().partition("__all__")[2].partition("\n\n\n")[2]
    return faults.replace('["maintenance", "switch_back"]', '["is_switched_back", "maintenance"]') + "\n\n" + probe


@pytest.mark.parametrize("kind", ["packaged", "plain"])
def test_a_trial_of_a_plugin_s_fault(kind: str, request: pytest.FixtureRequest) -> None:
    service: SwitchedService = request.getfixturevalue(kind)
    family = "sample" if kind == "packaged" else MODULE
    files = ("--target", str(service.folder / "t.yaml"))
    planned = service.monkeyproof("plan", str(service.folder / "e.yaml"), *files)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert f"injects {family}.maintenance on maintenance" in planned.stdout
    out = service.folder / "out"
    done = service.monkeyproof(*RUN, str(service.folder / "e.yaml"), *files, "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    (trial,) = json.loads((out / "results.json").read_text())["trials"]
    assert trial["recovery"]["outcome"] == "fault_removed", trial["recovery"]
    assert trial["evidence"] == ["/score answers 503"]
    (journal,) = out.glob("trials/*/journal.json")
    (probe,) = (
        one for one in json.loads(journal.read_text())["run"] if one["activity"]["name"] == "is-switched-back"
    )
    assert probe["output"] is True
    assert not service.switch.exists()


def test_a_manual_fault_and_one_in_a_user_s_test(plain: SwitchedService) -> None:
    target = str(plain.folder / "t.yaml")
    words = (f"{MODULE}.maintenance", f"switch={plain.switch}", "--target", target, "--for", "0.1s")
    done = plain.monkeyproof("fault", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "evidence: /score answers 503" in done.stdout
    (plain.folder / "test_mine.py").write_text(
        "def test_gate(chaos):\n"
        f"    with chaos.break_target() as monkey:\n"
        f"        assert monkey.inject('{MODULE}.maintenance', switch={str(plain.switch)!r}).data == "
        "{'status': 503}\n"
        f"    assert chaos.run({str(plain.folder / 'e.yaml')!r}).outcome == 'fault_removed'\n"
    )
    tested = subprocess.run(
        [
            *(plain.words()[0], "-P", "-m", "pytest", "-q", "-p", "no:locust", "-p", "no:cacheprovider"),
            *(
                str(plain.folder / "test_mine.py"),
                "--chaos-target",
                target,
                "--chaos-out",
                str(plain.folder / "o"),
            ),
        ],
        cwd=plain.folder,
        env=dict(plain.environment),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout
    assert not plain.switch.exists()


@pytest.mark.parametrize("kind", ["packaged", "plain"])
def test_chaos_run_with_the_control(kind: str, request: pytest.FixtureRequest) -> None:
    service: SwitchedService = request.getfixturevalue(kind)
    environment = {"MONKEYPROOF_TARGET": str(service.folder / "t.yaml")}
    if kind == "plain":  # Chaos Toolkit imports what an experiment names before it calls any control.
        environment["PYTHONPATH"] = str(service.folder)
    done = subprocess.run(
        [service.words()[0], "-P", "-m", "chaostoolkit", "run", str(service.folder / "e.yaml")],
        cwd=service.folder,
        env={**service.environment, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (events,) = service.folder.glob(f"runs/*/{EVENTS_FILE}")
    kinds = [event.kind for event in parse_events(events.read_bytes())]
    assert kinds.count(Kind.FAULT_EFFECTIVE) == kinds.count(Kind.FAULT_REVERTED) == 1
    assert not service.switch.exists()


def test_the_watchdog_undoes_what_a_killed_worker_left(packaged: SwitchedService) -> None:
    worker, campaign, _ = killed_half_way(packaged, family="sample", faults="sample_chaos.faults", more="")
    os.kill(worker, signal.SIGKILL)
    assert campaign.wait(60) == 4
    assert not packaged.switch.exists()


def test_revert_undoes_it_once_the_package_is_there_again(packaged: SwitchedService, site: Path) -> None:
    worker, campaign, watchdog = killed_half_way(packaged, family="sample", faults="sample_chaos.faults", more="")
    leave_open(worker, campaign, watchdog)
    missing = shutil.move(site, site.with_name("moved"))
    try:
        refused = packaged.monkeyproof("revert")
    finally:
        shutil.move(missing, site)
    assert refused.returncode == 5, refused.stdout + refused.stderr
    assert "it came with sample-chaos 1.2.0, which is missing now" in refused.stderr
    assert packaged.switch.exists()
    shown = packaged.monkeyproof("revert", "--dry-run")
    assert "open: sample.maintenance on maintenance" in shown.stdout
    done = packaged.monkeyproof("revert")
    assert done.returncode == 0, done.stderr
    assert "maintenance is removed" in done.stdout
    assert not packaged.switch.exists()


def test_revert_undoes_it_while_the_target_file_names_the_module(plain: SwitchedService) -> None:
    more = f"plugins: [{MODULE}]"
    leave_open(*killed_half_way(plain, family=MODULE, faults=MODULE, more=more))
    target = plain.folder / "t.yaml"
    text = target.read_text()
    target.write_text(text.replace(more, ""))
    refused = plain.monkeyproof("revert")
    assert refused.returncode == 5, refused.stdout + refused.stderr
    assert f"it came with {MODULE} (named in t.yaml), which is missing now" in refused.stderr
    assert plain.switch.exists()
    target.write_text(text)
    done = plain.monkeyproof("revert")
    assert done.returncode == 0, done.stderr
    assert not plain.switch.exists()


def killed_half_way(
    service: SwitchedService, *, family: str, faults: str, more: str
) -> tuple[int, subprocess.Popen[bytes], int]:
    """A campaign whose fault is in effect: its worker, its own process, and the worker's watchdog."""
    probes = "sample_chaos.probes" if family == "sample" else faults
    service.describe(family=family, faults=faults, probes=probes, more=more, horizon_s=60)
    out = service.folder / "out"
    options = ("--target", str(service.folder / "t.yaml"), "--out", str(out))
    campaign = subprocess.Popen(
        service.words(*RUN, str(service.folder / "e.yaml"), *options),
        cwd="/",
        env=dict(service.environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert wait_for(lambda: in_effect(out), within_s=60)
    (worker,) = running(out, b"monkeyproof.trial.worker")
    (watchdog,) = running(out, b"monkeyproof.safety.watchdog")
    return worker, campaign, watchdog


def leave_open(worker: int, campaign: subprocess.Popen[bytes], watchdog: int) -> None:
    """Kill all that could undo the fault."""
    campaign.send_signal(signal.SIGSTOP)
    for pid in (watchdog, worker):
        os.kill(pid, signal.SIGKILL)
    campaign.kill()
    campaign.wait(10)


def in_effect(out: Path) -> bool:
    return any(
        event.kind is Kind.FAULT_EFFECTIVE
        for file in out.glob(f"trials/*/{EVENTS_FILE}")
        for event in parse_events(file.read_bytes())
    )


def running(out: Path, module: bytes) -> list[int]:
    """Processes of a campaign that run a module."""
    return [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if f"{out}/trials/".encode() in (words := read(path)) and module in words.split(b"\0")
    ]


def read(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""
