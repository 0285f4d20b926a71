"""Studies as jobs of a Ray cluster: submitted once, listed, followed and stopped through its job server."""

import asyncio
import contextlib
import logging
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from idia_core.config import Study, suggest
from idia_core.errors import ClusterError, UsageError
from jobs.package import STUDY, Package, check_places, identity_of_submission, pack, requirements

STUDY_FIELD = "idia_study"
"""Of a job's metadata: the study's name. Jobs without it are not ours."""
OUT_FIELD = "idia_out"
OVERRULING = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
"""Ray would take these before the address that it is given."""
PACKED = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"
"""Where what was sent lies on a node, when packages are installed there."""
RUN = ("python", "-c", "from jobs.cli import main; main()", "run", STUDY, "--address", "auto")
POLL_SECONDS, SECONDS_TO_STOP = 0.2, 30.0
TRIES_TO_FOLLOW, PAUSE_SECONDS = 5, 2.0
NOT_READY, SECONDS_TO_BE_READY = "No available agent", 60.0
"""What a head says that has started and cannot run a job yet, and how long it may say so."""


class Environment(NamedTuple):
    """Where the packages that `idia` needs come from; from what is on the nodes when nothing is given."""

    image: str | None = None
    """A container image, by Ray's `image_uri`."""
    install: bool = False
    """Install the versions of `constraints.txt` on each node, once."""


class Submitted(NamedTuple):
    """A study's job, and whether it was running already."""

    job: str
    attached: bool
    package: Package


def connect(address: str) -> JobSubmissionClient:
    """A client of the job server at an address such as `http://127.0.0.1:8265`.

    Raises `ClusterError` where none answers, or where it refuses the token.
    """
    for name in OVERRULING:
        os.environ.pop(name, None)
    logging.disable(logging.INFO)  # Ray's client tells of each connection that it closes
    with _told(address):
        return JobSubmissionClient(address)


@contextlib.contextmanager
def _told(address: str) -> Iterator[None]:
    """Turn what Ray's client raises into `ClusterError`."""
    try:
        yield
    except AuthenticationError as error:
        fix = "Put the cluster's token into the file that RAY_AUTH_TOKEN_PATH names, and set RAY_AUTH_MODE=token."
        raise ClusterError(str(error.message).partition("\n")[0].rstrip("."), address, fix) from None
    except (ConnectionError, requests.RequestException, aiohttp.ClientError) as error:
        fix = "Is it the dashboard's address, and is its port forwarded to this machine?"
        raise ClusterError(f"no job server answers: {error}".rstrip("."), address, fix) from None
    except (RuntimeError, ValueError) as error:  # how the client tells of any other answer, and of an address
        raise ClusterError(f"the job server refuses: {error}".rstrip("."), address) from None


def submit(client: JobSubmissionClient, study: Study, words: Sequence[str], environment: Environment) -> Submitted:
    """Submit the study, or find the job that runs it already; `words` are further ones of `idia run`.

    A study is the same when its settings and the words are. One whose job has ended gets another job, which goes on
    from what is done. Raises `ConfigError` for a study whose files only this machine would see.
    """
    check_places(study)
    name = identity_of_submission(study, words)
    with tempfile.TemporaryDirectory(prefix="idia-submit-") as folder, _told(client.get_address()):
        package = pack(study, Path(folder))
        mine = [job for job in client.list_jobs() if str(job.submission_id).rpartition("-")[0] == name]
        for job in mine:
            if not job.status.is_terminal():
                return Submitted(str(job.submission_id), attached=True, package=package)
        wanted = {
            "entrypoint": f"exec {shlex.join([*RUN, *words])}",
            "submission_id": f"{name}-{len(mine) + 1}",
            "runtime_env": _runtime_env(folder, environment),
            "metadata": {STUDY_FIELD: study.name, OUT_FIELD: study.out},
        }
        return Submitted(_submit(client, wanted), attached=False, package=package)


def _submit(client: JobSubmissionClient, wanted: dict[str, Any]) -> str:
    """Submit a job; a head that has just started may need a moment until it takes any."""
    end = time.monotonic() + SECONDS_TO_BE_READY
    while True:
        try:
            return client.submit_job(**wanted)
        except RuntimeError as error:
            if NOT_READY not in str(error) or time.monotonic() > end:
                raise
        time.sleep(PAUSE_SECONDS)


def _runtime_env(folder: str, environment: Environment) -> dict[str, Any]:
    found: dict[str, Any] = {"working_dir": folder}
    if environment.image:
        found["image_uri"] = environment.image
    if environment.install:
        found["pip"] = {"packages": [*requirements(), f"--constraint {PACKED}/constraints.txt"]}
    return found


def our_jobs(client: JobSubmissionClient) -> list[JobDetails]:
    """The jobs that run studies, the newest first."""
    with _told(client.get_address()):
        found = [job for job in client.list_jobs() if STUDY_FIELD in (job.metadata or {})]
    return sorted(found, key=lambda job: job.start_time or 0, reverse=True)


def status_of(client: JobSubmissionClient, job: str) -> JobStatus:
    """How a job is; `UsageError` where there is none of that name."""
    with _told(client.get_address()):
        known = {str(found.submission_id): found.status for found in client.list_jobs()}
    if job not in known:
        raise UsageError(f"there is no job '{job}'", client.get_address(), suggest(job, list(known)))
    return known[job]


def stop(client: JobSubmissionClient, job: str) -> JobStatus:
    """Stop a job and wait until it has; what its study has done stays.

    Raises `ClusterError` where it has not stopped after half a minute.
    """
    if (status := status_of(client, job)).is_terminal():
        return status
    with _told(client.get_address()):
        client.stop_job(job)
    end = time.monotonic() + SECONDS_TO_STOP
    while not (status := status_of(client, job)).is_terminal():
        if time.monotonic() > end:
            raise ClusterError(f"the job did not stop in {SECONDS_TO_STOP:.0f} s", job, "See `idia logs`.")
        time.sleep(POLL_SECONDS)
    return status


def logs(client: JobSubmissionClient, job: str) -> str:
    """All that a job has said so far."""
    status_of(client, job)
    with _told(client.get_address()):
        return str(client.get_job_logs(job))


def follow(client: JobSubmissionClient, job: str, say: Callable[[str], None]) -> JobStatus:
    """Say what a job has said and says, to its end; returns how that was.

    A connection that breaks is made again, and nothing is said twice. Raises `ClusterError` when that fails too.
    """
    said, broken = 0, 0

    async def tail() -> None:
        nonlocal said, broken
        place = 0
        async for text in client.tail_job_logs(job):  # from the first character
            place += len(text)
            if place > said:
                say(text[said - place :])
                said, broken = place, 0

    status_of(client, job)
    while True:
        try:
            with _told(client.get_address()):
                asyncio.run(tail())
            if (status := status_of(client, job)).is_terminal():
                return status
        except ClusterError:
            broken += 1
            if broken > TRIES_TO_FOLLOW:
                raise
        time.sleep(PAUSE_SECONDS)
