"""`idia submit`, `jobs`, `logs` and `stop`: studies on a Ray cluster, from a machine that may go to sleep."""

import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from jobs import options

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

Address = Annotated[
    str, typer.Option(metavar="URL", envvar="RAY_API_SERVER_ADDRESS", help="The cluster's dashboard, port and all.")
]
Job = Annotated[str, typer.Argument(metavar="JOB", help="As `idia jobs` lists it.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Print what the job says until it ends.")]
LOCAL = "http://127.0.0.1:8265"


def submit(
    study: options.StudyFile,
    stages: Annotated[list[str] | None, typer.Argument(help="Only these stages.")] = None,
    settings: options.Settings = None,
    retry_failed: options.RetryFailed = False,
    follow: Follow = False,
    image: Annotated[
        str | None, typer.Option(help="A container image that has idia's packages, where the nodes have not.")
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Install the packages on the nodes, in the versions of constraints.txt.")
    ] = False,
    address: Address = LOCAL,
) -> None:
    """Run a study on a Ray cluster: as `idia run` does, with nobody here waiting for it.

    A study that runs already is found, not submitted twice. One that was stopped or failed goes on from what is done.
    Its files must be where all nodes see them.
    """
    from jobs import submission  # noqa: PLC0415 - loads Ray, which `--help` should not wait for

    words = [*(stages or []), *(["--retry-failed"] if retry_failed else [])]
    client = submission.connect(address)
    environment = submission.Environment(image, install)
    done = submission.submit(client, options.load(study, settings), words, environment)
    size = f"{done.package.files} files, {done.package.bytes / 1e6:.1f} MB of code"
    typer.echo(f"{done.job} runs it already" if done.attached else f"{done.job} submitted ({size})", err=True)
    if follow:
        _follow(client, done.job)
    else:
        typer.echo(f"Follow it: idia logs {done.job} --follow --address {address}", err=True)
        typer.echo(done.job)


def jobs(address: Address = LOCAL) -> None:
    """List the studies that a Ray cluster runs or has run."""
    from jobs import submission  # noqa: PLC0415

    table = Table("job", "study", "status", "started", "minutes", "out", box=None)
    for job in submission.our_jobs(submission.connect(address)):
        fields = job.metadata or {}
        names = str(job.submission_id), fields[submission.STUDY_FIELD], job.status.value.lower()
        table.add_row(*names, *_times(job), fields[submission.OUT_FIELD])
    wide = None if os.isatty(1) else 200  # so that other tools get a line a job
    Console(width=wide).print(table)


def _times(job: "JobDetails") -> tuple[str, str]:
    """When a job started, and the minutes that it ran."""
    begun = datetime.fromtimestamp((job.start_time or 0) / 1000, UTC).astimezone()
    ended = datetime.fromtimestamp(job.end_time / 1000, UTC) if job.end_time else datetime.now(UTC)
    return f"{begun:%Y-%m-%d %H:%M}", f"{(ended - begun).total_seconds() / 60:.1f}"


def logs(job: Job, follow: Follow = False, address: Address = LOCAL) -> None:
    """Print what a study's job has said; with `--follow` to its end, and exit code 1 unless it succeeds."""
    from jobs import submission  # noqa: PLC0415

    client = submission.connect(address)
    if follow:
        _follow(client, job)
    else:
        typer.echo(submission.logs(client, job), nl=False)


def stop(job: Job, address: Address = LOCAL) -> None:
    """Stop a study's job. What is done stays: submit the study again to go on."""
    from jobs import submission  # noqa: PLC0415

    client, began = submission.connect(address), time.monotonic()
    status = submission.stop(client, job)
    typer.echo(f"{job} {status.value.lower()} after {time.monotonic() - began:.1f} s", err=True)


def _follow(client: "JobSubmissionClient", job: str) -> None:
    from jobs.submission import follow  # noqa: PLC0415

    status: JobStatus = follow(client, job, lambda text: typer.echo(text, nl=False))
    typer.echo(f"{job} {status.value.lower()}", err=True)
    if status != "SUCCEEDED":
        raise typer.Exit(1)
