"""The files for `ray up`, by Ray's own schema and validator, and on AWS up to the instances that they start."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.providers import _get_node_provider_cls
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.launcher import aws_config, local_config
from cluster.settings import LOOPBACK, Local, load_settings

ROOT = Path(__file__).parents[2]
SETTINGS = load_settings(ROOT / "cluster" / "settings.yaml")
PLACES = ("aws", "gcp", "local")


def shipped(place: str) -> dict[str, Any]:
    """The file of a place, as `ray up` reads it."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "cluster" / f"{place}.yaml").read_text(encoding="utf-8"))
    return config


@pytest.mark.parametrize("place", PLACES)
def test_ray_takes_the_file(place: str) -> None:
    """Before and after it fills in its defaults, of which none installs another Ray."""
    prepared = prepare_config(shipped(place))
    validate_config(prepared)
    commands = [c for key, value in prepared.items() if key.endswith("commands") for c in value]
    assert not [command for command in commands if "pip install" in command]
    assert len(commands) == 4


def test_rays_validator_finds_a_wrong_field() -> None:
    """So that its silence above means something."""
    config = shipped("aws")
    config["available_node_types"]["cpu"]["max_worker"] = 3
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(prepare_config(config))


@pytest.mark.parametrize("place", PLACES)
def test_ray_asks_for_the_users_token_and_listens_on_loopback(place: str) -> None:
    """The token is copied from the user's home to the containers'; no file holds it."""
    config = shipped(place)
    assert "-e RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"] == {"/home/idia/.ray/auth_token": "~/.ray/auth_token"}
    start = config["head_start_ray_commands"][-1]
    assert f"--dashboard-host={LOOPBACK}" in start
    assert "RAY_AUTH_TOKEN" not in (ROOT / "cluster" / f"{place}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("place", ["aws", "gcp"])
def test_the_head_takes_no_work_and_groups_keep_their_bounds(place: str) -> None:
    """Workers with GPUs run the image with CUDA."""
    config = shipped(place)
    types = config["available_node_types"]
    assert config["head_node_type"] == "head"
    assert types["head"]["resources"] == {"CPU": 0}
    assert config["max_workers"] == 20
    assert [(types[name]["min_workers"], types[name]["max_workers"]) for name in ("cpu", "gpu")] == [(1, 16), (0, 4)]
    assert [types[name]["resources"] for name in ("cpu", "gpu")] == [{"CPU": 16}, {"CPU": 48, "GPU": 4}]
    images = [types[name]["docker"]["worker_image"] for name in ("cpu", "gpu")]
    assert images == [SETTINGS.images.cpu, SETTINGS.images.cuda]
    assert config["provider"]["cache_stopped_nodes"] is False  # a disk with people's pictures is not left behind


def test_spot_is_for_workers_that_may_be_lost() -> None:
    """Never for the head, and for a group only where it says so."""
    types = {place: shipped(place)["available_node_types"] for place in ("aws", "gcp")}
    assert [n for n, t in types["aws"].items() if "InstanceMarketOptions" in t["node_config"]] == ["cpu", "gpu"]
    spots = {n: t["node_config"].get("scheduling", {}).get("provisioningModel") for n, t in types["gcp"].items()}
    assert spots == {"head": None, "cpu": "SPOT", "gpu": "SPOT"}
    assert types["gcp"]["gpu"]["node_config"]["scheduling"]["onHostMaintenance"] == "TERMINATE"
    steady = SETTINGS.model_copy(
        update={"groups": tuple(g.model_copy(update={"spot": False}) for g in SETTINGS.groups)}
    )
    assert steady.aws
    assert "spot" not in str(aws_config(steady, steady.aws))


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """AWS as moto knows it: its real instance types, an account with the nodes' role and no instance."""
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray leaves a key there
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    (tmp_path / ".ssh").mkdir()
    with mock_aws():
        iam = boto3.client("iam", region_name="us-west-2")
        iam.create_role(RoleName="idia-node", AssumeRolePolicyDocument="{}")
        iam.create_instance_profile(InstanceProfileName="idia-node")
        iam.add_role_to_instance_profile(InstanceProfileName="idia-node", RoleName="idia-node")
        yield


@pytest.mark.usefixtures("aws")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_aws_has_the_machines_that_the_settings_speak_of() -> None:
    """CPUs and GPUs of each type are the group's, by AWS's own list."""
    config = prepare_config(shipped("aws"))
    claimed = {name: kind["resources"] for name, kind in config["available_node_types"].items()}
    bare = copy.deepcopy(config)
    for kind in bare["available_node_types"].values():
        kind["resources"] = {}
    found = _get_node_provider_cls(config["provider"]).fillout_available_node_types_resources(bare)
    for group in SETTINGS.groups:
        resources = found["available_node_types"][group.name]["resources"]
        assert {key: resources[key] for key in claimed[group.name]} == claimed[group.name]
        assert resources["memory"] < group.memory_gib * 2**30


@pytest.mark.usefixtures("aws")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ray_starts_the_instances_on_aws() -> None:
    """Through Ray's own set-up of keys, subnets and firewall: a worker is a spot instance with an encrypted disk."""
    provider = _get_node_provider_cls(shipped("aws")["provider"])
    config = provider.bootstrap_config(prepare_config(shipped("aws")))
    assert {kind["node_config"]["IamInstanceProfile"]["Name"] for kind in config["available_node_types"].values()} == {
        "idia-node"
    }
    nodes = provider(config["provider"], config["cluster_name"])
    nodes.create_node(config["available_node_types"]["gpu"]["node_config"], {"ray-node-kind": "worker"}, 1)
    reservations = boto3.client("ec2", region_name="us-west-2").describe_instances()["Reservations"]
    started = [instance for reservation in reservations for instance in reservation["Instances"]]
    assert [instance["InstanceType"] for instance in started] == ["g6.12xlarge"]
    assert {instance["InstanceLifecycle"] for instance in started} == {"spot"}
    disks = boto3.client("ec2", region_name="us-west-2").describe_volumes()["Volumes"]
    assert {(disk["Size"], disk["Encrypted"]) for disk in disks} == {(200, True)}


def test_machines_by_ssh_share_their_folder_with_the_containers() -> None:
    """A bucket needs none."""
    assert SETTINGS.local
    config = local_config(SETTINGS, SETTINGS.local)
    assert config["docker"]["image"] == SETTINGS.images.cuda
    assert "-v /srv/idia:/srv/idia" in config["docker"]["run_options"]
    assert (config["provider"]["head_ip"], config["max_workers"]) == ("node01.example.org", 2)
    alone = local_config(SETTINGS, Local(head="10.0.0.1", ssh_user="me", storage="s3://bucket/idia"))
    assert not [option for option in alone["docker"]["run_options"] if option.startswith("-v")]
    assert prepare_config(alone)["available_node_types"]["local.cluster.node"]["max_workers"] == 0
