"""The p-values on simulated people whom the model knows nothing of, and the findings with members among them.

`python tests/idia_core/test_null_check.py FILE.png` draws the picture of docs/null_check.md.
Axes: F faces (the tested people, then the panel), P pictures of a face, N templates.
"""

import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure

from idia_core.attack import ASKED, PANEL, PANEL_VOTES, VOTES
from idia_core.figures import SERIES, STYLE, to_png
from idia_core.nulls import Audit
from idia_core.statistics import Rules, judge
from tests.soak import soak_count

PEOPLE, PANEL_PEOPLE, NAMES, PICTURES, TEMPLATES = 200, 500, 800, 8, 21
FAVOURITES = 24  # names that the model gives to every face; five of six are tested people's
AUDITS = 12  # with PEOPLE each
LEVELS = (0.01, 0.05, 0.1)
LINES = {"p_name": "name null", "p_face": "face null", "p_value": "p-value (the larger)"}


def _answers(rng: np.random.Generator, favourites: bool) -> npt.NDArray[np.int64]:
    """Names for every picture and template, [F, P, N]: each face has its own liking for some names of its sex.

    Even faces and names are women's. A picture leans to one of the names its face is given most; what is a favourite
    depends on the template.
    """
    faces = PEOPLE + PANEL_PEOPLE
    shape = (faces, PICTURES, TEMPLATES)
    sex_F = np.arange(faces) % 2
    liked = 2 * rng.integers(NAMES // 2, size=(faces, 50)) + sex_F[:, None]
    of_picture = rng.geometric(0.3, shape[:2])[:, :, None]
    rank = np.where(rng.random(shape) < 0.3, of_picture, rng.integers(1, 51, shape))
    answers_FPN = liked[np.arange(faces)[:, None, None], np.minimum(rank, 50) - 1]
    if favourites:
        tested = rng.choice(PEOPLE // 2, FAVOURITES * 5 // 12, replace=False)
        invented = rng.choice(np.arange(PEOPLE // 2, NAMES // 2), FAVOURITES // 12, replace=False)
        pairs = rng.permutation(np.concatenate([tested, invented]))
        of_template = (rng.geometric(0.3, shape) + np.arange(TEMPLATES) // 2) % len(pairs)
        answers_FPN = np.where(rng.random(shape) < 0.5, 2 * pairs[of_template] + sex_F[:, None, None], answers_FPN)
    return answers_FPN


def simulate(
    seed: int, *, favourites: bool, members: int = 0, unknown_sex: float = 0.0, panel_pictures: int = PICTURES
) -> Audit:
    """An audit of people of three to eight pictures, the panel's of three to `panel_pictures`.

    The first `members` are known: up to eight in ten of their votes, for some hardly any, are for their own names.
    """
    rng = np.random.default_rng(seed)
    answers_FPN = _answers(rng, favourites)
    faces = len(answers_FPN)
    known_F = np.where(np.arange(faces) < members, rng.random(faces) * 0.8, 0)[:, None, None]
    own_FPN = np.arange(faces)[:, None, None]
    answers_FPN = np.where(rng.random(answers_FPN.shape) < known_F, own_FPN, answers_FPN)
    pictures_F = rng.integers(3, np.where(np.arange(faces) < PEOPLE, PICTURES, panel_pictures) + 1)
    hidden = rng.random(PEOPLE) < unknown_sex
    sexes = [None if hide else "FM"[i % 2] for i, hide in enumerate(hidden)]
    names = [f"Name {k}" for k in range(NAMES)]
    sex_of_names = [*sexes, *("FM"[k % 2] for k in range(PEOPLE, NAMES))]
    is_tested = [k < PEOPLE for k in range(NAMES)]
    people, pools = [str(i) for i in range(faces)], ["all"] * NAMES
    asked = [people[:PEOPLE], names[:PEOPLE], sexes, pools[:PEOPLE], pictures_F[:PEOPLE].tolist()]
    votes = _votes(answers_FPN, pictures_F, np.array(names))
    return Audit(
        models=["model"],
        votes=votes.filter(pl.col("face") < PEOPLE).select(VOTES.names).to_arrow().cast(VOTES),
        asked=pa.table(asked, schema=ASKED),
        names=pa.table([pools, names, sex_of_names, is_tested], names=["pool", "name", "sex", "tested"]),
        panel_votes=votes.filter(pl.col("face") >= PEOPLE).select(PANEL_VOTES.names).to_arrow().cast(PANEL_VOTES),
        panel=pa.table([people[PEOPLE:], ["FM"[i % 2] for i in range(PEOPLE, faces)]], schema=PANEL),
    )


def _votes(
    answers_FPN: npt.NDArray[np.int64], pictures_F: npt.NDArray[np.int64], names: npt.NDArray[np.str_]
) -> pl.DataFrame:
    """The rows of PANEL_VOTES, and the face, of as many pictures as each face has."""
    face, picture, template = (axis.ravel() for axis in np.indices(answers_FPN.shape))
    columns = {"face": face, "image": picture, "template": template, "predicted": names[answers_FPN.ravel()]}
    votes = pl.DataFrame(columns).filter(pl.Series(picture < pictures_F[face]))
    constants = {"model": pl.lit("model"), "pool": pl.lit("all"), "identity": pl.col("face").cast(pl.String)}
    return votes.with_columns(pl.col("image", "template").cast(pl.String), **constants)


@cache
def verdicts(audits: int = AUDITS, **settings: Any) -> list[pl.DataFrame]:
    """What `judge` says in several simulated audits."""
    return [pl.DataFrame(judge(simulate(seed, **settings), Rules())) for seed in range(audits)]


def at_most(level: float, people: int) -> float:
    """The largest share of valid p-values that is at most `level` in so many people, but for one time in 700."""
    return level + 3 * float(np.sqrt(level * (1 - level) / people))


def false_and_found(audits: list[pl.DataFrame], members: int) -> tuple[npt.NDArray[np.float64], float]:
    """The share of false ones among the findings of each audit, and the share of the members who were found."""
    false = np.array([(rows[members:]["finding"] == "member").sum() for rows in audits])
    found = np.array([(rows[:members]["finding"] == "member").sum() for rows in audits])
    return false / np.maximum(false + found, 1), float(found.mean() / members)


@pytest.mark.parametrize(
    ("favourites", "settings"),
    [(False, {}), (True, {}), (False, {"unknown_sex": 0.5}), (True, {"panel_pictures": 3})],
    ids=["plain", "favourites", "unknown_sex", "panel_of_few_pictures"],
)
def test_p_values_of_unknown_people_are_valid(favourites: bool, settings: dict[str, Any]) -> None:
    """Of 2,400 people of whom the model knows nothing, at most a share of a has p <= a, also where it has favourites.

    Nor are the p-values large for nothing: without favourites they are close to even.
    """
    rows = pl.concat(verdicts(favourites=favourites, **settings))
    assert rows.height == AUDITS * PEOPLE >= 2000
    for level in LEVELS:
        for column in ("p_face", "p_value"):
            share = (rows[column] <= level).mean()
            assert share <= at_most(level, rows.height), (column, level)
            assert favourites or share >= level / 3, (column, level)
    assert not (rows["finding"] == "member").any()


def test_the_name_null_alone_is_not_valid_where_there_are_favourites() -> None:
    """People whose names are the model's favourites look like members to it; the paper's rule accuses one in twenty."""
    rows = pl.concat(verdicts(favourites=True))
    for level in LEVELS:
        assert (rows["p_name"] <= level).mean() > at_most(level, rows.height)
    assert 0.03 < rows["member"].mean() < 0.07
    plain = pl.concat(verdicts(favourites=False))
    for level in LEVELS:
        assert (plain["p_name"] <= level).mean() <= at_most(level, plain.height)


@pytest.mark.parametrize(("favourites", "members"), [(False, PEOPLE // 10), (True, PEOPLE // 10), (True, PEOPLE // 2)])
def test_findings_keep_the_false_discovery_rate(favourites: bool, members: int) -> None:
    """With a tenth or half of the people known, on average at most one finding in twenty is false; most are made."""
    false, power = false_and_found(verdicts(favourites=favourites, members=members), members)
    assert false.mean() <= 0.05 + 2 * false.std() / np.sqrt(len(false))
    assert power > 0.7


@pytest.mark.soak
@pytest.mark.parametrize("favourites", [False, True])
def test_fifty_thousand_people(favourites: bool) -> None:
    """The same holds of so many, where sampling errors are a fifth as large."""
    audits = soak_count(250)
    rows = pl.concat(verdicts(audits, favourites=favourites))
    assert rows.height == audits * PEOPLE
    for level in LEVELS:
        assert (rows["p_face"] <= level).mean() <= at_most(level, rows.height)
    false, power = false_and_found(verdicts(audits, favourites=favourites, members=PEOPLE // 10), PEOPLE // 10)
    assert false.mean() <= 0.05
    assert power > 0.7


def draw() -> Figure:
    """The p-values of the simulated people in order, against even ones: both nulls and the larger of the two."""
    ticks = {0.003: ".003", 0.01: ".01", 0.05: ".05", 0.1: ".1", 0.5: ".5", 1.0: "1"}
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.6), layout="constrained")
        for panel, favourites in zip(figure.subplots(1, 2), (False, True), strict=True):
            rows = pl.concat(verdicts(favourites=favourites))
            share = np.arange(1, rows.height + 1) / rows.height
            for (column, label), colour, line in zip(LINES.items(), SERIES, ("-.", "--", "-"), strict=False):
                panel.plot(share, rows[column].sort(), line, color=colour, label=label, linewidth=1.8)
            panel.fill_between([1e-3, 1], [1e-3, 1], 1e-3, color="grey", alpha=0.13, linewidth=0, label="not valid")
            panel.set(xscale="log", yscale="log", xlim=(2e-3, 1), ylim=(2e-3, 1.15))
            panel.set_title("The model has favourite names" if favourites else "The model likes all names alike")
            panel.set(xlabel="share of the people with a p-value as small", ylabel="p-value")
            for axis in (panel.xaxis, panel.yaxis):
                axis.set_ticks(list(ticks), list(ticks.values()))
                axis.set_ticks([], minor=True)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=4, handlelength=3)
    return figure


def test_the_picture_shows_every_p_value(tmp_path: Path) -> None:
    """The drawing that docs/null_check.md shows has a line a null and a panel a model, and is a picture."""
    figure = draw()
    plain, favoured = (pl.concat(verdicts(favourites=favourites)) for favourites in (False, True))
    for panel, rows in zip(figure.axes, (plain, favoured), strict=True):
        drawn = [np.asarray(line.get_ydata()) for line in panel.lines[:3]]
        for column, values in zip(LINES, drawn, strict=True):
            assert values.tolist() == rows[column].sort().to_list()
    path = tmp_path / "null_check.png"
    path.write_bytes(to_png(figure))
    assert path.read_bytes().startswith(b"\x89PNG")


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(to_png(draw(), dots_per_inch=110))
