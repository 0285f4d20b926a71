"""What can be wrong with a machine or a cluster before a study begins; each check says what is, and how to mend it."""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import requests

LEAST_PYTHON = (3, 11)
FULL_BYTES, TIGHT_BYTES = 2 << 30, 50 << 30
"""Free room below which nothing can be done, and below which a study of some size will not fit."""
SHOWN = 4
"""Of the packages whose versions differ."""
PROBE_SECONDS = 60.0
"""For how long a storage or a head may take to answer."""
INSTALL = "pip install --constraint constraints.txt --editable ."
TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


class Status(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    """A study may run, but slower, or not as it was tested."""
    ERROR = "error"
    """A study would fail, or others could get at it."""


@dataclass(frozen=True)
class Finding:
    """What a check found."""

    check: str
    status: Status
    what: str
    fix: str = ""
    """What to do about it; empty when all is well."""


def python_found(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    """Whether Python is new enough."""
    text = ".".join(map(str, version))
    if version[:2] < LEAST_PYTHON:
        return Finding("python", Status.ERROR, f"{text} is too old", "Make an environment with Python 3.11 or later.")
    return Finding("python", Status.OK, text)


def packages_found(constraints: str | None, installed: Mapping[str, str]) -> Finding:
    """Whether the versions are those that were tested together; packages that are not installed are not missed."""
    if constraints is None:
        return Finding("packages", Status.OK, f"{len(installed)}, with no constraints.txt to compare with")
    pins = {_plain(name): version for name, version in re.findall(r"(?m)^([\w.-]+)==(\S+)$", constraints)}
    have = {_plain(name): version.partition("+")[0] for name, version in installed.items()}
    both = sorted(pins.keys() & have.keys())
    others = [f"{name} {have[name]} for {pins[name]}" for name in both if have[name] != pins[name]]
    if others:
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        what = f"{len(others)} of {len(both)} are not as tested: {', '.join(others[:SHOWN])}{more}"
        return Finding("packages", Status.WARNING, what, INSTALL)
    return Finding("packages", Status.OK, f"{len(both)}, as in constraints.txt")


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def gpus_found(names: list[str], cuda: str | None, *, driver: bool) -> Finding:
    """Whether torch sees GPUs: their names, the CUDA that it was built for, and whether NVIDIA's driver is here."""
    if names:
        return Finding("gpus", Status.OK, f"{len(names)}: {', '.join(sorted(set(names)))}; CUDA {cuda}")
    if not driver:
        return Finding("gpus", Status.OK, "none; models run on the CPU")
    if cuda is None:
        fix = "Install torch from PyPI, which has CUDA."
        return Finding("gpus", Status.ERROR, "there is a driver, but torch was built without CUDA", fix)
    fix = "Look at nvidia-smi: the driver may be too old for that CUDA, or CUDA_VISIBLE_DEVICES empty."
    return Finding("gpus", Status.ERROR, f"there is a driver, but torch, of CUDA {cuda}, sees no GPU", fix)


def disk_found(folder: Path, free: int) -> Finding:
    """Whether there is room where temporary files, or a local study, go."""
    what = f"{free / 2**30:,.0f} GiB free at {folder}"
    if free < FULL_BYTES:
        return Finding("disk", Status.ERROR, what, "Make room, or set TMPDIR to a larger disk.")
    if free < TIGHT_BYTES:
        return Finding("disk", Status.WARNING, what, "Enough for the demo; make room before a study of real size.")
    return Finding("disk", Status.OK, what)


def storage_found(url: str) -> Finding:
    """Whether a file can be written, read and deleted there; tried by a process, so that one that hangs is ended."""
    command = [sys.executable, "-m", "jobs.storage_probe", url]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        what = f"no answer from {url} in {PROBE_SECONDS:g} seconds"
        return Finding("storage", Status.ERROR, what, "Check address, proxy and credentials.")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        fix = "Give a place where you may write; a bucket wants credentials or a role, and the extra s3 or gcs."
        return Finding("storage", Status.ERROR, f"{url}: {reason}", fix)
    return Finding("storage", Status.OK, f"{url}: {done.stdout.strip()}")


def mode_found(check: str, path: Path, forbidden: int) -> Finding | None:
    """Whether others have rights to what only its owner should see; None where there is nothing."""
    if not path.exists():
        return None
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & forbidden:
        wanted = "go-rwx" if forbidden & 0o050 else "o-rwx"
        return Finding(check, Status.WARNING, f"{path} is open to others ({mode:04o})", f"chmod {wanted} {path}")
    return Finding(check, Status.OK, f"{path} is closed to others ({mode:04o})")


def cache_found(name: str, folder: Path, *, offline: bool) -> Finding:
    """Whether what is fetched once, such as weights, can be kept; offline it has to be there already."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if not os.access(there, os.W_OK):
        fix = "Set HF_HOME and IDIA_CACHE to folders that can be written to."
        return Finding(name, Status.WARNING, f"{folder} cannot be written to", fix)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if offline and not size:
        fix = "Fetch the weights once without HF_HUB_OFFLINE, or give checkpoints by path."
        return Finding(name, Status.WARNING, f"{folder} is empty, and HF_HUB_OFFLINE is set", fix)
    return Finding(name, Status.OK, f"{size / 2**30:,.1f} GiB in {folder}")


def jobs_found(address: str, token: str | None) -> Finding:
    """Whether a job server answers, asks for a token, and takes ours; `address` is its URL."""
    url = f"{address.rstrip('/')}/api/jobs/"
    try:
        open_to_all = requests.get(url, timeout=PROBE_SECONDS).status_code
        ours = {"Authorization": f"Bearer {token}"} if token else {}
        told = requests.get(url, headers=ours, timeout=PROBE_SECONDS).status_code
    except requests.RequestException as error:
        fix = "Open the tunnel to the head (docs/cluster.md), or start the cluster."
        return Finding("ray", Status.ERROR, f"no job server at {address}: {type(error).__name__}", fix)
    if open_to_all == requests.codes.ok:
        what = f"{address} asks for no token: who reaches it can run code there"
        return Finding("ray", Status.ERROR, what, "Start Ray with RAY_AUTH_MODE=token, as the configs in cluster/ do.")
    if open_to_all not in {requests.codes.unauthorized, requests.codes.forbidden}:
        fix = "Give the URL of Ray's dashboard."
        return Finding("ray", Status.ERROR, f"{address} is no job server: it answers {open_to_all}", fix)
    if told != requests.codes.ok:
        what = f"{address} asks for a token, and {'ours is another' if token else 'there is none here'}"
        return Finding("ray", Status.ERROR, what, "Set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's.")
    return Finding("ray", Status.OK, f"{address} answers, and asks for the token")


def head_found(address: str, token: str | None) -> Finding:
    """Whether a head answers, asks for a token, and takes ours; `address` is its host and port."""
    bare = {name: value for name, value in os.environ.items() if name not in TOKEN_VARIABLES}
    if _healthy(address, bare | {"RAY_AUTH_MODE": "disabled"}):
        what = f"{address} asks for no token: who reaches it can run code there"
        return Finding("ray", Status.ERROR, what, "Start Ray with RAY_AUTH_MODE=token, as the configs in cluster/ do.")
    if token and _healthy(address, bare | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}):
        return Finding("ray", Status.OK, f"{address} answers, and asks for the token")
    what = f"no Ray at {address} that takes {'our token' if token else 'us, and there is no token here'}"
    fix = "Start it, or set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token."
    return Finding("ray", Status.ERROR, what, fix)


def _healthy(address: str, environment: dict[str, str]) -> bool:
    """True where a head answers in time to somebody with this environment."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=PROBE_SECONDS / 3, env=environment)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
