"""The control port of the embedded target: the requests that the supervisor answers."""

from __future__ import annotations

import os
from dataclasses import asdict

from monkeyproof.errors import TargetError
from monkeyproof.targets.local.control_plane.supervisor import Supervisor
from monkeyproof.targets.port import StartCondition
from monkeyproof.types import Json


class ControlSession:
    """One client's connection. It owns nothing: what it asked for remains when it closes."""

    def __init__(self, supervisor: Supervisor, since_utc: str) -> None:
        self._supervisor = supervisor
        self._since_utc = since_utc

    async def call(self, method: str, params: dict[str, Json]) -> Json:
        match method:
            case "ping":
                return {"pid": os.getpid()}
            case "status":
                return self._status()
            case "describe":
                return self._describe()
        if not isinstance(params, dict):
            raise TargetError(f"{method}: parameters are a mapping")
        return await self._replicas(method, str(params.get("name", "")), params)

    async def closed(self) -> None:
        pass

    async def _replicas(self, method: str, name: str, params: dict[str, Json]) -> Json:
        replicas = self._supervisor.replicas
        match method:
            case "replicas.list":
                return [asdict(replica) for replica in replicas.all()]
            case "replicas.kill":
                return asdict(await replicas.kill(name))
            case "replicas.end":
                condition = StartCondition(float(params["delay_s"]), dict(params["environment"]))
                return asdict(
                    await replicas.end(name, condition, float(params["notice_s"]), _seconds(params.get("lease_s")))
                )
            case "replicas.conditions":
                return {replica: asdict(one) for replica, one in replicas.conditions().items()}
            case "replicas.release":
                return await replicas.release(name)
            case "replicas.renew_starts":
                return replicas.renew_starts([str(one) for one in params.get("names", ())])
            case "replicas.pause":
                await replicas.pause(name, _seconds(params.get("lease_s")))
            case "replicas.renew":
                return replicas.renew([str(one) for one in params.get("names", ())])
            case "replicas.resume":
                await replicas.resume(name)
            case "replicas.restart":
                await replicas.restart(name)
            case "replicas.drain":
                await replicas.drain(name)
            case "replicas.undrain":
                await replicas.undrain(name)
            case "replicas.settle":
                return await replicas.settle()
            case _:
                raise TargetError(f"{method!r}: the control port knows no such method")
        return None

    def _status(self) -> Json:
        return {
            "phase": self._supervisor.phase,
            "since": self._since_utc,
            "waiting_for": list(self._supervisor.waiting_for()),
            "parts": [
                {
                    "name": part.name,
                    "pid": part.pid,
                    "state": part.state,
                    "port": part.port,
                    "starts": part.starts,
                }
                for part in self._supervisor.parts.values()
            ],
            "replicas": [asdict(replica) for replica in self._supervisor.replicas.all()],
        }

    def _describe(self) -> Json:
        prepared = self._supervisor.prepared
        if prepared is None:
            raise TargetError("the target is still starting")
        return {**self._supervisor.layout.addresses(), "champion": prepared.champion}


def _seconds(value: Json) -> float | None:
    return None if value is None else float(value)
