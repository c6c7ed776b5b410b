"""The worker of a trial, observers first: ``python -m monkeyproof.trial.worker PLAN``.

To import monkeyproof.trial.run takes about as long as the observers take to start, so they start before it,
and beside it. In all else this is ``python -m monkeyproof.trial.run PLAN``.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

from monkeyproof.errors import UsageError
from monkeyproof.paths import keep_private
from monkeyproof.trial.sidecars import Sidecars, start_observers


def main() -> None:
    keep_private()
    observers: Sidecars | None = None
    with contextlib.suppress(UsageError, OSError):  # The trial meets it again, where it is told to the campaign.
        observers = start_observers(json.loads(Path(sys.argv[1]).read_bytes()))
    from monkeyproof.trial import run as trial_run

    trial_run.main(observers)


if __name__ == "__main__":
    main()
