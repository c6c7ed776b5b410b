"""The parts in which ``make`` runs the tests, by the beginnings of paths; ``tests/conftest.py`` marks them."""

from __future__ import annotations

ALONE = (
    "tests/end_to_end/test_bounds.py",
    "tests/probes/test_calibrate.py",
    "tests/probes/test_hostile_service.py",
    "tests/probes/test_load.py",
    "tests/probes/test_prober.py",
    "tests/probes/test_connection_monitor.py",
    "tests/targets/test_front_door.py",
)
"""Where tests measure time. A whole target or other tests beside them would make answers late."""
LIVE = ("tests/end_to_end/", "tests/healing/test_elephant_stack.py", "tests/targets/")
"""Where a whole target runs, or large parts of one."""
LENGTHY = (
    "tests/config/test_fuzz.py",
    "tests/faults/proxy/test_proxy_transparency.py",
    "tests/faults/support/test_silent_flips.py",
    "tests/faults/test_load_faults.py",
    "tests/faults/test_model_faults.py",
    "tests/faults/test_registry_links.py",
    "tests/faults/test_resources.py",
    "tests/faults/test_rollback_faults.py",
    "tests/healing/test_telemetry.py",
    "tests/reports/test_comparison.py",
    "tests/reports/test_html.py",
    "tests/reports/test_tracking.py",
    "tests/runtime/test_process_group.py",
    "tests/safety/test_watchdog.py",
    "tests/trial/test_manual.py",
    "tests/trial/test_pytest_plugin.py",
    "tests/trial/test_sidecars.py",
)
"""What ``make quick`` leaves out: a registry or a browser is started, or a simulation takes seconds."""


def mark_of(path: str) -> str | None:
    """The marker of the tests in a file, whose path is relative to the checkout; None if they only count."""
    for mark, beginnings in (("alone", ALONE), ("live", LIVE), ("lengthy", LENGTHY)):
        if path.startswith(beginnings):
            return mark
    return None
