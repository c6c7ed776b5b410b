"""The worker of a trial, which starts the sidecars first: ``python -m monkeyproof.trial.worker PLAN``.

The import of monkeyproof.trial.run takes about as long as the start of the sidecars, so they start before it and
run beside it. Otherwise this module is equal to ``python -m monkeyproof.trial.run PLAN``.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

from monkeyproof.errors import UsageError
from monkeyproof.paths import keep_private
from monkeyproof.trial.sidecars import Sidecars, start_sidecars


def main() -> None:
    keep_private()
    sidecars: Sidecars | None = None
    with contextlib.suppress(UsageError, OSError):  # The trial fails in the same way, and reports it.
        sidecars = start_sidecars(json.loads(Path(sys.argv[1]).read_bytes()))
    from monkeyproof.trial import run as trial_run

    trial_run.main(sidecars)


if __name__ == "__main__":
    main()
