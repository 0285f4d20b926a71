"""The one small file from which every config of `cluster/` is made."""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from idia_core.config import Strict, parse_yaml, suggest, validate
from idia_core.errors import ConfigError, MissingInputError

LOOPBACK = "127.0.0.1"
Name = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]{0,22}[a-z0-9])?$")]
"""A name that Kubernetes, AWS and Google Cloud all take, with room for what they append to it."""
Image = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][\w./:@-]*$")]
Words = Annotated[str, StringConstraints(pattern=r"^[\w./:@+=~-]+$")]
"""What stands in a command line as it is."""
Folder = Annotated[str, StringConstraints(pattern=r"^/[\w./-]+$")]
"""An absolute path that every node sees."""


def _no_secret(url: object) -> object:
    """Raise `ConfigError`, which does not repeat it, for a URL that may hold a password or a signature."""
    if isinstance(url, str) and "://" in url and ("@" in url or "?" in url):
        fix = "Write the bucket alone, and give the nodes a role that may read and write there."
        raise ConfigError("a storage's URL holds more than a bucket and a path", "settings, storage", fix)
    return url


S3 = Annotated[str, BeforeValidator(_no_secret), StringConstraints(pattern=r"^s3://[\w.-]+(/[\w./=-]*)?$")]
Gcs = Annotated[str, BeforeValidator(_no_secret), StringConstraints(pattern=r"^gs://[\w.-]+(/[\w./=-]*)?$")]


class Images(Strict):
    """Container images; `cluster/Dockerfile` builds both."""

    cpu: Image = "idia:cpu"
    """Of the head and of workers without GPUs."""
    cuda: Image = "idia:cuda"
    """Of workers with GPUs."""


class Machine(Strict):
    """What one node has."""

    cpus: Annotated[int, Field(ge=1)]
    """CPUs of a node."""
    memory_gib: Annotated[int, Field(ge=1)]
    """Main memory of a node, in GiB."""
    aws: Words | None = None
    """Its instance type on AWS."""
    gcp: Words | None = None
    """Its machine type on Google Cloud."""


class Group(Machine):
    """Workers of one kind; as many as there is work for, between `min` and `max`."""

    name: Name
    """What the kind is called."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of a node."""
    gcp_accelerator: Words | None = None
    """Google Cloud's name of the GPU."""
    min: Annotated[int, Field(ge=0)] = 0
    """Nodes that are always there; a stage counts the CPUs that it finds, so that 0 makes for a slow start."""
    max: Annotated[int, Field(ge=1)] = 1
    """The most nodes; the bound of what a study can cost in an hour."""
    spot: bool = False
    """Take nodes that the provider may take back; what they did not finish is done again by others."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.min > self.max:
            where = f"settings, group {self.name}"
            raise ConfigError(f"min {self.min} is above max {self.max}", where, "Lower min or raise max.")
        return self


class Kubernetes(Strict):
    """KubeRay 1.5.1 or later."""

    namespace: Name = "idia"
    """Where all of it lives."""
    storage: Folder | S3 | Gcs = "/data"
    """Where studies write: a folder, for which a volume is claimed, or a bucket."""
    volume_gib: Annotated[int, Field(ge=1)] = 1000
    """Size of the volume, in GiB; used where `storage` is a folder."""
    storage_class: Words | None = None
    """Of the volume; it must offer ReadWriteMany. The cluster's default when not given."""


class Slurm(Strict):
    """Nodes of one kind in one allocation; the first is the head as well."""

    group: Name
    """Which group's CPUs, memory and GPUs a node has."""
    nodes: Annotated[int, Field(ge=1)] = 1
    """Nodes of the allocation."""
    hours: Annotated[int, Field(ge=1)] = 24
    """The job's limit; a study that needs longer queues itself again and goes on."""
    requeues: Annotated[int, Field(ge=0)] = 30
    """How often it may do so."""
    storage: Folder
    """Where studies write: a folder on a file system that all nodes share."""
    setup: tuple[str, ...] = ()
    """Shell lines that put `python`, `ray` and `idia` on the PATH, such as `source venv/bin/activate`."""
    options: tuple[Annotated[str, StringConstraints(pattern=r"^--[^\n]+$")], ...] = ()
    """More options of sbatch, such as `--partition=gpu`."""


class Aws(Strict):
    """Ray's cluster launcher on AWS."""

    region: Words
    """Where the nodes are; best where the bucket is."""
    zones: tuple[Words, ...] = ()
    """Availability zones, in the order in which they are tried; the more, the easier spot nodes are had."""
    ami: Annotated[str, StringConstraints(pattern=r"^(ami-[0-9a-f]+|resolve:ssm:[\w./-]+)$")]
    """Machine image with Docker and, for GPUs, NVIDIA's driver and container toolkit."""
    instance_profile: Words
    """Role of the nodes: may read and write the bucket and, for the head, start and end instances."""
    storage: S3
    """Where studies write."""
    disk_gib: Annotated[int, Field(ge=50)] = 200
    """Disk of a node, in GiB."""


