"""The Dockerfile of idia's images, and what its build may see."""

from cluster.kuberay import HOME, USER
from cluster.settings import ClusterSettings

EXTRAS = "cluster,download,gcs,s3"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""Where torch without CUDA is; PyPI's brings CUDA with it, so that the image for GPUs needs the host's driver alone."""
SEEN = ("cluster", "idia_core", "jobs", "pipelines", "constraints.txt", "LICENSE", "pyproject.toml", "README.md")
"""What the image is made of; data and results that lie beside it never enter a build."""

_TEXT = """\
FROM python:{python}-slim-bookworm AS base
# rsync and the SSH client are for Ray's cluster launcher, wget for the probes of KubeRay; all as Debian has them.
# hadolint ignore=DL3008
RUN apt-get update \\
    && apt-get install --yes --no-install-recommends openssh-client rsync wget \\
    && rm -rf /var/lib/apt/lists/* \\
    && useradd --create-home --home-dir {home} --uid {user} idia \\
    && install --directory --owner idia --group idia --mode 700 {home}/.ray
ENV HOME={home} {auth}PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0
WORKDIR /opt/idia
COPY constraints.txt ./

FROM base AS cpu
RUN pip install --constraint constraints.txt --index-url {index} torch torchvision
COPY . .
RUN pip install --constraint constraints.txt ".[{extras}]"
USER {user}
WORKDIR {home}
CMD ["idia", "--help"]

FROM base AS cuda
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility NVIDIA_VISIBLE_DEVICES=all
RUN pip install --constraint constraints.txt torch torchvision
COPY . .
RUN pip install --constraint constraints.txt ".[{extras}]"
USER {user}
WORKDIR {home}
CMD ["idia", "--help"]
"""


def dockerfile(settings: ClusterSettings) -> str:
    """A target `cpu` and a target `cuda`; neither runs as root, and Ray in them asks for a token."""
    auth = "RAY_AUTH_MODE=token " if settings.auth else ""
    return _TEXT.format(python=settings.python, home=HOME, user=USER, auth=auth, index=CPU_INDEX, extras=EXTRAS)


def dockerignore() -> str:
    """What Docker sends to the build: nothing but the code."""
    return "".join(f"{line}\n" for line in ["*", *(f"!{name}" for name in SEEN), "**/__pycache__"])
