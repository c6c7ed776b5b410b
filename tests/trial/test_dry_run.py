"""A plan counts what a trial's faults use of the target's limits as the trial would."""

from __future__ import annotations

from pathlib import Path

import pytest

from monkeyproof.config.target_file import read_target_file
from monkeyproof.experiment import catalogue
from monkeyproof.trial.dry_run import DescribedTarget, DryRun

TARGET = """
name: mine
predict: {url: "http://127.0.0.1:1/", golden: g.jsonl}
links: {users: {listen: "127.0.0.1:0", forward: "127.0.0.1:1", protocol: http}}
allow_faults: [network]
limits: {latency_ms: 2000}
"""
DELAY = """
- type: action
  name: delay
  provider:
    type: python
    module: monkeyproof.faults.network
    func: add_latency
    arguments: {link: users, low_ms: 100.0, high_ms: 1500.0}
"""
REVERT = """
- {type: action, name: revert, provider: {type: python, module: monkeyproof.injection, func: revert}}
"""


@pytest.mark.parametrize(("between", "refused"), [("", True), (REVERT, False)])
def test_faults_that_are_active_together_count_together(tmp_path: Path, between: str, refused: bool) -> None:
    (tmp_path / "t.yaml").write_text(TARGET)
    (tmp_path / "e.yaml").write_text(
        f"title: Two delays\ndescription: On one link.\nmethod:\n{DELAY}{between}{DELAY}"
    )
    file = read_target_file(tmp_path / "t.yaml")
    target = DescribedTarget(file)
    steps = DryRun(file, target).steps(catalogue.read(tmp_path / "e.yaml", "e"), 1, "none")
    assert [step.refused is not None for step in steps] == [False, refused]
