"""MLflow's model registry over its documented REST API.

Not through MLflow's own client: importing that costs 1.5 s in every process that only asks which version is
champion, and its defaults hang for 246 s on a dead server. Here every attempt ends within ``timeout_s`` (a
download within its own limit), and only requests that may safely be repeated are: a repeated "create version"
once made three versions of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote, urlsplit

import httpx

from monkeyproof.clock import Clock, SystemClock
from monkeyproof.errors import NotThere, TargetError
from monkeyproof.targets.port import ModelVersion
from monkeyproof.types import Json

MODEL_FILE = "model.pkl"
MAX_ARTIFACT_BYTES = 256 * 1024 * 1024
MAX_ANSWER_BYTES = 16 * 1024 * 1024
DOWNLOAD_LIMIT_S = 30.0
MAX_DIGESTED_BYTES = 8 * 1024 * 1024
DIGEST_LIMIT_S = 5.0
FIRST_BACKOFF_S = 0.2
PAGE_SIZE = 200
MAX_PAGES = 100
PUBLISHED = "monkeyproof-"
"""With what the names of runs begin that ``publish`` made."""
EXPERIMENT = "0"
"""MLflow's own, which every server has."""
_API = "/api/2.0/mlflow"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"

T = TypeVar("T")


class _Transient(TargetError):
    """A failure that the next attempt may not meet."""


