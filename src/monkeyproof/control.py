"""The Chaos Toolkit control that makes any run of an experiment a trial.

Every experiment of the catalogue names it. Under ``monkeyproof run`` a trial is open already and the control does
nothing. Under plain ``chaos run`` it adds the steps of a trial that the experiment's extension asks for (see
``monkeyproof.experiment.trial_steps``), opens a trial against the running target, in ``runs/`` of the current
folder, and closes it on every way out: it reverts the faults, ends the sidecars and logs the outcome.

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
from monkeyproof.runtime.process_group import exit_now
from monkeyproof.runtime.stop_file import SIGNALS
from monkeyproof.types import Json

if TYPE_CHECKING:
    from chaoslib.run import EventHandlerRegistry

    from monkeyproof.trial.plan import TrialPlan
    from monkeyproof.trial.session import TrialSession

logger = logging.getLogger("chaostoolkit")
_session: TrialSession | None = None
_external = False
"""Whether the experiment's faults are external."""
_failure: MonkeyproofError | None = None
"""Why nothing of the experiment may run."""
_lock = contextlib.ExitStack()
_signals: list[int] = []
"""The signals that asked this run to end."""


def configure_control(experiment: dict[str, Json], event_registry: EventHandlerRegistry) -> None:
    """Expand the experiment, and follow it if its faults are external.

    Chaos Toolkit calls this before it uses any part of the experiment, and swallows exceptions: what is wrong
    is raised in ``before_experiment_control``.
    """
    global _external, _failure
    if has_current():
        return
    _external, _failure = False, None
    register_experiment_secrets(experiment)
    try:
        _prepare(experiment, event_registry)
    except MonkeyproofError as error:
        _failure = error


def _prepare(experiment: dict[str, Json], event_registry: EventHandlerRegistry) -> None:
    global _external, _failure
    from monkeyproof.config.target_file import load_plugins_of
    from monkeyproof.experiment import catalogue
    from monkeyproof.experiment.activity_roles import external_activities, roles_of
    from monkeyproof.faults.actions.external import set_limits
    from monkeyproof.trial.external import ExternalFault

    # Only with the plugins loaded is a plugin's fault no external activity.
    target = os.environ.get("MONKEYPROOF_TARGET")
    load_plugins_of(Path(target) if target else None)
    experiment.update(catalogue.expand_loaded(experiment).document)
    for _, *words in external_activities(experiment):
        raise Refusal(words[0], words[1])
    roles = roles_of(experiment, catalogue.extension_of(experiment).named)
    if roles is not None:
        _external = True
        if roles.why_not_undoable[0]:
            _failure = Refusal(*roles.why_not_undoable)
        set_limits(experiment, roles)
        event_registry.register(ExternalFault(experiment, roles, source_of(experiment, sys.argv[1:])))


def before_experiment_control(context: dict[str, Json], **_: object) -> None:
    """Open a trial, unless one is open. A failure ends the run before it touches the target."""
    global _session
    if has_current():
        return
    from monkeyproof.probes.watch import longest_hold_s
    from monkeyproof.safety.replay import clear_to_inject, sole_campaign_on
    from monkeyproof.trial.session import TrialSession

    try:
        if _failure is not None:
            raise _failure
        _lock.enter_context(clear_to_inject())
        plan = _plan(context)
        _lock.enter_context(
            sole_campaign_on(Path(plan.target) if plan.target else paths.target_dir() / "target.yaml")
        )
        _lock.enter_context(_end_on_signals())
        _session = TrialSession(plan)
        _session.start(longest_hold_s(context))
        if _external:
            from monkeyproof.trial.external import baseline

            if not baseline(context):
                raise UsageError("the service is not steady, so nothing was injected")
    except MonkeyproofError as error:
        with _lock:
            if _session is not None:
                trial, _session = _session, None
                _close(trial)
        # Chaos Toolkit lets no other exception out of a control.
        raise InterruptExecution(str(error)) from None


def after_hypothesis_control(context: dict[str, Json], state: dict[str, Json], **_: object) -> None:  # noqa: ARG001
    """Record why there is no baseline, where a probe of the hypothesis did not hold."""
    from monkeyproof.probes.steady_state import record_unmet

    record_unmet(state)


def after_experiment_control(context: dict[str, Json], state: dict[str, Json], **_: object) -> None:
    """Put the experiment that really ran into the journal, which has the file as Chaos Toolkit read it."""
    state["experiment"] = context


def cleanup_control() -> None:
    """Close the trial that this control opened. Chaos Toolkit calls this on every way out of a run."""
    global _session
    if _session is None:
        return
    trial, _session = _session, None
    with _lock, _signals_ignored():
        if _signals:
            trial.abort("a signal ended it")
            _exit_with(EXIT_REFUSED)
        _close(trial)
    if trial.aborted:
        logger.critical("The trial was aborted: %s", trial.aborted)
    from monkeyproof.campaign.results import result_of

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
    """End the process with this code, where ``chaos run`` would end with 0. The last call counts."""
    if "chaostoolkit.cli" in sys.modules:
        atexit.register(exit_now, code)


@contextlib.contextmanager
def _end_on_signals() -> Iterator[None]:
    """End the run at the first signal, as Chaos Toolkit does, which does not handle SIGHUP; ignore later signals,
    which would end its rollbacks.
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
    """Ignore signals while the trial reverts its faults."""
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
    """Path and digest of the file that Chaos Toolkit has read.

    A control does not receive its path, so this compares the files that the command line names. Both are empty if
    none of them has the same content.
    """
    for path in (Path(word).resolve() for word in words if word.endswith((".yaml", ".yml", ".json"))):
        with contextlib.suppress(UsageError):
            text = read_text(path)
            if _without_timeouts(load_yaml(text, str(path))[1]) == _without_timeouts(document):
                return str(path), hashlib.sha256(text.encode()).hexdigest()
    return "", ""


def _without_timeouts(value: Json) -> Json:
    """Without the timeouts and the empty keys that Chaos Toolkit adds to the experiment that it has read."""
    if isinstance(value, dict):
        kept = {key: child for key, child in value.items() if key != "timeout" and child is not None}
        return {key: _without_timeouts(child) for key, child in kept.items()}
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
