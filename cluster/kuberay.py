"""Kubernetes objects for KubeRay: a cluster that stays and is submitted to, and a job that brings its own."""

import shlex
from typing import Any

from cluster.settings import LOOPBACK, ClusterSettings, Group, Kubernetes, Machine

USER = 1000
"""Of the images; not root."""
HOME = "/home/idia"
"""Of that user in the images; weights that are fetched lie below it."""
PART = {"app.kubernetes.io/part-of": "idia"}
"""The label by which the network policy knows the pods."""
OPERATOR = {"app.kubernetes.io/component": "kuberay-operator"}
"""What KubeRay's own pods are labelled."""
GCS_PORT, DASHBOARD_PORT, METRICS_PORT = 6379, 8265, 8080
SPOT_LABELS = {
    "cloud.google.com/gke-spot": "true",
    "eks.amazonaws.com/capacityType": "SPOT",
    "karpenter.sh/capacity-type": "spot",
    "kubernetes.azure.com/scalesetpriority": "spot",
}
"""What providers call a node that they may take back."""
LOCKED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
JOB_RETRIES, KEPT_SECONDS = 5, 600


def ray_cluster(settings: ClusterSettings, kubernetes: Kubernetes, ray: str) -> list[dict[str, Any]]:
    """The objects of a cluster that runs until it is deleted; `ray` is Ray's version in the images."""
    cluster = _object("ray.io/v1", "RayCluster", settings.name, kubernetes, spec=_cluster(settings, kubernetes, ray))
    return [*_surroundings(settings, kubernetes), cluster]


def ray_job(settings: ClusterSettings, kubernetes: Kubernetes, ray: str) -> list[dict[str, Any]]:
    """The objects of a job that runs the settings' study on a cluster of its own and then deletes that.

    A cluster that is lost is replaced, and the study goes on from what is sealed.
    """
    words = ["idia", "run", settings.study, "--address", "auto", "--set", f"out={settings.out(kubernetes.storage)}"]
    container = _container("submit", settings.images.cpu, Machine(cpus=1, memory_gib=2), settings, kubernetes)
    submitter = _pod(container, settings, kubernetes, token=False)
    submitter["spec"]["restartPolicy"] = "Never"
    spec = {
        "entrypoint": shlex.join(words),
        "backoffLimit": JOB_RETRIES,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": KEPT_SECONDS,
        "submitterPodTemplate": submitter,
        "rayClusterSpec": _cluster(settings, kubernetes, ray),
    }
    job = _object("ray.io/v1", "RayJob", f"{settings.name}-study", kubernetes, spec=spec)
    return [*_surroundings(settings, kubernetes), job]


def _surroundings(settings: ClusterSettings, kubernetes: Kubernetes) -> list[dict[str, Any]]:
    """The namespace, who may talk to the pods, and the volume where a folder is written to."""
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": kubernetes.namespace, "labels": PART | restricted},
    }
    operator = {"namespaceSelector": {}, "podSelector": {"matchLabels": OPERATOR}}
    policy = {
        "podSelector": {"matchLabels": PART},
        "policyTypes": ["Ingress"],
        "ingress": [
            {"from": [{"podSelector": {"matchLabels": PART}}]},
            {"from": [operator], "ports": [{"protocol": "TCP", "port": DASHBOARD_PORT}]},
        ],
    }
    objects = [
        namespace,
        _object("networking.k8s.io/v1", "NetworkPolicy", settings.name, kubernetes, spec=policy),
    ]
    if kubernetes.storage.startswith("/"):
        claim: dict[str, Any] = {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": f"{kubernetes.volume_gib}Gi"}},
        }
        if kubernetes.storage_class:
            claim["storageClassName"] = kubernetes.storage_class
        objects.append(_object("v1", "PersistentVolumeClaim", f"{settings.name}-data", kubernetes, spec=claim))
    return objects


def _object(version: str, kind: str, name: str, kubernetes: Kubernetes, **fields: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": kubernetes.namespace, "labels": PART}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}


def _cluster(settings: ClusterSettings, kubernetes: Kubernetes, ray: str) -> dict[str, Any]:
    """The spec of a RayCluster; KubeRay makes the token, keeps it in a Secret and gives it to every container."""
    head = _container("ray-head", settings.images.cpu, settings.head, settings, kubernetes)
    ports = (("gcs-server", GCS_PORT), ("dashboard", DASHBOARD_PORT), ("metrics", METRICS_PORT))
    head["ports"] = [{"name": name, "containerPort": port} for name, port in ports]
    # The operator asks the dashboard how the job is; a pod's network is its own, and the policy closes it to others.
    host = "0.0.0.0" if settings.dashboard_host == LOOPBACK else settings.dashboard_host  # noqa: S104
    return {
        "rayVersion": ray,
        "authOptions": {"mode": "token" if settings.auth else "disabled"},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {"idleTimeoutSeconds": 60 * settings.idle_minutes, "securityContext": LOCKED},
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0", "dashboard-host": host},
            "template": _pod(head, settings, kubernetes, token=True),
        },
        "workerGroupSpecs": [_workers(group, settings, kubernetes) for group in settings.groups],
    }


def _workers(group: Group, settings: ClusterSettings, kubernetes: Kubernetes) -> dict[str, Any]:
    container = _container("ray-worker", settings.image_of(group), group, settings, kubernetes)
    template = _pod(container, settings, kubernetes, token=False)
    tolerated = []
    if group.gpus:
        for bounds in container["resources"].values():
            bounds["nvidia.com/gpu"] = str(group.gpus)
        tolerated.append({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"})
    if group.spot:
        tolerated += [{"key": key, "operator": "Equal", "value": value} for key, value in SPOT_LABELS.items()]
        template["spec"]["affinity"] = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": _spot()}}
    if tolerated:
        template["spec"]["tolerations"] = tolerated
    return {
        "groupName": group.name,
        "replicas": group.min,
        "minReplicas": group.min,
        "maxReplicas": group.max,
        "rayStartParams": {},
        "template": template,
    }


def _spot() -> list[dict[str, Any]]:
    return [
        {"weight": 100, "preference": {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}}
        for key, value in SPOT_LABELS.items()
    ]


def _container(
    name: str, image: str, machine: Machine, settings: ClusterSettings, kubernetes: Kubernetes
) -> dict[str, Any]:
    """A container that can write to its volumes only."""
    amounts = {"cpu": str(machine.cpus), "memory": f"{machine.memory_gib}Gi"}
    mounts = [{"name": "tmp", "mountPath": "/tmp"}, {"name": "home", "mountPath": HOME}]  # noqa: S108 - Ray's logs
    if kubernetes.storage.startswith("/"):
        mounts.append({"name": "data", "mountPath": kubernetes.storage})
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        # Ray that is asked for a token and has none does not start, so an operator that knows no tokens is no hole.
        "env": [
            {"name": "RAY_AUTH_MODE", "value": "token" if settings.auth else "disabled"},
            {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"},
        ],
        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
        "securityContext": LOCKED | {"readOnlyRootFilesystem": True},
        "volumeMounts": mounts,
    }


def _pod(
    container: dict[str, Any], settings: ClusterSettings, kubernetes: Kubernetes, *, token: bool
) -> dict[str, Any]:
    """A pod's template; with `token` it may talk to Kubernetes, as the autoscaler beside the head must."""
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}, {"name": "home", "emptyDir": {}}]
    if kubernetes.storage.startswith("/"):
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": f"{settings.name}-data"}})
    return {
        "metadata": {"labels": PART},
        "spec": {
            "automountServiceAccountToken": token,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": volumes,
        },
    }
