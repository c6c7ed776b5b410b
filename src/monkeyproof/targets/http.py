"""Any HTTP service that a target file describes: its registry if it has one, and links through the fault proxy."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from monkeyproof import paths
from monkeyproof.clock import wait_for
from monkeyproof.config.target_file import Link, TargetFile
from monkeyproof.errors import TargetError, UsageError
from monkeyproof.runtime.process_group import ProcessGroup, last_log_line
from monkeyproof.runtime.rpc import Client, listens
from monkeyproof.targets.links import ProxyLinks
from monkeyproof.targets.port import Artifacts, Leases, Links, Publishing, Registry
from monkeyproof.targets.registry import RegistryClient
from monkeyproof.types import Json

C = TypeVar("C")
PROXY_WITHIN_S = 10.0
LEFT_OVER_AFTER_S = 60.0
SOCKET, LINKS = "proxy.sock", "links.json"
REGISTRY_TIMEOUT_S = 3.0


class HttpTarget:
    """``port.Target`` for a service of which only the target file is known.

    The process that opens it first starts the fault proxy for its links, and ends it on ``close`` (or when it
    dies). Other processes that open the same file meanwhile share that proxy.
    """

    def __init__(self, file: TargetFile) -> None:
        self._registry: RegistryClient | None = None
        self._proxy = SharedProxy(file) if file.links else None
        self._links = ProxyLinks(self._proxy.control) if self._proxy else None
        # A port 0 in the file lets the system choose, and faults need the real one.
        real = self._proxy.addresses() if self._proxy else {}
        links = {name: replace(link, listen=real[name]) for name, link in file.links.items()}
        self._file = replace(file, links=links)
        if file.registry is not None:
            address = file.registry
            self._registry = RegistryClient(
                address.uri, address.model, address.alias, timeout_s=REGISTRY_TIMEOUT_S
            )

    @property
    def file(self) -> TargetFile:
        return self._file

    def find(self, capability: type[C]) -> C | None:
        offered: Mapping[type, object | None] = {
            Registry: self._registry,
            Artifacts: self._registry,
            Publishing: self._registry,
            Links: self._links,
            Leases: self._links,
        }
        found: C | None = offered.get(capability)  # type: ignore[assignment]
        return found

    def close(self) -> None:
        if self._links is not None:
            self._links.close()
        if self._registry is not None:
            self._registry.close()
        if self._proxy is not None:
            self._proxy.close()


class SharedProxy:
    """The fault proxy of one target file: started here, or found running on behalf of another process."""

    def __init__(self, file: TargetFile) -> None:
        digest = hashlib.sha256(str(file.path).encode()).hexdigest()[:16]
        self._note = paths.home() / "proxies" / f"{digest}.json"
        self._note.parent.mkdir(exist_ok=True, mode=0o700)
        self._group: ProcessGroup | None = None
        self._sockets: Path | None = None
        with _locked(self._note.with_suffix(".lock")):
            running = self._running()
            self.control = running if running is not None else self._start(file)

    def addresses(self) -> Mapping[str, str]:
        with Client(self.control) as client:
            found: Mapping[str, str] = client.call("addresses")
        return found

    def close(self) -> None:
        """End the proxy if it was started here. Idempotent."""
        group, self._group = self._group, None
        if group is None:
            return
        group.close()
        self._note.unlink(missing_ok=True)
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)

    def _running(self) -> Path | None:
        """The control socket of the proxy that another process started, if it still answers."""
        try:
            control = Path(json.loads(self._note.read_bytes())["control"])
        except (OSError, ValueError, KeyError):
            return None
        if _answers(control):
            return control
        if control.parent.name.startswith(paths.SOCKET_DIR_PREFIX):  # The process that started it was killed.
            shutil.rmtree(control.parent, ignore_errors=True)
        return None

    def _start(self, file: TargetFile) -> Path:
        remove_left_over(Path(tempfile.gettempdir()))
        self._sockets = paths.socket_dir()
        control, links, log = (self._sockets / name for name in (SOCKET, LINKS, "proxy.log"))
        with paths.open_private(links) as file_of_links:
            file_of_links.write(json.dumps({name: _as_json(link) for name, link in file.links.items()}).encode())
        group = self._group = ProcessGroup()
        try:
            child = group.start(
                [
                    *(sys.executable, "-m", "monkeyproof.faults.proxy.server"),
                    *("--links", str(links), "--control", str(control)),
                ],
                log=log,
            )
            if not wait_for(lambda: child.poll() is not None or _answers(control), within_s=PROXY_WITHIN_S):
                raise UsageError(f"{file.path}: links: the fault proxy did not start within {PROXY_WITHIN_S:g} s")
            if child.poll() is not None:
                raise UsageError(f"{file.path}: links: {last_log_line(log)}")
        except BaseException:
            self.close()
            raise
        with paths.open_private(self._note) as note:
            note.write(json.dumps({"control": str(control)}).encode())
        return control


def remove_left_over(of: Path) -> None:
    """Remove folders of proxies whose starter was killed, whatever home it had: no other process knows of them."""
    for folder in of.glob(f"{paths.SOCKET_DIR_PREFIX}*"):
        with contextlib.suppress(OSError):  # Another user's, or another process removes it.
            found = folder.lstat()
            ours = found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) == 0o700
            ours = ours and (folder / LINKS).exists()
            # One that is only just being started does not listen yet.
            settled = time.time() - found.st_mtime > LEFT_OVER_AFTER_S
            if ours and settled and not listens(folder / SOCKET):
                shutil.rmtree(folder)


def _answers(control: Path) -> bool:
    if not control.exists():
        return False
    try:
        with Client(control, timeout_s=2.0) as client:
            client.call("ping")
    except TargetError:
        return False
    return True


def _as_json(link: Link) -> dict[str, Json]:
    return {"listen": link.listen, "forward": link.forward, "protocol": link.protocol}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with paths.open_private(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # Held for the start of a proxy at most, which is bounded.
        yield
