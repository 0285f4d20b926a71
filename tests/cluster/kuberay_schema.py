"""What KubeRay 1.6 takes, as a JSON schema: the fields of its reference of RayCluster and RayJob, and no others.

What is plain Kubernetes in them, such as a pod's template, is checked against Kubernetes' own schemas.
"""

from typing import Any

ANY: dict[str, Any] = {}
OBJECT = {"type": "object"}
TEXT, WHOLE, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}


def _fields(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


AUTH = _fields((), mode={"enum": ["token", "disabled"]}, secretName=TEXT, enableK8sTokenAuth=FLAG)
AUTOSCALER = _fields(
    (),
    resources=OBJECT,
    image=TEXT,
    imagePullPolicy=TEXT,
    securityContext=OBJECT,
    idleTimeoutSeconds=WHOLE,
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    version={"enum": ["v1", "v2"]},
    env=ANY,
    envFrom=ANY,
    volumeMounts=ANY,
)
HEAD = _fields(
    ("rayStartParams", "template"),
    template=OBJECT,
    headService=OBJECT,
    enableIngress=FLAG,
    resources=TEXTS,
    labels=TEXTS,
    rayStartParams=TEXTS,
    serviceType=TEXT,
)
WORKERS = _fields(
    ("groupName", "maxReplicas", "minReplicas", "rayStartParams", "template"),
    suspend=FLAG,
    groupName=TEXT,
    replicas=WHOLE,
    minReplicas=WHOLE,
    maxReplicas=WHOLE,
    idleTimeoutSeconds=WHOLE,
    resources=TEXTS,
    labels=TEXTS,
    rayStartParams=TEXTS,
    template=OBJECT,
    scaleStrategy=OBJECT,
    numOfHosts=WHOLE,
)
CLUSTER = _fields(
    ("headGroupSpec", "rayVersion"),
    upgradeStrategy=OBJECT,
    authOptions=AUTH,
    suspend=FLAG,
    managedBy=TEXT,
    autoscalerOptions=AUTOSCALER,
    headServiceAnnotations=TEXTS,
    enableInTreeAutoscaling=FLAG,
    gcsFaultToleranceOptions=OBJECT,
    headGroupSpec=HEAD,
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    workerGroupSpecs={"type": "array", "items": WORKERS},
)
JOB = _fields(
    ("entrypoint", "rayClusterSpec"),
    activeDeadlineSeconds=WHOLE,
    backoffLimit=WHOLE,
    rayClusterSpec=CLUSTER,
    submitterPodTemplate=OBJECT,
    metadata=TEXTS,
    clusterSelector=TEXTS,
    submitterConfig=OBJECT,
    managedBy=TEXT,
    deletionStrategy=OBJECT,
    entrypoint=TEXT,
    runtimeEnvYAML=TEXT,
    jobId=TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    entrypointResources=TEXT,
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    ttlSecondsAfterFinished=WHOLE,
    preRunningDeadlineSeconds=WHOLE,
    shutdownAfterJobFinishes=FLAG,
    suspend=FLAG,
)
_METADATA = _fields(("name", "namespace"), name=TEXT, namespace=TEXT, labels=TEXTS)


def resource(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """The schema of a whole object of KubeRay's."""
    version = {"const": "ray.io/v1"}
    fields = ("apiVersion", "kind", "metadata", "spec")
    return _fields(fields, apiVersion=version, kind={"const": kind}, metadata=_METADATA, spec=spec)


SCHEMAS = {"RayCluster": resource("RayCluster", CLUSTER), "RayJob": resource("RayJob", JOB)}
