"""What torture.py breaks: a small experiment for each fault, and what strangers' faults are done to."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

HOLD_S = 2.5
"""Short, so that kills drawn at random also meet what comes after: the revert, the putting back, the end."""
FAULTS_OF: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "network": {
        "add_latency": {"link": "gateway->replica-2", "low_ms": 500.0, "high_ms": 2000.0},
        "fail_requests": {"link": "healer->registry", "probability": 0.5, "status": 503},
        "block": {"link": "gateway->replica-3"},
        "hang": {"link": "gateway->replica-1"},
    },
    "features": {
        "outage": {"link": "replica->features"},
        "slow": {"link": "replica->features"},
        "wrong_entity": {"link": "replica->features"},
        "partial_answers": {"link": "replica->features"},
        "schema_mismatch": {"link": "replica->features"},
    },
    "data": {"scale_records": {"link": "source->pipeline", "share": 0.1, "low": -10.0, "high": 10.0}},
    "registry": {
        "promote_degraded": {},
        # At once and for as long as it is held: so a healer's rollback, and what it displaces, is among it.
        "flip_back": {"times": 0, "after_ms": 50.0},
        "publish_copy": {},
        "delete_previous": {},
        "pin": {},
        "corrupt_last_good": {},
    },
    "replicas": {
        "pause": {},
        "kill": {},
        # None of them may come to its own end before it is looked whether an undo or a lease ended it.
        "delay_start": {"delay_s": 60.0},
        "preempt": {"notice_s": 1.0, "replaced_after_s": 60.0},
        "scale_to_zero": {"delay_s": 60.0},
    },
    "models": {
        "flip_bits": {"bits": 500},
        "truncate": {},
        "remove": {},
        "promote_damaged_copy": {},
        "deploy_wrong_version": {},
        "deploy_wrong_schema": {"schema": "fewer_columns"},
    },
    "drift": {"covariate_shift": {"columns": "0", "shifts": "30"}},
    "resources": {
        "steal_cpu": {"workers": 2},
        "exhaust_handles": {},
        "exhaust_memory": {},
        "fill_disk": {},
        "skew_clock": {},
    },
    "load": {
        "overload": {"rate_per_s": 40.0},
        "hot_key": {"rate_per_s": 30.0},
        "retry_storm": {"rate_per_s": 20.0},
    },
    "foreign": {"http": {}, "process": {}},
}
BEFORE: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "retry_storm": ("network", "fail_requests", {"link": "client->gateway", "probability": 0.3})
}
"""What has to be broken first, for some: where nothing fails, nothing is asked again."""
LEASED = ("network", "features", "data", "drift", "resources", "load")
"""Families whose faults end by themselves when the worker is stopped; so do those of replicas but a kill."""


def is_leased(family: str, fault: str) -> bool:
    return family in LEASED or (family == "replicas" and fault != "kill")


@dataclass
class Strangers:
    """A service and a file that know nothing of the harness: what faults that are not its own are done to."""

    folder: Path
    mode: str = "right"
    _server: http.server.ThreadingHTTPServer = field(init=False)

    def __post_init__(self) -> None:
        strangers = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                strangers.mode = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["mode"]
                self.do_GET()

            def do_GET(self) -> None:
                body = strangers.mode.encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def file(self) -> Path:
        return self.folder / "broken"

    def faults(self) -> list[str]:
        left = [] if self.mode == "right" else ["the service is in the wrong mode"]
        return [*left, f"{self.file} is there"] if self.file.exists() else left

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _say(self, name: str, mode: str) -> dict[str, Any]:
        provider = {
            "type": "http",
            "url": f"http://127.0.0.1:{self._server.server_port}/",
            "method": "POST",
            "headers": {"Content-Type": "application/json"},
            "arguments": {"mode": mode},
        }
        return {"type": "action", "name": name, "provider": provider}

    def by_http(self) -> dict[str, Any]:
        """A request sets the wrong mode; another one undoes it."""
        look = {"type": "http", "url": f"http://127.0.0.1:{self._server.server_port}/"}
        tolerance = {"type": "regex", "target": "body", "pattern": "wrong"}
        return {
            "method": [
                self._say("break", "wrong"),
                {"type": "probe", "name": "is-broken", "tolerance": tolerance, "provider": look},
            ],
            "rollbacks": [self._say("mend", "right")],
        }

    def by_process(self) -> dict[str, Any]:
        """A process in the background breaks again what is mended, so its undo has to come after its end."""
        again = f"while :; do : >'{self.file}'; sleep 0.1; done"
        return {
            "method": [
                {"type": "action", "name": "break", "background": True, "provider": _process("sh", "-c", again)},
                {"type": "probe", "name": "is-broken", "provider": _process("test", "-e", str(self.file))},
            ],
            "rollbacks": [{"type": "action", "name": "mend", "provider": _process("rm", "-f", str(self.file))}],
        }


def write_experiment(folder: Path, family: str, fault: str, strangers: Strangers) -> Path:
    """The experiment of one fault."""
    if family == "foreign":
        steps = strangers.by_http() if fault == "http" else strangers.by_process()
        roles = {"name": "monkeyproof", "inject": "break", "evidence": "is-broken", "undo": "mend"}
        document = {**steps, "extensions": [roles]}
    else:
        held = {"at_most_s": HOLD_S, "at_least_s": HOLD_S}
        document = {
            "controls": [{"name": "monkeyproof", "provider": _python("control")}],
            "steady-state-hypothesis": {
                "title": "Answers are there, fast and right",
                "probes": [
                    {
                        "type": "probe",
                        "name": "slo-holds",
                        "tolerance": True,
                        "provider": _python("probes.steady_state", "slo_holds"),
                    }
                ],
            },
            "method": [
                *([_break("break-first", *BEFORE[fault])] if fault in BEFORE else []),
                _break("break", family, fault, FAULTS_OF[family][fault]),
                {
                    "type": "probe",
                    "name": "hold",
                    "provider": _python("probes.watch", "hold_until_recovered", held),
                },
            ],
            "rollbacks": [{"type": "action", "name": "revert", "provider": _python("injection", "revert")}],
        }
    path = folder / f"{family}-{fault.replace('_', '-')}.yaml"
    words = {"title": f"Torture: {family}.{fault}", "description": "It is never meant to come to its end."}
    path.write_text(yaml.safe_dump(words | document, sort_keys=False))
    return path


def write_target(path: Path, embedded: Path) -> None:
    """The embedded target, with windows so short that they cost no time: nothing is measured here."""
    document = yaml.safe_load(embedded.read_text())
    document |= {
        "slo": {"latency_ms": 1000, "objective": 0.5, "stable_for_s": 0.5},
        "windows": {"baseline_s": 0.5, "horizon_s": HOLD_S, "after_revert_s": 0.5},
        "prober": {"rate_per_s": 200},
    }
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def _break(name: str, family: str, fault: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "action", "name": name, "provider": _python(f"faults.{family}", fault, arguments)}


def _python(module: str, func: str = "", arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "python", "module": f"monkeyproof.{module}"}
    return found | ({"func": func} if func else {}) | ({"arguments": dict(arguments)} if arguments else {})


def _process(path: str, *arguments: str) -> dict[str, Any]:
    words: Sequence[str] = arguments
    return {"type": "process", "path": path, "arguments": list(words)}