class RegistryClient:
    """A registered model, one alias of it, and its versions. Safe to use from several threads.

    Every failure is a TargetError that names the address and what happened.
    """

    def __init__(
        self,
        uri: str,
        model: str,
        alias: str = "champion",
        *,
        timeout_s: float = 2.0,
        retries: int = 2,
        clock: Clock | None = None,
    ) -> None:
        self._uri = uri.rstrip("/")
        self._model = model
        self._alias = alias
        self._retries = retries
        self._timeout_s = timeout_s
        self._clock = clock or SystemClock()
        # No proxy settings from the environment: they would lead loopback traffic astray.
        self._http = httpx.Client(timeout=timeout_s, trust_env=False)

    def champion(self) -> str:
        """The version that the alias points to."""
        query = {"name": self._model, "alias": self._alias}
        path = f"{_API}/registered-models/alias"
        return self._model_version(path, self._ask(path, query).get("model_version")).version

    def set_champion(self, version: str) -> None:
        """Point the alias to ``version``. Doing it twice changes nothing more: it is retried."""
        body = {"name": self._model, "alias": self._alias, "version": version}
        path = f"{_API}/registered-models/alias"
        self._retrying(lambda: self._exchange("POST", path, self._timeout_s, MAX_ANSWER_BYTES, body=body))

    def version(self, version: str) -> ModelVersion:
        """One version with its tags."""
        path = f"{_API}/model-versions/get"
        answer = self._ask(path, {"name": self._model, "version": version})
        return self._model_version(path, answer.get("model_version"))

    def versions(self) -> Sequence[ModelVersion]:
        """All versions, newest first."""
        path = f"{_API}/model-versions/search"
        query = {"filter": f"name='{self._model}'", "max_results": str(PAGE_SIZE)}
        found: list[ModelVersion] = []
        for _ in range(MAX_PAGES):
            answer = self._ask(path, query)
            found += [self._model_version(path, one) for one in answer.get("model_versions") or ()]
            token = answer.get("next_page_token")
            if not token:
                break
            query["page_token"] = str(token)
        return sorted(found, key=lambda one: int(one.version), reverse=True)

    def download(self, version: str, to: Path) -> Path:
        """Fetch the version's model file into the folder ``to``, whole or not at all; returns its path.

        What arrives is what the registry gave, which checks nothing: compare it with the version's sha256.
        """
        address = self._address_of(version)
        to.mkdir(parents=True, exist_ok=True)
        return self._retrying(lambda: self._fetch(address, to / MODEL_FILE))

    def digests(self, version: str) -> Mapping[str, str]:
        """``port.Artifacts``: of the version's model file, as the registry gives it at this moment."""
        try:
            address = self._address_of(version)
            digest = hashlib.sha256()
            self._exchange("GET", address, DIGEST_LIMIT_S, MAX_DIGESTED_BYTES, sink=digest.update)
        except _Transient:
            raise
        except TargetError:
            return {}
        return {f"{MODEL_FILE} of version {version}": digest.hexdigest()}

    def artifact_path(self, version: str) -> str:
        """Where the version's model file lies, relative to the root of the artifacts that the server serves."""
        return unquote(self._address_of(version).removeprefix(f"{_ARTIFACTS}/"))

    def publish(self, model: Path, mark: str, tags: Mapping[str, str]) -> str:
        """``port.Publishing``: as the model of a run of its own, whose name bears the mark."""
        name = f"{PUBLISHED}{mark}"
        # Neither this nor the last step is retried: an answer that was lost would make two of one.
        begun = {
            "experiment_id": EXPERIMENT,
            "run_name": name,
            "start_time": int(1000 * self._clock.utc().timestamp()),
        }
        run = self._post("runs/create", begun).get("run", {}).get("info", {})
        source = f"{run.get('artifact_uri', '')}/{name}"
        self._artifact("PUT", f"{self._served_at(source)}/{MODEL_FILE}", model.read_bytes())
        version = {
            "name": self._model,
            "source": source,
            "run_id": run.get("run_id", ""),
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        answer = self._post("model-versions/create", version)
        return self._model_version("model-versions/create", answer.get("model_version")).version

    def published(self, mark: str) -> Sequence[str]:
        """``port.Publishing``."""
        return [one.version for one in self.versions() if one.artifact.endswith(f"/{PUBLISHED}{mark}")]

    def withdraw(self, mark: str) -> None:
        """``port.Publishing``: versions, the run, and its files."""
        for version in self.published(mark):
            try:
                self.delete(version)
            except TargetError:  # A repeated delete is refused, also where the first one's answer was lost.
                if version in self.published(mark):
                    raise
        wanted = {"experiment_ids": [EXPERIMENT], "filter": f"attributes.run_name = '{PUBLISHED}{mark}'"}
        for run in self._retrying(lambda: self._post("runs/search", wanted)).get("runs") or ():
            self._artifact("DELETE", self._served_at(str(run["info"]["artifact_uri"])))
            # It is not found again once it is deleted.
            self._post("runs/delete", {"run_id": run["info"]["run_id"]})

    def delete(self, version: str) -> None:
        """Delete a version, with every alias that points to it."""
        body = {"name": self._model, "version": version}
        path = f"{_API}/model-versions/delete"
        self._retrying(lambda: self._exchange("DELETE", path, self._timeout_s, MAX_ANSWER_BYTES, body=body))

    def set_tag(self, version: str, name: str, value: str) -> None:
        """``port.Publishing``."""
        body = {"name": self._model, "version": version, "key": name, "value": value}
        path = f"{_API}/model-versions/set-tag"
        self._retrying(lambda: self._exchange("POST", path, self._timeout_s, MAX_ANSWER_BYTES, body=body))

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()

    def _address_of(self, version: str) -> str:
        path = f"{_API}/model-versions/get-download-uri"
        where = str(self._ask(path, {"name": self._model, "version": version}).get("artifact_uri", ""))
        return f"{self._served_at(where)}/{MODEL_FILE}"

    def _served_at(self, where: str) -> str:
        """Path of an address that the registry gave."""
        if not where.startswith("mlflow-artifacts:"):
            raise TargetError(
                f"{self._uri}: an artifact lies at {where or 'no address'}; only artifacts that the server itself "
                "serves (mlflow-artifacts:/...) can be reached"
            )
        return f"{_ARTIFACTS}/{quote(urlsplit(where).path.strip('/'))}"

    def _post(self, path: str, body: Mapping[str, Json]) -> dict[str, Json]:
        return self._exchange("POST", f"{_API}/{path}", self._timeout_s, MAX_ANSWER_BYTES, body=body)

    def _artifact(self, method: str, path: str, content: bytes | None = None) -> None:
        """Change an artifact. Doing it twice changes nothing more; the answer is empty."""

        def attempt() -> dict[str, Json]:
            return self._exchange(
                method, path, DOWNLOAD_LIMIT_S, MAX_ANSWER_BYTES, content=content, sink=lambda _: None
            )

        self._retrying(attempt)

    def _fetch(self, path: str, to: Path) -> Path:
        handle, name = tempfile.mkstemp(prefix=".partial-", dir=to.parent)
        partial = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                self._exchange("GET", path, DOWNLOAD_LIMIT_S, MAX_ARTIFACT_BYTES, sink=file.write)
            return partial.replace(to)
        finally:
            with suppress(FileNotFoundError):
                partial.unlink()

    def _ask(self, path: str, query: dict[str, str]) -> dict[str, Json]:
        return self._retrying(lambda: self._exchange("GET", path, self._timeout_s, MAX_ANSWER_BYTES, query=query))

    def _retrying(self, attempt: Callable[[], T]) -> T:
        for number in range(self._retries):
            try:
                return attempt()
            except _Transient:
                self._clock.sleep_s(FIRST_BACKOFF_S * 2**number)
        return attempt()

    def _exchange(
        self,
        method: str,
        path: str,
        within_s: float,
        max_bytes: int,
        *,
        query: dict[str, str] | None = None,
        body: Mapping[str, Json] | None = None,
        content: bytes | None = None,
        sink: Callable[[bytes], object] | None = None,
    ) -> dict[str, Json]:
        """One attempt. The answer goes to ``sink``, or is returned as the JSON object that it has to be."""
        address = self._uri + path
        deadline_s = self._clock.monotonic_s() + within_s
        answer = bytearray()
        received = 0
        try:
            with self._http.stream(method, address, params=query, json=body, content=content) as response:
                for chunk in response.iter_bytes():
                    received += len(chunk)
                    if received > max_bytes:
                        raise TargetError(f"{address}: the answer is larger than {max_bytes} bytes")
                    # httpx bounds each read only: a server that trickles would never meet that limit.
                    if self._clock.monotonic_s() > deadline_s:
                        raise _Transient(f"{address}: the answer did not end within {within_s:g} s")
                    if sink is None or response.is_error:
                        answer += chunk
                    else:
                        sink(chunk)
        except httpx.TimeoutException:
            raise _Transient(f"{address}: no answer within {self._timeout_s:g} s") from None
        except httpx.HTTPError as error:
            raise _Transient(f"{address}: {str(error) or type(error).__name__}") from None
        if response.is_error:
            transient = response.status_code >= 500 or response.status_code == 429
            kind = _Transient if transient else NotThere if response.status_code == 404 else TargetError
            raise kind(f"{address}: HTTP {response.status_code}{_reason(bytes(answer))}")
        return {} if sink else _json_object(address, bytes(answer))

    def _model_version(self, path: str, raw: Json) -> ModelVersion:
        try:
            tags = {str(tag["key"]): str(tag["value"]) for tag in raw.get("tags") or ()}
            accuracy = float(tags["accuracy"]) if "accuracy" in tags else None
            return ModelVersion(
                version=str(int(raw["version"])),
                sha256=tags.get("sha256", ""),
                artifact=str(raw.get("source", "")),
                accuracy=accuracy,
                tags=tags,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise TargetError(f"{self._uri}{path}: not a model version ({error!r})") from None


def _json_object(address: str, answer: bytes) -> dict[str, Json]:
    try:
        parsed = json.loads(answer)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise _Transient(f"{address}: the answer is not a JSON object: {answer[:60]!r}")
    return parsed


def _reason(answer: bytes) -> str:
    """MLflow's own words in an error answer, if there are any."""
    with suppress(ValueError, AttributeError, RecursionError):
        if message := json.loads(answer).get("message"):
            return f": {str(message)[:200]}"
    return ""
