"""The options that several commands have, and the many of `idia audit`."""

from importlib import resources
from typing import Annotated, Literal

import typer
from upath import UPath

from idia_core.config import Study, load_study

StudyFile = Annotated[
    str, typer.Argument(metavar="STUDY.yaml", help="A study: path, URL, or one of idia's own by name.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="STAGE.FIELD=VALUE", help="Change a field; may be repeated.")
]
Table = Annotated[str, typer.Argument(metavar="STAGE.TABLE", help="For example judge.verdicts.")]
Address = Annotated[str | None, typer.Option(help="A running Ray cluster; Ray is started here when not given.")]
Tolerate = Annotated[
    int | None,
    typer.Option(
        "--tolerate-failed-inputs",
        metavar="N",
        min=0,
        help="Let `scan` and `shards` go on without up to N unreadable files.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would run, and why; run nothing.")]

RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Let stages that fetch try again what failed and may have changed.")
]
Launcher = Annotated[
    Literal["ray", "slurm"], typer.Option(help="What trains: Ray, or Slurm by a script for each run of `train`.")
]
Submit = Annotated[bool, typer.Option("--submit", help="Submit Slurm's scripts rather than print them.")]
Sbatch = Annotated[list[str] | None, typer.Option(metavar="OPTION", help="One more option of sbatch; may be repeated.")]

Models = Annotated[
    list[str],
    typer.Option(
        metavar="MODEL",
        help="ARCHITECTURE:PRETRAINED, ARCHITECTURE:CHECKPOINT.pt, local-dir:FOLDER, hf-hub:OWNER/NAME or a black "
        "box's URL; may be repeated.",
    ),
]
People = Annotated[
    str,
    typer.Option(help="A folder with a sub-folder of pictures for each person, FaceScrub's folders, CSV or Parquet."),
]
Panel = Annotated[
    str | None, typer.Option(help="Other people's pictures, at least 200 people: to see whom else a name is given.")
]
Out = Annotated[str, typer.Option(help="Where to write.")]
NameFiles = Annotated[
    tuple[str, str] | None,
    typer.Option(metavar="FIRST LAST", help="Files of first names (Social Security) and last names (Census)."),
]
ByLocale = Annotated[bool, typer.Option(help="Ask for people with a `locale` in the table among names of that locale.")]
Candidates = Annotated[int, typer.Option(min=2, help="Names to choose from.")]
Threshold = Annotated[int, typer.Option(min=1, help="tau: templates whose majority must be the real name.")]
Alpha = Annotated[float, typer.Option(help="The share of false findings that is put up with.")]
MinPictures = Annotated[int, typer.Option(min=1, help="Readable pictures that a finding needs.")]
Redact = Annotated[bool, typer.Option("--redact", help="Write codes for names and no pictures.")]
Device = Annotated[str, typer.Option(help="Where models run: cpu, cuda, cuda:1.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes; as the cluster allows if not given.")]
Questions = Annotated[int | None, typer.Option(min=1, help="The most questions to a black box.")]
PerSecond = Annotated[float | None, typer.Option(help="The most questions to a black box in a second.")]
TokenVariable = Annotated[
    str | None, typer.Option(metavar="VARIABLE", help="Environment variable that holds a black box's token.")
]
Seed = Annotated[int, typer.Option(min=0, help="Another seed, other candidate names.")]


def load(study: str, settings: list[str] | None) -> Study:
    """The study at a path or URL, or one of idia's own by its name."""
    given = UPath(study)
    if not given.exists() and "/" not in study:
        shipped = UPath(str(resources.files("jobs") / "studies" / f"{study.removesuffix('.yaml')}.yaml"))
        given = shipped if shipped.exists() else given
    return load_study(given, settings or [])
