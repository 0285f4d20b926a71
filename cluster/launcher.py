"""Files for Ray's cluster launcher, `ray up`: on AWS, on Google Cloud, and on machines that are there already."""

from collections.abc import Callable
from typing import Any

from cluster.kuberay import GCS_PORT, HOME
from cluster.settings import Aws, ClusterSettings, Gcp, Group, Local, Machine

TOKEN = ".ray/auth_token"  # noqa: S105 - its place below a home
"""Where Ray looks for the token, and where the launcher copies it from and to."""
HEAD = "head"
BOOTSTRAP = "~/ray_bootstrap_config.yaml"
"""Where the launcher leaves its own config on the head."""


def aws_config(settings: ClusterSettings, aws: Aws) -> dict[str, Any]:
    """A cluster on AWS; workers of a spot group are spot instances."""

    def node(machine: Machine, spot: bool) -> dict[str, Any]:
        disk = {"VolumeSize": aws.disk_gib, "VolumeType": "gp3", "Encrypted": True}
        config: dict[str, Any] = {
            "InstanceType": machine.aws,
            "ImageId": aws.ami,
            "IamInstanceProfile": {"Name": aws.instance_profile},
            "MetadataOptions": {"HttpTokens": "required"},
            "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": disk}],
        }
        return config | ({"InstanceMarketOptions": {"MarketType": "spot"}} if spot else {})

    provider = {"type": "aws", "region": aws.region, "cache_stopped_nodes": False}
    if aws.zones:
        provider["availability_zone"] = ",".join(aws.zones)
    types = _node_types(settings, node)
    return _launched(settings, provider, {"ssh_user": "ubuntu"}) | types


def gcp_config(settings: ClusterSettings, gcp: Gcp) -> dict[str, Any]:
    """A cluster on Google Cloud; workers of a spot group are spot instances."""

    def node(machine: Machine, spot: bool) -> dict[str, Any]:
        disk = {"diskSizeGb": gcp.disk_gib, "sourceImage": gcp.image}
        config: dict[str, Any] = {
            "machineType": machine.gcp,
            "disks": [{"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": disk}],
            "serviceAccounts": [
                {"email": gcp.service_account, "scopes": ["https://www.googleapis.com/auth/cloud-platform"]}
            ],
        }
        scheduling: dict[str, Any] = {}
        if isinstance(machine, Group) and machine.gpus:
            accelerator = {"acceleratorType": machine.gcp_accelerator, "acceleratorCount": machine.gpus}
            config["guestAccelerators"] = [accelerator]
            config["metadata"] = {"items": [{"key": "install-nvidia-driver", "value": "True"}]}
            scheduling["onHostMaintenance"] = "TERMINATE"
        if spot:
            scheduling |= {"provisioningModel": "SPOT", "instanceTerminationAction": "DELETE"}
        return config | ({"scheduling": scheduling} if scheduling else {})

    provider = {
        "type": "gcp",
        "region": gcp.region,
        "availability_zone": gcp.zone,
        "project_id": gcp.project,
        "cache_stopped_nodes": False,
    }
    types = _node_types(settings, node)
    return _launched(settings, provider, {"ssh_user": "ubuntu"}) | types


def local_config(settings: ClusterSettings, local: Local) -> dict[str, Any]:
    """A cluster of machines that are reached by SSH; a folder to write to is the containers' as well."""
    provider = {"type": "local", "head_ip": local.head, "worker_ips": list(local.workers)}
    config = _launched(settings, provider, {"ssh_user": local.ssh_user})
    image = settings.images.cuda if any(group.gpus for group in settings.groups) else settings.images.cpu
    options = config["docker"]["run_options"]
    if local.storage.startswith("/"):
        options = [*options, f"-v {local.storage}:{local.storage}"]
    config["docker"] = {
        "image": image,
        **{key: value for key, value in config["docker"].items() if not key.endswith("image")},
        "run_options": options,
    }
    config["max_workers"] = len(local.workers)
    return config


def _launched(settings: ClusterSettings, provider: dict[str, Any], login: dict[str, str]) -> dict[str, Any]:
    """What the launcher's files have in common; every node runs idia's image and is given the user's token."""
    mode = "token" if settings.auth else "disabled"
    start = "ulimit -n 65536; ray start"
    head = f"--head --port={GCS_PORT} --autoscaling-config={BOOTSTRAP} --dashboard-host={settings.dashboard_host}"
    return {
        "cluster_name": settings.name,
        "max_workers": sum(group.max for group in settings.groups),
        "idle_timeout_minutes": settings.idle_minutes,
        "provider": provider,
        "auth": login,
        "docker": {
            "head_image": settings.images.cpu,
            "worker_image": settings.images.cpu,
            "container_name": settings.name,
            "pull_before_run": True,
            "run_options": [
                f"-e RAY_AUTH_MODE={mode}",
                "-e RAY_USAGE_STATS_ENABLED=0",
                "--security-opt no-new-privileges",
                "--ulimit nofile=65536:65536",
            ],
        },
        "file_mounts": {f"{HOME}/{TOKEN}": f"~/{TOKEN}"} if settings.auth else {},
        # Ray's defaults would install Ray beside the one of the image.
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": ["ray stop", f"{start} {head}"],
        "worker_start_ray_commands": ["ray stop", f"{start} --address=$RAY_HEAD_IP:{GCS_PORT}"],
    }


def _node_types(settings: ClusterSettings, node: Callable[[Machine, bool], dict[str, Any]]) -> dict[str, Any]:
    """The head, which does no work of stages, and a type for each group."""
    types: dict[str, Any] = {
        HEAD: {"resources": {"CPU": 0}, "max_workers": 0, "node_config": node(settings.head, False)},
    }
    for group in settings.groups:
        types[group.name] = {
            "resources": {"CPU": group.cpus} | ({"GPU": group.gpus} if group.gpus else {}),
            "min_workers": group.min,
            "max_workers": group.max,
            "docker": {"worker_image": settings.image_of(group)},
            "node_config": node(group, group.spot),
        }
    return {"available_node_types": types, "head_node_type": HEAD}
