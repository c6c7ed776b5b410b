"""The worker of a trial, observers first: ``python -m monkeyproof.trial_worker PLAN``.

To import monkeyproof.trial takes about as long as the observers take to start, so they start before it, and beside
it. In all else this is ``python -m monkeyproof.trial PLAN``.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

from monkeyproof.errors import UsageError
from monkeyproof.observers import Observers, start_observers
from monkeyproof.paths import keep_private


def main() -> None:
    keep_private()
    observers: Observers | None = None
    with contextlib.suppress(UsageError, OSError):  # The trial meets it again, where it is told to the campaign.
        observers = start_observers(json.loads(Path(sys.argv[1]).read_bytes()))
    from monkeyproof import trial

    trial.main(observers)


if __name__ == "__main__":
    main()
