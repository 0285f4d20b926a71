"""The objects for KubeRay, against Kubernetes' own schemas and KubeRay's fields, and what they let others do."""

from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from cluster.kuberay import PART, SPOT_LABELS, ray_cluster, ray_job
from cluster.settings import ClusterSettings, Kubernetes, load_settings
from tests.cluster.kuberay_schema import SCHEMAS

ROOT = Path(__file__).parents[2]
KUBERNETES = "1.34"
SETTINGS = load_settings(ROOT / "cluster" / "settings.yaml")
FILES = ("kuberay-cluster.yaml", "kuberay-job.yaml")


def documents(file: str) -> list[dict[str, Any]]:
    """The objects of a shipped file."""
    return list(yaml.safe_load_all((ROOT / "cluster" / file).read_text(encoding="utf-8")))


def spec_of_cluster(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """The RayCluster's, whether it stands alone or in a job."""
    found = next(o for o in objects if o["apiVersion"] == "ray.io/v1")["spec"]
    spec: dict[str, Any] = found.get("rayClusterSpec", found)
    return spec


def templates(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every pod's template among the objects: head, workers, and what submits a job."""
    cluster = spec_of_cluster(objects)
    found = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    job = next((o for o in objects if o["kind"] == "RayJob"), None)
    return [*found, job["spec"]["submitterPodTemplate"]] if job else found


def as_pod(template: dict[str, Any]) -> dict[str, Any]:
    """A template as the pod that it makes."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", **template["metadata"]}} | {
        "spec": template["spec"]
    }


@pytest.mark.parametrize("file", FILES)
def test_plain_objects_and_pods_are_what_kubernetes_takes(file: str) -> None:
    """Strictly: a field that Kubernetes does not know is an error."""
    objects = documents(file)
    plain = [o for o in objects if o["apiVersion"] != "ray.io/v1"]
    assert [o["kind"] for o in plain] == ["Namespace", "NetworkPolicy", "PersistentVolumeClaim"]
    pods = [as_pod(template) for template in templates(objects)]
    assert len(pods) == 3 + (file == "kuberay-job.yaml")
    for checked in [*plain, *pods]:
        kubernetes_validate.validate(checked, KUBERNETES, strict=True)


def test_the_validator_of_kubernetes_finds_a_wrong_field() -> None:
    """So that its silence above means something."""
    pod = as_pod(templates(documents(FILES[0]))[0])
    pod["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("file", FILES)
def test_kuberays_own_objects_have_its_fields_and_no_others(file: str) -> None:
    """Groups, autoscaler and token among them; the version of Ray is the one that is pinned."""
    ours = [o for o in documents(file) if o["apiVersion"] == "ray.io/v1"]
    assert len(ours) == 1
    jsonschema.validate(ours[0], SCHEMAS[ours[0]["kind"]])
    wrong = spec_of_cluster(ours)["workerGroupSpecs"][0]
    wrong["maxReplica"] = wrong.pop("maxReplicas")
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        jsonschema.validate(ours[0], SCHEMAS[ours[0]["kind"]])


@pytest.mark.parametrize("file", FILES)
def test_every_pod_is_locked_down(file: str) -> None:
    """Not root, nothing to gain, a read-only root; only the head may talk to Kubernetes; no volume but its own."""
    objects = documents(file)
    for template in templates(objects):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        context = spec["containers"][0]["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert [v["name"] for v in spec["volumes"]] == ["tmp", "home", "data"]
        assert "hostNetwork" not in spec
    allowed = [template["spec"]["automountServiceAccountToken"] for template in templates(objects)]
    assert allowed == [True, *[False] * (len(allowed) - 1)]
    namespace = objects[0]["metadata"]["labels"]
    assert namespace["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("file", FILES)
def test_ray_asks_for_a_token_that_no_file_holds(file: str) -> None:
    """KubeRay makes it; and Ray that is given none does not start, for its mode is set in each container."""
    objects = documents(file)
    assert spec_of_cluster(objects)["authOptions"] == {"mode": "token"}
    for template in templates(objects):
        variables = template["spec"]["containers"][0]["env"]
        assert {"name": "RAY_AUTH_MODE", "value": "token"} in variables
        assert "RAY_AUTH_TOKEN" not in [variable["name"] for variable in variables]
    assert not [o for o in objects if o["kind"] == "Secret"]


@pytest.mark.parametrize("file", FILES)
def test_only_the_clusters_pods_and_the_operator_reach_the_head(file: str) -> None:
    """The pods that the policy closes are all of them, and the operator reaches the dashboard alone."""
    objects = documents(file)
    policy = next(o for o in objects if o["kind"] == "NetworkPolicy")["spec"]
    assert policy["podSelector"] == {"matchLabels": PART}
    assert all(PART.items() <= template["metadata"]["labels"].items() for template in templates(objects))
    peers, operator = policy["ingress"]
    assert peers == {"from": [{"podSelector": {"matchLabels": PART}}]}
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}]
    assert "serviceType" not in spec_of_cluster(objects)["headGroupSpec"]  # a ClusterIP


def test_groups_scale_and_get_what_they_ask_for() -> None:
    """Bounds, GPUs and the CUDA image; the head takes no work; spot groups prefer and tolerate spot nodes."""
    spec = spec_of_cluster(documents(FILES[0]))
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    cpu, gpu = spec["workerGroupSpecs"]
    assert [(g["groupName"], g["minReplicas"], g["maxReplicas"]) for g in (cpu, gpu)] == [("cpu", 1, 16), ("gpu", 0, 4)]
    limits = [g["template"]["spec"]["containers"][0]["resources"]["limits"] for g in (cpu, gpu)]
    assert limits == [
        {"cpu": "16", "memory": "64Gi"},
        {"cpu": "48", "memory": "192Gi", "nvidia.com/gpu": "4"},
    ]
    images = [g["template"]["spec"]["containers"][0]["image"] for g in (cpu, gpu)]
    assert images == [SETTINGS.images.cpu, SETTINGS.images.cuda]
    tolerated = [{t["key"] for t in g["template"]["spec"]["tolerations"]} for g in (cpu, gpu)]
    assert tolerated == [set(SPOT_LABELS), {"nvidia.com/gpu", *SPOT_LABELS}]


def _changed(**fields: Any) -> tuple[ClusterSettings, Kubernetes]:
    kubernetes = Kubernetes(**fields)
    return SETTINGS.model_copy(update={"kubernetes": kubernetes}), kubernetes


def test_a_bucket_needs_no_volume() -> None:
    """Neither a claim nor a mount; the job writes to the bucket."""
    objects = ray_job(*_changed(storage="s3://bucket/studies"), "2.60.0")
    assert [o["kind"] for o in objects] == ["Namespace", "NetworkPolicy", "RayJob"]
    assert objects[-1]["spec"]["entrypoint"] == "idia run demo.yaml --address auto --set out=s3://bucket/studies/demo"
    assert [v["name"] for v in templates(objects)[0]["spec"]["volumes"]] == ["tmp", "home"]


def test_a_storage_class_is_asked_for() -> None:
    """By its name, on a volume that all pods can write to."""
    claim = ray_cluster(*_changed(storage_class="filestore", volume_gib=7), "2.60.0")[2]
    assert claim["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "7Gi"}},
        "storageClassName": "filestore",
    }
