"""The table of formats: what is written by default, what plugins add, and what a plugin that fails costs."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from campaign_world import FakeRunner, plan_of, target_file
from click.testing import CliRunner, Result
from sample_campaign import replica_kill
from samples import campaign_of, write_trial

from monkeyproof.campaign.runner import run_campaign
from monkeyproof.cli import main
from monkeyproof.clock import ManualClock
from monkeyproof.errors import EXIT_REFUSED, UsageError
from monkeyproof.reports import format_table as table
from monkeyproof.reports.format_table import report_format
from monkeyproof.reports.model.report import Report, build
from monkeyproof.reports.write import write_reports

BUILT_IN = ["results.json", "report.html", "junit.xml", "report.md"]


@pytest.fixture(autouse=True)
def own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Formats that a test registers end with it."""
    monkeypatch.setattr(table, "_registered", {one.name: one for one in table.format_table().formats})


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return build(campaign_of([write_trial(tmp_path, replica_kill("none", 1), 1, 0)]), tmp_path)


def installed(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    """Entry points of a package, as ``importlib.metadata`` would find them."""

    def entry_points(*, group: str) -> list[EntryPoint]:
        assert group == "monkeyproof.reports"
        return [EntryPoint("x", value, group) for value in values]

    monkeypatch.setattr(table, "entry_points", entry_points)


def test_table_of_formats(report: Report) -> None:
    formats = table.format_table().formats
    assert [one.file_name for one in formats] == BUILT_IN
    assert [one.name for one in formats] == ["results", "html", "junit", "markdown"]
    assert all(one.default and one.built_in for one in formats)
    written = write_reports(report)
    assert [path.name for path in written.files] == BUILT_IN
    assert written.failures == ()


def test_registered_format_is_written(report: Report) -> None:
    @report_format("trials.txt")
    def trials(found: Report) -> str:
        return f"{len(found.trials)} {found.verdict.decision} \ud800"

    @report_format("extra.bin", name="extra", default=False)
    def extra(_: Report) -> bytes:
        return b"\x00"

    written = write_reports(report)
    assert [path.name for path in written.files] == [*BUILT_IN, "trials.txt"]
    assert (report.folder / "trials.txt").read_text() == "1 inconclusive \\ud800"
    assert [path.name for path in write_reports(report, ["extra", "txt"]).files] == ["extra.bin", "trials.txt"]
    with pytest.raises(UsageError, match=r"'csv': unknown; there are results, html, junit, markdown, extra, txt"):
        write_reports(report, ["csv"])


def test_failing_format_does_not_cost_the_others(report: Report) -> None:
    @report_format("broken.txt")
    def broken(_: Report) -> str:
        raise ValueError("no rows\nat all")

    @report_format("nothing.txt", name="nothing")
    def nothing(_: Report) -> str:
        return None  # type: ignore[return-value]

    @report_format("works.txt", name="works")
    def works(_: Report) -> str:
        return "yes"

    written = write_reports(report)
    assert [path.name for path in written.files] == [*BUILT_IN, "works.txt"]
    assert len(written.failures) == 2
    assert "nothing.txt" in written.failures[0]
    assert "text or bytes, and this one returned NoneType" in written.failures[0]
    assert written.failures[1].startswith(
        f"the report broken.txt of {__name__} cannot be written (ValueError: no "
    )
    assert ": no rows at all, in test_format_table.py, line " in written.failures[1]
    assert not [path for path in report.folder.iterdir() if path.name.startswith(".")]


def test_built_in_format_that_fails_is_an_error(report: Report) -> None:
    (report.folder / "report.md").mkdir()
    with pytest.raises(OSError, match=r"report\.md"):
        write_reports(report)


@pytest.mark.parametrize("file_name", ["../x.csv", "a/b.csv", ".hidden", ""])
def test_file_name_stays_in_the_folder(file_name: str) -> None:
    with pytest.raises(ValueError, match="plain file name"):
        report_format(file_name)


@pytest.mark.parametrize(("file_name", "name"), [("other.md", "markdown"), ("report.md", "mine")])
def test_duplicate_name_or_file(file_name: str, name: str) -> None:
    with pytest.raises(ValueError, match=r"monkeyproof\.reports\.formats\.markdown has registered this"):
        report_format(file_name, name=name)(lambda _: "")


def test_entry_points_are_loaded_when_reports_are_written(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_plugin_of_reports.py").write_text(
        "from monkeyproof.reports.format_table import report_format\n"
        "@report_format('plugin.txt')\n"
        "def plugin(report):\n    return report.campaign.name\n"
    )
    (tmp_path / "a_broken_plugin.py").write_text("x = 1\nraise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(tmp_path)
    installed(monkeypatch, "a_plugin_of_reports", "a_broken_plugin", "not_there")
    assert "a_plugin_of_reports" not in sys.modules
    written = write_reports(report)
    monkeypatch.delitem(sys.modules, "a_plugin_of_reports")
    assert [path.name for path in written.files] == [*BUILT_IN, "plugin.txt"]
    assert len(written.failures) == 2
    assert "'a_broken_plugin' of an unknown package cannot be loaded (RuntimeError: no lic" in written.failures[0]
    assert "a_broken_plugin.py, line 2" in written.failures[0]
    assert "ModuleNotFoundError" in written.failures[1]
    assert write_reports(report, ["junit"]).failures == ()


# The command line.


def cli(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    target = target_file(tmp_path)
    run_campaign(plan_of(tmp_path / "c", target), clock=ManualClock(), run_trial=FakeRunner(target))
    return tmp_path / "c"


def test_report_command_writes_the_table(campaign: Path) -> None:
    done = cli("report", campaign)
    assert done.exit_code == 0
    assert f"Report: {campaign / 'report.html'}" in done.output
    assert "beside it: results.json, junit.xml, report.md" in done.output


def test_report_command_writes_chosen_formats(campaign: Path) -> None:
    done = cli("report", campaign, "--format", "junit")
    assert done.exit_code == 0
    assert done.output.strip() == f"Report: {campaign / 'junit.xml'}"
    assert not (campaign / "report.html").exists()
    done = cli("report", campaign, "--format", "excel")
    assert done.exit_code == 2
    assert "there are results, html, junit, markdown" in done.output


def test_report_command_with_a_failing_plugin(campaign: Path) -> None:
    @report_format("broken.txt")
    def broken(_: Report) -> str:
        raise ValueError("no rows")

    done = cli("report", campaign)
    assert done.exit_code == EXIT_REFUSED
    assert "the report broken.txt of test_format_table cannot be written (ValueError: no rows" in done.output
    assert {path.name for path in campaign.iterdir()} >= set(BUILT_IN)
    alone = cli("report", campaign, "--format", "txt")
    assert alone.exit_code == EXIT_REFUSED
    assert "Traceback" not in alone.output


def run(folder: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> Result:
    """One trial in which all is well, on a target that does not exist."""
    target = target_file(folder)
    monkeypatch.setattr("monkeyproof.campaign.runner.run_worker", FakeRunner(target))
    options = ["--target", target.path, "--out", folder / "c", "--no-tracking", "--trials", "6"]
    return cli(command, "latency-spike", *options)


@pytest.mark.parametrize(("command", "code"), [("run", 0), ("gate", 0)])
def test_campaign_is_reported(tmp_path: Path, command: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(tmp_path, command, monkeypatch)
    assert done.exit_code == code, done.output
    assert "Verdict: pass" in done.output
    assert f"Report: {tmp_path / 'c' / 'report.html'}" in done.output


@pytest.mark.parametrize("command", ["run", "gate"])
def test_campaign_with_a_failing_plugin(tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    @report_format("broken.txt")
    def broken(_: Report) -> str:
        raise ValueError("no rows")

    done = run(tmp_path, command, monkeypatch)
    assert done.exit_code == EXIT_REFUSED
    assert "Verdict: pass" in done.output
    assert done.output.count("the report broken.txt of test_format_table cannot be written") == 1
    assert "the other files are written" in done.output
    assert (tmp_path / "c" / "report.html").exists()


def test_campaign_whose_report_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("monkeyproof.reports.write.write_reports", full)
    done = run(tmp_path, "gate", monkeypatch)
    assert done.exit_code == EXIT_REFUSED
    assert "the report cannot be written (No space left on device); make room, then" in done.output
