"""`idia doctor`: looks at a machine, a storage and a cluster before hours are spent on them."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.torchrun import PROJECT_ROOT
from idia_core.storage import as_path, is_local
from jobs import checks
from jobs.checks import Finding, Status

COLOURS = {Status.OK: "green", Status.WARNING: "yellow", Status.ERROR: "red"}
TOKEN = Path("~/.ray/auth_token")
"""Where Ray looks for the token when no variable says otherwise."""


def doctor(
    storage: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="A folder or bucket to try; may be repeated.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A cluster to try: http://HEAD:8265 of its job server, or HOST:PORT of Ray.")
    ] = None,
) -> None:
    """Check Python, versions, GPUs, disk, caches, file permissions and, where given, storages and a cluster.

    Exit code 1 where there is an error; warnings do not count.
    """
    findings = list(examine(storage or [], address))
    print_findings(findings, Console())
    if any(finding.status is Status.ERROR for finding in findings):
        raise typer.Exit(1)


def examine(storages: list[str], address: str | None) -> Iterator[Finding]:
    """Every finding, one after the other; what takes longest comes last."""
    yield checks.python_found()
    constraints = PROJECT_ROOT / "constraints.txt"
    pins = constraints.read_text(encoding="utf-8") if constraints.exists() else None
    yield checks.packages_found(pins, {d.name: d.version for d in metadata.distributions() if d.name})
    yield _gpus()
    folder = Path(tempfile.gettempdir())
    yield checks.disk_found(folder, shutil.disk_usage(folder).free)
    yield from _caches()
    yield from _private(storages)
    for url in storages:
        yield checks.storage_found(url)
    if address:
        look = checks.jobs_found if "://" in address else checks.head_found
        yield look(address, token_here())


def token_here() -> str | None:
    """The token that Ray would use here: a variable's, that of the file another one names, or the user's own."""
    if text := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return text
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or TOKEN).expanduser()
    return file.read_text(encoding="utf-8").strip() or None if file.exists() else None


def print_findings(findings: list[Finding], console: Console) -> None:
    """A table of them, and then how to mend what is wrong, each in a line that can be copied."""
    table = Table(box=None, pad_edge=False)
    for column in ("check", "", "found"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        status = f"[{COLOURS[finding.status]}]{finding.status}[/]"
        table.add_row(finding.check, status, escape(finding.what))
    console.print(table)
    for finding in findings:
        if finding.fix:
            console.print(f"{finding.check}: {finding.fix}", soft_wrap=True, highlight=False, markup=False)


def _gpus() -> Finding:
    import torch  # noqa: PLC0415 - seconds that `--help` need not wait for

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    driver = Path("/proc/driver/nvidia/version").exists()
    return checks.gpus_found(names, torch.version.cuda, driver=driver)


def _caches() -> Iterator[Finding]:
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in {"", "0"}
    weights = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    yield checks.cache_found("weights", weights, offline=offline)
    own = Path(os.environ.get("IDIA_CACHE", "~/.cache/idia")).expanduser()
    yield checks.cache_found("cache", own, offline=False)


def _private(storages: list[str]) -> Iterator[Finding]:
    """Folders with people's pictures and names, and the token."""
    places = [Path(as_path(url).path) for url in storages if is_local(as_path(url))]
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or TOKEN).expanduser()
    for name, path, forbidden in (*(("folder", place, 0o007) for place in places), ("token", token, 0o077)):
        if finding := checks.mode_found(name, path, forbidden):
            yield finding
