"""Faults on a Kubernetes cluster, through chaosk8s (the extra ``monkeyproof[kubernetes]``).

Blast radius: only the context that the target file names, and there only namespaces whose label
``monkeyproof.dev/allow-faults`` is ``true``; everything else is refused before anything is touched. chaosk8s and
the Kubernetes client take a second to import, so they are imported where they are used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monkeyproof.errors import Refusal, UsageError
from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import Injection, current, inject, within_limit
from monkeyproof.types import Evidence, Json

__all__ = ["terminate_pods"]

OPT_IN_LABEL = "monkeyproof.dev/allow-faults"
IN_CLUSTER = "in-cluster"
"""Stands for a context where there is no kubeconfig."""
_CONTEXT = "KUBERNETES_CONTEXT"
REQUEST_TIMEOUT_S = 10
EVIDENCE_WITHIN_S = 30.0


@fault(
    evidence="the namespace does not list their uids any more",
    undo="none: a deleted pod stays deleted",
    healing="the deployment's controller starts others",
)
def terminate_pods(
    namespace: str,
    label_selector: str,
    pods_count: int = 1,
    secrets: dict[str, str] | None = None,
) -> dict[str, Json]:
    """Delete pods without grace. One-shot: their controller is expected to replace them.

    Evidence: the namespace does not list the uid of any chosen pod, or lists it as marked for deletion.

    Args:
        namespace: must carry the opt-in label.
        label_selector: which pods; at least one more has to be ready than is deleted.
        pods_count: how many, chosen by the trial's seed.

    Raises:
        Refusal: the target file does not name the context, the namespace has not opted in, nothing would be left
            to serve, or more pods would be down than the target allows.
        UsageError: the extra is not installed, or the cluster does not answer.
    """
    if isinstance(pods_count, bool) or not isinstance(pods_count, int) or pods_count < 1:
        raise UsageError(
            f"pods_count: must be a whole number of at least 1, not {pods_count!r} (from the environment, "
            "'env_var_type: int' gives one)"
        )
    secrets = (secrets or {}) | {_CONTEXT: _context(secrets or {})}
    client, terminate = _chaosk8s(secrets)
    _refuse_without_opt_in(client, namespace)
    pods = _pods(client, namespace, label_selector)
    before = {pod.metadata.name: pod.metadata.uid for pod in pods if _serves(pod)}
    down = len(pods) - len(before) + pods_count
    within_limit("replicas_down", down, f"pods of {label_selector!r} down at once")
    if len(before) <= pods_count:
        raise Refusal(
            f"{label_selector!r} matches {len(pods)} pods in {namespace!r}, of which {len(before)} are ready, and "
            f"{pods_count} would be deleted",
            "leave at least one that serves",
        )
    chosen = [str(name) for name in current().rng("kubernetes.terminate_pods").permutation(sorted(before))]
    chosen = chosen[:pods_count]

    def apply() -> None:
        for name in chosen:
            terminate(label_selector, name_pattern=f"^{name}$", grace_period=0, ns=namespace, secrets=secrets)

    def evidence(_: object) -> Evidence | None:
        alive = {
            pod.metadata.uid
            for pod in _pods(client, namespace, label_selector)
            if pod.metadata.deletion_timestamp is None
        }
        if any(before[name] in alive for name in chosen):
            return None
        return Evidence(
            f"not in {namespace} any more: {', '.join(chosen)}", {name: before[name] for name in chosen}
        )

    return inject(
        Injection(
            fault="kubernetes.terminate_pods",
            subject=f"{namespace}/{label_selector}",
            parameters={"namespace": namespace, "label_selector": label_selector, "pods": chosen},
            apply=apply,
            evidence=evidence,
            undo=None,
            evidence_within_s=EVIDENCE_WITHIN_S,
            prior={"uids": before},
            one_shot="a deleted pod cannot be brought back; its controller starts another",
        )
    )


def _context(secrets: Mapping[str, str]) -> str:
    """The context that the target file names; no other is used.

    Raises:
        Refusal: it names none, or the secrets or the environment ask for another.
    """
    file = current().target.file
    if file.kubernetes is None:
        raise Refusal(
            f"target {file.name!r} names no context of Kubernetes",
            f"if one may be broken, add kubernetes: {{context: NAME}} to {file.path}",
        )
    allowed, wanted = file.kubernetes.context, secrets.get(_CONTEXT) or os.environ.get(_CONTEXT)
    if not Path(os.environ.get("KUBECONFIG") or "~/.kube/config").expanduser().exists():
        wanted = IN_CLUSTER  # chaosk8s would go where the environment says.
    if wanted and wanted != allowed:
        raise Refusal(
            f"the context {wanted!r} is not the one that target {file.name!r} names, {allowed!r}",
            f"choose that one, or change kubernetes.context in {file.path} if the other may be broken",
        )
    return allowed


def _serves(pod: Any) -> bool:
    conditions = (pod.status.conditions if pod.status is not None else None) or ()
    ready = any(one.type == "Ready" and one.status == "True" for one in conditions)
    return ready and pod.metadata.deletion_timestamp is None


def _chaosk8s(secrets: dict[str, str] | None) -> tuple[Any, Any]:
    try:
        from chaosk8s import create_k8s_api_client
        from chaosk8s.pod.actions import terminate_pods as terminate
        from kubernetes import client
    except ImportError:
        raise UsageError(
            "Kubernetes faults need chaosk8s, which is not installed; run: pip install 'monkeyproof[kubernetes]'"
        ) from None
    try:
        return client.CoreV1Api(create_k8s_api_client(secrets)), terminate
    except Exception as error:  # Whatever its configuration loader raises, the user has to repair the access.
        raise UsageError(f"no access to a Kubernetes cluster: {error}; see KUBECONFIG") from None


def _refuse_without_opt_in(client: Any, namespace: str) -> None:
    try:
        labels = client.read_namespace(namespace, _request_timeout=REQUEST_TIMEOUT_S).metadata.labels or {}
    except Exception as error:  # urllib3 and the client's own: unreachable, unauthorised, or no such namespace.
        words = " ".join(str(error).split())[:200]
        raise UsageError(f"namespace {namespace!r} cannot be read: {words}") from None
    if labels.get(OPT_IN_LABEL) != "true":
        raise Refusal(
            f"namespace {namespace!r} has not opted in",
            f"if it may be broken: kubectl label namespace {namespace} {OPT_IN_LABEL}=true",
        )


def _pods(client: Any, namespace: str, label_selector: str) -> list[Any]:
    found = client.list_namespaced_pod(
        namespace, label_selector=label_selector, _request_timeout=REQUEST_TIMEOUT_S
    )
    return list(found.items)