class Gcp(Strict):
    """Ray's cluster launcher on Google Cloud."""

    project: Words
    """The project that pays."""
    region: Words
    """Where the nodes are; best where the bucket is."""
    zone: Words
    """A zone of the region that has the machine types."""
    image: Annotated[str, StringConstraints(pattern=r"^projects/[\w./-]+$")]
    """Machine image with Docker and, for GPUs, NVIDIA's driver and container toolkit."""
    service_account: Annotated[str, StringConstraints(pattern=r"^[\w.-]+@[\w.-]+$")]
    """Account of the nodes: may read and write the bucket and, for the head, start and end instances."""
    storage: Gcs
    """Where studies write."""
    disk_gib: Annotated[int, Field(ge=50)] = 200
    """Disk of a node, in GiB."""


class Local(Strict):
    """Ray's cluster launcher on machines that are there, reached by SSH; each has Docker."""

    head: Words
    """Name or address of the head."""
    workers: tuple[Words, ...] = ()
    """Names or addresses of the others."""
    ssh_user: Words
    """Who logs in there."""
    storage: Folder | S3 | Gcs
    """Where studies write: a folder that all of them share, or a bucket."""


class ClusterSettings(Strict):
    """A cluster for idia; a config is made for every section that is given."""

    name: Name = "idia"
    """What the cluster is called."""
    study: Words = "demo.yaml"
    """What a job of Kubernetes or Slurm runs: a study of idia's own by name, a path that the nodes see, or a URL."""
    images: Images = Images()
    """Container images; Slurm uses none."""
    python: Annotated[str, StringConstraints(pattern=r"^3\.1[1-9]$")] = "3.11"
    """Python in the images."""
    auth: bool = True
    """Ask everybody who talks to Ray for the token."""
    dashboard_host: Words = LOOPBACK
    """Where dashboard and job server listen; another address is on the network. On Kubernetes it is the pod's own,
    closed by a network policy."""
    idle_minutes: Annotated[int, Field(ge=1)] = 5
    """After how long without work a node above `min` is given back."""
    head: Machine
    """The node of the driver; it does no other work."""
    groups: tuple[Group, ...] = Field(min_length=1)
    """The kinds of workers."""
    kubernetes: Kubernetes | None = None
    slurm: Slurm | None = None
    aws: Aws | None = None
    gcp: Gcp | None = None
    local: Local | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = [group.name for group in self.groups]
        if len(set(names)) < len(names) or "head" in names:
            fix = "Rename it; 'head' is taken."
            raise ConfigError(f"a name is given twice among head, {', '.join(names)}", "settings, groups", fix)
        if self.slurm and self.slurm.group not in names:
            raise ConfigError(f"there is no group '{self.slurm.group}'", "settings, slurm", suggest("", names))
        for provider in ("aws", "gcp"):
            for name, machine in self._machines():
                if getattr(self, provider) and getattr(machine, provider) is None:
                    fix = f"Add its machine type as `{provider}`, or remove the section `{provider}`."
                    raise ConfigError(f"{name} has no machine type", f"settings, {provider}", fix)
        for group in self.groups:
            if self.gcp and group.gpus and group.gcp_accelerator is None:
                raise ConfigError(f"{group.name} has GPUs of no kind", "settings, gcp", "Add its `gcp_accelerator`.")
        if not self.auth and self.dashboard_host != LOOPBACK:
            what = "a dashboard on the network without a token lets everybody run code"
            raise ConfigError(what, "settings, dashboard_host", "Leave auth on.")
        return self

    def _machines(self) -> list[tuple[str, Machine]]:
        return [("head", self.head), *((group.name, group) for group in self.groups)]

    def image_of(self, group: Group) -> str:
        """The container image of a group's workers."""
        return self.images.cuda if group.gpus else self.images.cpu

    def out(self, storage: str) -> str:
        """Where the study writes in `storage`."""
        study = self.study.rstrip("/").rsplit("/", 1)[-1]
        return f"{storage.rstrip('/')}/{study.removesuffix('.yaml')}"


def load_settings(path: Path) -> ClusterSettings:
    """Read a settings file; `MissingInputError` where there is none, `ConfigError` for what it does not understand."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        fix = "Copy cluster/settings.yaml and change it."
        raise MissingInputError(f"no settings at '{path}'", "--settings", fix) from None
    return validate(ClusterSettings, parse_yaml(text, str(path)), f"settings {path}")


def pinned_version(constraints: str, package: str) -> str:
    """The version that pip's constraints pin a package to: `2.60.0`."""
    found = re.search(rf"(?mi)^{re.escape(package)}==(\S+)$", constraints)
    if found is None:
        raise ConfigError(f"'{package}' is not pinned", "constraints.txt", f"Add {package}==VERSION.")
    return found[1]
