"""The fault proxy: relays the network paths of a target, and breaks them on request.

    python -m monkeyproof.faults.proxy.server --links links.json --control SOCKET

``links.json`` is ``{name: {listen, forward, protocol}}``, as in a target file. Over the control socket
(monkeyproof.runtime.rpc): ``ping``, ``links``, ``addresses``, ``add {link, kind, parameters, id?}``,
``remove {id}``, ``stats {id}``, ``active``, ``renew {ids}``. A toxic belongs to the connection that added it and
ends with it, so no process has to clean up after an owner that was killed. A toxic with a lease
(``add {..., lease_s}``) also ends when its owner has not renewed it for so long, for instance because it hangs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import uvloop
from pydantic import TypeAdapter, ValidationError

from monkeyproof.config import target_file
from monkeyproof.errors import MonkeyproofError, UsageError
from monkeyproof.faults.proxy.http.relay import HttpRelay
from monkeyproof.faults.proxy.link import ProxyLink
from monkeyproof.faults.proxy.relay import Relay, RelayLink
from monkeyproof.faults.proxy.resp.relay import RespRelay
from monkeyproof.faults.proxy.tcp import TcpRelay
from monkeyproof.faults.proxy.timers import Timers
from monkeyproof.faults.proxy.toxic import ActiveToxic
from monkeyproof.faults.proxy.toxic_registry import kinds, parse
from monkeyproof.runtime import rpc
from monkeyproof.types import Json

MAX_TOXICS = 1000
RELAYS: Mapping[str, Callable[[RelayLink], Relay]] = {"http": HttpRelay, "tcp": TcpRelay, "redis": RespRelay}
LEASE_MIN_S, LEASE_MAX_S = 0.1, 600.0


class Proxy:
    """All links, and the toxics on them by id."""

    def __init__(self, links: Mapping[str, target_file.Link], loop: asyncio.AbstractEventLoop) -> None:
        self.links: dict[str, ProxyLink] = {}
        self.toxics: dict[str, ActiveToxic] = {}
        self.ran_out: dict[str, str] = {}
        """Toxics whose lease was not renewed, the latest ``MAX_TOXICS``: id and what became of it."""
        self._loop = loop
        self._ids = itertools.count(1)
        self._timers = Timers(loop)
        try:
            for name, one in links.items():
                relay = RELAYS[one.protocol]
                self.links[name] = ProxyLink(
                    name, _address(one.listen), _address(one.forward), one.protocol, relay, loop, self._timers
                )
        except UsageError:
            self.close()
            raise

    def add(
        self,
        link: str,
        kind: str,
        parameters: Mapping[str, Json],
        toxic_id: str = "",
        lease_s: float | None = None,
    ) -> ActiveToxic:
        """Put a toxic on a link, until it is removed or, with a lease, not renewed for ``lease_s``.

        Raises:
            UsageError: no such link or kind, wrong parameters, an id that is taken, or too many.
        """
        if link not in self.links:
            raise UsageError(f"{link!r}: no such link; there are {', '.join(sorted(self.links))}")
        checked = parse(kind, parameters, self.links[link].protocol)
        if lease_s is not None and not LEASE_MIN_S <= lease_s <= LEASE_MAX_S:
            raise UsageError(f"lease_s: {lease_s} is not between {LEASE_MIN_S:g} and {LEASE_MAX_S:g}")
        toxic_id = toxic_id or next(one for n in self._ids if (one := f"toxic-{n}") not in self.toxics)
        if toxic_id in self.toxics:
            raise UsageError(f"toxic {toxic_id!r} is in force already; choose another id, or remove it first")
        if len(self.toxics) >= MAX_TOXICS:
            raise UsageError(f"there are {MAX_TOXICS} toxics already; remove some first")
        active = ActiveToxic(toxic_id, link, checked, lease_s=lease_s)
        self.toxics[toxic_id] = active
        self.links[link].add(active)
        if lease_s is not None:
            self._renewed(active)
            self._loop.call_later(lease_s, self._check_lease, active)
        return active

    def renew(self, ids: Iterable[str]) -> dict[str, str]:
        """Renew leases; returns which toxics are no longer in force, and why."""
        lost = {}
        for toxic_id in ids:
            if toxic_id in self.toxics:
                self._renewed(self.toxics[toxic_id])
            else:
                lost[toxic_id] = self.ran_out.get(toxic_id, "it is not in force (any more)")
        return lost

    def _renewed(self, active: ActiveToxic) -> None:
        if active.lease_s is not None:
            active.due_s = time.monotonic() + active.lease_s

    def _check_lease(self, active: ActiveToxic) -> None:
        if self.toxics.get(active.id) is not active:
            return
        remaining_s = active.due_s - time.monotonic()
        if remaining_s > 0:
            self._loop.call_later(remaining_s, self._check_lease, active)
            return
        self.remove(active.id)
        while len(self.ran_out) >= MAX_TOXICS:
            del self.ran_out[next(iter(self.ran_out))]
        self.ran_out[active.id] = (
            f"{active.kind} on {active.link} was not renewed for {active.lease_s:g} s, so the proxy dropped it"
        )

    def remove(self, toxic_id: str) -> bool:
        active = self.toxics.pop(toxic_id, None)
        if active is None:
            return False
        self.links[active.link].remove(active)
        return True

    def close(self) -> None:
        for link in self.links.values():
            link.close()
        self._timers.close()


class ControlConnection:
    """One control connection: what it adds is its own."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._owned: set[ActiveToxic] = set()

    async def call(self, method: str, params: dict[str, Json]) -> Json:
        proxy = self._proxy
        match method:
            case "ping":
                return {"pid": os.getpid()}
            case "links":
                return list(proxy.links)
            case "addresses":
                return {name: "{}:{}".format(*link.address) for name, link in proxy.links.items()}
            case "active":
                return list(proxy.toxics)
            case "add":
                wanted: dict[str, type] = {"link": str, "kind": str, "parameters": dict}
                _known(method, params, wanted, {"id": str, "lease_s": float})
                more = params.get("id", ""), params.get("lease_s")
                found = proxy.add(params["link"], params["kind"], params["parameters"], *more)
                self._owned.add(found)
                return {"id": found.id}
            case "remove":
                _known(method, params, {"id": str})
                return {"removed": proxy.remove(params["id"])}
            case "renew":
                _known(method, params, {"ids": list})
                return {"lost": proxy.renew(map(str, params["ids"]))}
            case "stats":
                _known(method, params, {"id": str})
                if params["id"] not in proxy.toxics:
                    why = proxy.ran_out.get(params["id"])
                    raise UsageError(why or f"toxic {params['id']!r} is not in force (any more)")
                return proxy.toxics[params["id"]].stats()
        raise UsageError(
            f"{method!r}: no such method; there are ping, links, addresses, active, add, remove, renew, stats"
        )

    async def closed(self) -> None:
        for active in self._owned:
            # By identity: another client may have removed ours, and given its id to a toxic of its own.
            if self._proxy.toxics.get(active.id) is active:
                self._proxy.remove(active.id)
        self._owned.clear()


