"""A replica follows the champion alias of the registry, in a thread of its own."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monkeyproof.errors import TargetError
from monkeyproof.targets.local.models.data import N_FEATURES
from monkeyproof.targets.local.models.training import Predictor, predict
from monkeyproof.targets.local.workload.isolated_load import load_verified
from monkeyproof.targets.registry import RegistryClient

STOP_LIMIT_S = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that was verified, loaded and asked for one prediction."""

    version: str
    model: Predictor


class ModelFollower:
    """Polls the alias; replaces ``current`` in one step once another version is verified, loaded and asked."""

    def __init__(
        self,
        registry: RegistryClient,
        folder: Path,
        *,
        poll_s: float,
        on_error: Callable[[], None] = lambda: None,
        pin: Callable[[], str] = lambda: "",
    ) -> None:
        """``pin`` names the version that is served whatever the alias says; "" follows the alias."""
        self.current: LoadedModel | None = None
        self.pinned = ""
        """The version to which it was pinned at the last poll; "" is none."""
        self.polled_once = threading.Event()
        """Set when the first poll has ended, with a model or without."""
        self._registry = registry
        self._folder = folder
        self._poll_s = poll_s
        self._on_error = on_error
        self._pin = pin
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="model-follower", daemon=True)

    def start(self) -> None:
        """Begin to poll, in a thread of its own."""
        shutil.rmtree(self._folder, ignore_errors=True)  # What an earlier replica of this name left.
        self._thread.start()

    def stop(self) -> None:
        """End the thread, or leave it to die with the process if it hangs in a request."""
        self._stop.set()
        self._thread.join(STOP_LIMIT_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    def poll(self) -> None:
        """Poll once; on any failure the old model stays."""
        try:
            self.pinned = self._pin()
            version = self.pinned or self._registry.champion()
            if self.current is None or version != self.current.version:
                self.current = self._load(version)
        except Exception as error:  # A broken pickle may raise anything, and the thread must go on.
            self._on_error()
            log.warning("the champion cannot be followed: %s", str(error) or repr(error))

    def _load(self, version: str) -> LoadedModel:
        sha256 = self._registry.version(version).sha256
        if not sha256:
            raise TargetError(f"version {version} has no sha256 tag: it cannot be verified")
        path = self._registry.download(version, self._folder / version)
        content = path.read_bytes()
        shutil.rmtree(path.parent, ignore_errors=True)
        loaded = LoadedModel(version, load_verified(content, sha256))  # type: ignore[arg-type]
        # Here and not in the first user's request: it costs time, and finds a wrong shape.
        predict(loaded.model, np.zeros((1, N_FEATURES)))
        return loaded

    def _follow(self) -> None:
        while not self._stop.is_set():
            self.poll()
            self.polled_once.set()
            self._stop.wait(self._poll_s)
