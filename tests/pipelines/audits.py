"""Small audits for tests: drawn people, a tiny model with random weights, and how they are run."""

import hashlib
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from rich.console import Console

from idia_core.config import Study
from idia_core.drawing import draw_face, invent_people
from idia_core.identities import IDENTITIES, PICTURES
from jobs.plan import PlannedStage
from jobs.run import run_study

QUIET = Console(quiet=True)
NAMES = ("Ann Lee", "Bob Ray", "Zoë Ball", "Joe B. Kern", "Ida Moss")
TEMPLATES = ("{0}", "a photo of {0}", "{0} on a photo")


def write_people(folder: Path, names: tuple[str, ...], seed: int, pictures: int = 3) -> None:
    """`identities` and `pictures` of drawn people, women and men in turn; the first one's last picture is broken."""
    sexes = ["FM"[place % 2] for place in range(len(names))]
    rows = []
    for place, person in enumerate(invent_people(len(names), seed, sexes)):
        for number in range(pictures):
            stream = io.BytesIO()
            Image.fromarray(draw_face(person, [seed, place, number])).save(stream, "JPEG")
            content = stream.getvalue()[:200] if (place, number) == (0, pictures - 1) else stream.getvalue()
            rows.append({"identity": names[place], "picture": f"{number}.jpg", "status": "ok", "image": content})
    for table in ("identities", "pictures"):
        (folder / table).mkdir(parents=True, exist_ok=True)
    people = [{"identity": name, "name": name, "sex": sex} for name, sex in zip(names, sexes, strict=True)]
    pq.write_table(pa.Table.from_pylist(people, IDENTITIES), folder / "identities/part.parquet")
    pq.write_table(pa.Table.from_pylist(rows, PICTURES), folder / "pictures/part.parquet", row_group_size=4)


def study(root: Path, out: str, models: list[str], **fields: Any) -> Study:
    """An attack on those models about the people in `root`/people, judged; written to `root`/`out`."""
    inputs = {
        "models": "models.models",
        "identities": str(root / "people/identities"),
        "pictures": str(root / "people/pictures"),
    }
    attack = {"inputs": inputs | fields.pop("inputs", {}), "candidates": 20, "templates": list(TEMPLATES)} | fields
    judge = {field: f"attack.{field}" for field in ("asked", "names", "votes", "panel", "panel_votes")}
    stages = {
        "models": {"models": models},
        "attack": attack,
        "judge": {"inputs": judge | {"models": "models.models"}, "rules": {"min_pictures": 1}},
    }
    return Study(name="test", out=str(root / out), stages=stages)


def attack(root: Path, out: str, models: list[str], **fields: Any) -> dict[str, PlannedStage]:
    """Run that study to its end."""
    return run_study(study(root, out, models, **fields), QUIET)


def tables(folder: Path, *names: str) -> dict[str, str]:
    """The hash of every file of those tables of the attack."""
    files = [file for name in names for file in sorted((folder / "attack" / name).rglob("*")) if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
