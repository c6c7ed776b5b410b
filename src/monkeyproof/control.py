"""The Chaos Toolkit control that makes any run of an experiment a trial.

Named in every experiment of the catalogue. Under ``monkeyproof run`` a trial is open already and this does
nothing; under plain ``chaos run`` it opens one against the running target, in ``runs/`` of the current
folder, and closes it whatever happens: faults reverted, observers ended, the outcome logged.

Environment: MONKEYPROOF_TARGET (a target file; default: the embedded target), MONKEYPROOF_SEED (default 1),
MONKEYPROOF_HEALER (none or elephant; default none).
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from chaoslib.exceptions import InterruptExecution

from monkeyproof import paths
from monkeyproof.config.redaction import register_experiment_secrets
from monkeyproof.config.user_files import load_yaml, read_text
from monkeyproof.errors import EXIT_REFUSED, MonkeyproofError, Refusal, UsageError
from monkeyproof.injection.inject import has_current
from monkeyproof.runtime.process_group import leave
from monkeyproof.runtime.stop_file import SIGNALS
from monkeyproof.types import Json

if TYPE_CHECKING:
    from chaoslib.run import EventHandlerRegistry

    from monkeyproof.trial.plan import TrialPlan
    from monkeyproof.trial.session import TrialSession

logger = logging.getLogger("chaostoolkit")
_open: TrialSession | None = None
_foreign = False
_refused = ("", "")
"""Why nothing of the experiment may be run, and what to do."""
_unusable: MonkeyproofError | None = None
"""What is wrong with the target file or with a plugin that it names."""
_lock = contextlib.ExitStack()
_signals: list[int] = []
"""Those that told this run to end."""


def configure_control(experiment: dict[str, Json], event_registry: EventHandlerRegistry) -> None:
    """Follow an experiment whose faults are not ours; Chaos Toolkit calls this before anything else."""
    global _foreign, _refused, _unusable
    if has_current():
        return
    register_experiment_secrets(experiment)
    _unusable = None
    from monkeyproof.config.target_file import load_plugins_of

    target = os.environ.get("MONKEYPROOF_TARGET")
    try:  # Whether a fault is a plugin's has to be known.
        load_plugins_of(Path(target) if target else None)
    except MonkeyproofError as error:  # Nothing can be said here: before_experiment_control ends the run.
        _unusable = error
        return
    from monkeyproof.experiment import catalogue
    from monkeyproof.experiment.activity_roles import roles_of, strangers
    from monkeyproof.faults.actions.external import set_limits
    from monkeyproof.trial.external import ExternalFault

    for _, *words in strangers(experiment):
        _refused = (words[0], words[1])
        return
    roles = roles_of(experiment, catalogue.extension_of(experiment).named)
    if roles is not None:
        _foreign, _refused = True, roles.why_no_way_back
        set_limits(experiment, roles)
        event_registry.register(ExternalFault(experiment, roles, source_of(experiment, sys.argv[1:])))


def before_experiment_control(context: dict[str, Json], **_: object) -> None:
    """Open a trial, unless one is open. A failure ends the run before anything is touched."""
    global _open
    if has_current():
        return
    from monkeyproof.probes.watch import longest_hold_s
    from monkeyproof.safety.replay import clear_to_inject, sole_campaign_on
    from monkeyproof.trial.session import TrialSession

    try:
        if _unusable is not None:
            raise _unusable
        if _refused[0]:
            raise Refusal(*_refused)
        _lock.enter_context(clear_to_inject())
        plan = _plan(context)
        _lock.enter_context(
            sole_campaign_on(Path(plan.target) if plan.target else paths.target_dir() / "target.yaml")
        )
        _lock.enter_context(_end_on_signals())
        _open = TrialSession(plan)
        _open.start(longest_hold_s(context))
        if _foreign:
            from monkeyproof.trial.external import baseline

            if not baseline(context):
                raise UsageError("the service is not steady, so nothing was injected")
    except MonkeyproofError as error:
        with _lock:
            if _open is not None:
                trial, _open = _open, None
                _close(trial)
        # The only exception that Chaos Toolkit lets out of a control.
        raise InterruptExecution(str(error)) from None


def cleanup_control() -> None:
    """Close the trial that was opened here. Chaos Toolkit calls this on every way out of a run."""
    global _open
    if _open is None:
        return
    trial, _open = _open, None
    with _lock, _signals_ignored():
        if _signals:
            trial.abort("a signal ended it")
            _exit_with(EXIT_REFUSED)
        _close(trial)
    if trial.aborted:
        logger.critical("The trial was aborted: %s", trial.aborted)
    from monkeyproof.campaign.runner import result_of

    recovery = result_of(trial.folder, trial.folder.parent).recovery
    logger.info("Outcome: %s. %s", recovery.outcome, recovery.reason)
    logger.info("History: %s ('monkeyproof report %s' draws it)", trial.folder, trial.folder)


def _close(trial: TrialSession) -> None:
    try:
        trial.close()
    except MonkeyproofError as error:
        logger.critical("%s", error)
        _exit_with(error.exit_code)


def _exit_with(code: int) -> None:
    """``chaos run`` would end with 0, whatever a control says. The last call counts."""
    if "chaostoolkit.cli" in sys.modules:
        atexit.register(leave, code)


@contextlib.contextmanager
def _end_on_signals() -> Iterator[None]:
    """The first signal ends the run as Chaos Toolkit does on its own; it knows no SIGHUP, and a second one would
    end its rollbacks.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.getsignal(number) for number in SIGNALS}

    def end(number: int, frame: FrameType | None) -> None:
        for other in SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        _signals.append(number)
        known = signal.SIGTERM if number == signal.SIGHUP else signal.Signals(number)
        handler = old[known]
        if callable(handler):
            handler(known, frame)

    for number in SIGNALS:
        signal.signal(number, end)
    try:
        yield
    finally:
        _signals.clear()
        for number, handler in old.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """Nothing may cut the undoing short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def source_of(document: dict[str, Json], words: Sequence[str]) -> tuple[str, str]:
    """Path and digest of the file that Chaos Toolkit has read: not said which, so one that says the same."""
    for path in (Path(word).resolve() for word in words if word.endswith((".yaml", ".yml", ".json"))):
        with contextlib.suppress(UsageError):
            text = read_text(path)
            if _without_timeouts(load_yaml(text, str(path))[1]) == _without_timeouts(document):
                return str(path), hashlib.sha256(text.encode()).hexdigest()
    return "", ""


def _without_timeouts(value: Json) -> Json:
    """Chaos Toolkit writes those that it assumes into what it has read, and keys that say nothing."""
    if isinstance(value, dict):
        said = {key: child for key, child in value.items() if key != "timeout" and child is not None}
        return {key: _without_timeouts(child) for key, child in said.items()}
    return [_without_timeouts(child) for child in value] if isinstance(value, list) else value


def _plan(document: dict[str, Json]) -> TrialPlan:
    from monkeyproof.experiment import catalogue
    from monkeyproof.trial.plan import TrialPlan

    arm = os.environ.get("MONKEYPROOF_HEALER", "none")
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    extension = catalogue.extension_of(document)
    return TrialPlan(
        experiment=catalogue.name_of(document),
        title=str(document["title"]),
        experiment_sha256=hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest(),
        seed=_seed(os.environ.get("MONKEYPROOF_SEED", "1")),
        arm=arm,
        index=0,
        target=os.environ.get("MONKEYPROOF_TARGET", ""),
        folder=str(Path("runs") / f"chaos-{stamp}-{os.getpid()}"),
        expected=tuple(extension.expect.get(arm, ())),
        sham=extension.sham,
        benign=extension.benign,
        **extension.named.given(),
    )


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"MONKEYPROOF_SEED: not a whole number: {text!r}") from None
