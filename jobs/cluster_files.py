"""`idia cluster`: the configs of a cluster, made from its settings."""

from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from cluster.files import cluster_files
from cluster.settings import load_settings, pinned_version
from cluster.torchrun import PROJECT_ROOT

SETTINGS = Path("cluster/settings.yaml")

app = typer.Typer(no_args_is_help=True, help="Configs for Kubernetes, Slurm, AWS, Google Cloud and machines by SSH.")
SettingsFile = Annotated[Path, typer.Option("--settings", metavar="FILE", help="What they are made from.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where they are written.")]


@app.command(epilog="Example: idia cluster write --settings my_cluster.yaml --out my_cluster/")
def write(settings: SettingsFile = SETTINGS, out: Out = Path("cluster")) -> None:
    """Write the config of every place that the settings name."""
    files = _files(settings)
    out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (out / name).write_text(text, encoding="utf-8")
        typer.echo(str(out / name))


@app.command(epilog="Example: idia cluster check")
def check(settings: SettingsFile = SETTINGS, out: Out = Path("cluster")) -> None:
    """Name every config that is not what the settings make; exit code 1 where there is one."""
    stale = [name for name, text in _files(settings).items() if _text(out / name) != text]
    for name in stale:
        typer.echo(f"{out / name} is not what {settings} makes; run `idia cluster write`")
    if stale:
        raise typer.Exit(1)


def _files(settings: Path) -> dict[str, str]:
    return cluster_files(load_settings(settings), ray_version(), settings.as_posix())


def ray_version() -> str:
    """The version that `constraints.txt` pins, as in the images; the one installed where there is no such file."""
    constraints = PROJECT_ROOT / "constraints.txt"
    if not constraints.exists():
        return metadata.version("ray")
    return pinned_version(constraints.read_text(encoding="utf-8"), "ray")


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None
