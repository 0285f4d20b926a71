"""The configs of `cluster/` as texts, all made from one settings file."""

from typing import Any

import yaml

from cluster.dockerfile import dockerfile, dockerignore
from cluster.kuberay import ray_cluster, ray_job
from cluster.launcher import aws_config, gcp_config, local_config
from cluster.settings import ClusterSettings, Slurm
from cluster.slurm_study import study_script

MADE = "Made from {source} by `idia cluster write`: change that file, not this one. docs/cluster.md explains it."
DASHBOARD = "http://127.0.0.1:8265"
Commands = list[tuple[str, str]]
"""What a user types, each with its number or when."""


class _Plain(yaml.SafeDumper):
    """Writes what stands twice twice, as a reader expects it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def cluster_files(settings: ClusterSettings, ray: str, source: str = "cluster/settings.yaml") -> dict[str, str]:
    """File name -> text for every section that the settings have; `ray` is the version of Ray in the images."""
    images = "the images, one for CPUs and one for GPUs; build them at the root of the repository"
    made = {
        "Dockerfile": _header(source, images, _image_commands(settings)) + dockerfile(settings),
        "Dockerfile.dockerignore": dockerignore(),
    }
    if settings.kubernetes:
        space = settings.kubernetes.namespace
        what = "a Ray cluster on Kubernetes that studies are submitted to; KubeRay 1.5.1 or later"
        objects = ray_cluster(settings, settings.kubernetes, ray)
        made["kuberay-cluster.yaml"] = _yaml(source, what, _cluster_commands(settings, space), objects)
        what = "one study on Kubernetes, on a Ray cluster of its own; KubeRay 1.5.1 or later"
        objects = ray_job(settings, settings.kubernetes, ray)
        made["kuberay-job.yaml"] = _yaml(source, what, _job_commands(settings, space), objects)
    if settings.slurm:
        made["study.sbatch"] = _script(source, settings, settings.slurm)
    for file, place, config in (
        ("aws.yaml", "AWS", settings.aws and aws_config(settings, settings.aws)),
        ("gcp.yaml", "Google Cloud", settings.gcp and gcp_config(settings, settings.gcp)),
        ("local.yaml", "machines that SSH reaches", settings.local and local_config(settings, settings.local)),
    ):
        if config:
            made[file] = _yaml(source, f"a Ray cluster on {place}", _launch_commands(settings, file), [config])
    return made


def _header(source: str, what: str, commands: Commands) -> str:
    lines = [f"idia: {what}", MADE.format(source=source), *(f"  {label} {command}" for label, command in commands)]
    return "".join(f"# {line}\n" for line in lines)


def _yaml(source: str, what: str, commands: Commands, documents: list[dict[str, Any]]) -> str:
    text = yaml.dump_all(documents, Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)
    return _header(source, what, commands) + text


def _script(source: str, settings: ClusterSettings, slurm: Slurm) -> str:
    first, rest = study_script(settings, slurm).split("\n", 1)
    commands = [
        ("1.", "sbatch cluster/study.sbatch"),
        ("2.", f"tail --follow {settings.name}-JOB.log"),
        ("3.", "scancel JOB    # what is done stays: sbatch again goes on"),
    ]
    header = _header(source, "one study on Slurm, on a Ray that starts and ends with the job", commands)
    return f"{first}\n{header}{rest}"


def _image_commands(settings: ClusterSettings) -> Commands:
    images = settings.images
    return [
        ("1.", f"docker build --file cluster/Dockerfile --target cpu --tag {images.cpu} ."),
        ("2.", f"docker build --file cluster/Dockerfile --target cuda --tag {images.cuda} ."),
        ("3.", f"docker push {images.cpu} && docker push {images.cuda}"),
    ]


def _cluster_commands(settings: ClusterSettings, namespace: str) -> Commands:
    name = settings.name
    token = (
        f"kubectl get secret {name} --namespace {namespace} --output jsonpath={{.data.auth_token}} | base64 --decode"
    )
    known = [("and", f'export RAY_AUTH_TOKEN="$({token})"')] if settings.auth else []
    return [
        ("1.", "kubectl apply -f cluster/kuberay-cluster.yaml"),
        ("2.", f"kubectl port-forward --namespace {namespace} service/{name}-head-svc 8265 &"),
        *known,
        ("3.", _submit(settings)),
        ("end:", f"kubectl delete raycluster --namespace {namespace} {name}    # the volume stays"),
    ]


def _job_commands(settings: ClusterSettings, namespace: str) -> Commands:
    job = f"{settings.name}-study"
    return [
        ("1.", "kubectl apply -f cluster/kuberay-job.yaml"),
        ("2.", f"kubectl logs --follow --namespace {namespace} job/{job}"),
        ("3.", f"kubectl delete rayjob --namespace {namespace} {job}    # the volume stays"),
    ]


def _launch_commands(settings: ClusterSettings, file: str) -> Commands:
    once = [("once:", "(umask 077; ray get-auth-token --generate > /dev/null)")]
    return [
        *(once if settings.auth else []),
        ("1.", f"ray up --yes cluster/{file}"),
        ("2.", f"ray dashboard cluster/{file} &"),
        ("3.", _submit(settings)),
        ("end:", f"ray down --yes cluster/{file}"),
    ]


def _submit(settings: ClusterSettings) -> str:
    mode = "RAY_AUTH_MODE=token " if settings.auth else ""
    return f"{mode}idia submit STUDY.yaml --address {DASHBOARD}"