def _known(
    method: str, params: dict[str, Json], needed: dict[str, type], optional: dict[str, type] | None = None
) -> None:
    """Check the names and types of a call's parameters."""
    allowed = {**needed, **(optional or {})}
    for name in params:
        if name not in allowed:
            raise UsageError(f"{method}: unknown parameter {name!r}; it takes {', '.join(allowed)}")
    for name, wanted in allowed.items():
        if name in needed and name not in params:
            raise UsageError(f"{method}: parameter {name!r} is missing")
        if name in params and not isinstance(params[name], wanted):
            raise UsageError(f"{method}: {name} must be a {wanted.__name__}, not {params[name]!r}")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def read_links(path: Path) -> Mapping[str, target_file.Link]:
    """Read ``links.json``.

    Raises:
        UsageError: it is missing or wrong.
    """
    try:
        return TypeAdapter(dict[str, target_file.Link]).validate_python(json.loads(path.read_bytes()))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        raise UsageError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
    except ValueError as error:
        raise UsageError(f"{path}: not JSON: {error}") from None


async def serve(links: Mapping[str, target_file.Link], control: Path) -> None:
    """Run until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    proxy = Proxy(links, loop)
    try:
        with contextlib.suppress(FileNotFoundError):
            control.unlink()
        server = await rpc.serve(control, lambda: ControlConnection(proxy))
    except OSError as error:
        proxy.close()
        raise UsageError(f"{control}: cannot listen there: {error.strerror or error}") from None
    kinds()  # Imported now, and not while traffic waits for the first of them.
    # What exists now stays: the collector need not examine it again while requests wait.
    gc.collect()
    gc.freeze()
    await stopping.wait()
    server.close()
    proxy.close()
    with contextlib.suppress(FileNotFoundError):
        control.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="monkeyproof.faults.proxy.server",
        description="Relays the links of a target, and breaks them on request.",
    )
    parser.add_argument("--links", type=Path, required=True)
    parser.add_argument("--control", type=Path, required=True)
    arguments = parser.parse_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536) if hard > 0 else 65536, hard))
    try:
        uvloop.run(serve(read_links(arguments.links), arguments.control))
    except MonkeyproofError as error:
        print(f"fault proxy: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
