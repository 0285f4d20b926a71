"""Common first and last names from the files of the US Social Security Administration and Census, as distributed."""

import io
import re
import zipfile
from collections.abc import Iterator

import polars as pl
from upath import UPath

from idia_core.errors import InvalidInputError
from idia_core.names import SEXES, tidy_name
from idia_core.storage import find_files

YEARS = ("yob*.txt",)
"""The Social Security Administration's files, a year of birth each: `Mary,F,7065`, no header."""
SURNAMES = ("*.csv", "dist.all.last")
"""The Census's: CSV with a header (2000, 2010), or fixed columns in which names go by rank (1990)."""
ALL_OTHERS = "all other names"
"""The Census's last row, which is no name."""

Column = tuple[str, tuple[str, ...]]
NAME: Column = ("name", ("first_name", "last_name", "surname", "name"))
SEX: Column = ("sex", ("sex", "gender"))
COUNT: Column = ("count", ("count", "births", "number", "frequency"))
"""What the columns are called here, and what they may be called in a file, in any letter case."""


def read_first_names(url: str, most_common: int) -> dict[str, tuple[str, ...]]:
    """The most common first names of each sex, 'F' and 'M', the most common first.

    Read from `yob1980.txt`, a folder or `names.zip` of such files, whose births are summed, or from CSV with a header
    such as `first_name,sex,births`. Names in capitals are written as 'Mary'. Raises InvalidInputError for a file of
    another form.
    """
    frames = [_first_names(text, place) for text, place in _texts(url, YEARS, "first names")]
    ranked = _most_common_first(pl.concat(frames), "sex", "name")
    names = {sex: tuple(ranked.filter(sex=sex)["name"].head(most_common)) for sex in "FM"}
    for sex, word in (("F", "female"), ("M", "male")):
        if not names[sex]:
            raise InvalidInputError(f"no {word} first names", url, "Give a file with names of both sexes.")
    return names


def read_last_names(url: str, most_common: int) -> tuple[str, ...]:
    """The most common last names, the most common first.

    Read from `Names_2010Census.csv` or other CSV with a header such as `last_name,count`, from a zip of it, or from
    `dist.all.last` of 1990. Names in capitals are written as 'Smith' (and 'Mcdonald'). Raises InvalidInputError for a
    file of another form, and where there is more than one.
    """
    texts = list(_texts(url, SURNAMES, "last names"))
    if len(texts) > 1:
        raise InvalidInputError(f"{len(texts)} files of last names", url, "Give the path of one of them.")
    text, place = texts[0]
    fixed = re.match(r"\S+ +[\d.]+ +[\d.]+ +\d+ *\r?\n", text)
    frame = _fixed_columns(text, place) if fixed else _surnames(text, place)
    return tuple(_most_common_first(frame, "name")["name"].head(most_common))


def _texts(url: str, patterns: tuple[str, ...], what: str) -> Iterator[tuple[str, str]]:
    """The text of each file that a path, folder, glob or zip holds, and where it is."""
    for file in find_files(url, patterns, what):
        members = _unzipped(file, patterns) if file.name.endswith(".zip") else [(file.read_bytes(), str(file))]
        for content, place in members:
            try:
                yield content.decode("utf-8-sig"), place
            except UnicodeDecodeError:
                raise InvalidInputError("not UTF-8 text", place, "Give the file as it is distributed.") from None


def _unzipped(file: UPath, patterns: tuple[str, ...]) -> list[tuple[bytes, str]]:
    wanted = re.compile("|".join((r"\.csv$", *(re.escape(p).replace(r"\*", ".*") + "$" for p in patterns))))
    try:
        with zipfile.ZipFile(io.BytesIO(file.read_bytes())) as archive:
            members = [name for name in sorted(archive.namelist()) if wanted.search(name)]
            found = [(archive.read(name), f"{file}, {name}") for name in members]
    except (zipfile.BadZipFile, EOFError) as error:
        raise InvalidInputError(f"not a readable zip: {error}", str(file), "Fetch it again.") from None
    if not found:
        raise InvalidInputError(f"no {' or '.join(patterns)} in it", str(file), "Give the zip as it is distributed.")
    return found


def _first_names(text: str, place: str) -> pl.DataFrame:
    header = text.partition("\n")[0]
    frame = _read_csv(text, place, None if re.fullmatch(r"[^,]+,[^,]+,\d+\s*", header) else (NAME, SEX, COUNT))
    sex = pl.col("sex").str.strip_chars().str.to_lowercase()
    frame = frame.with_columns(sex=sex.replace_strict(SEXES, default=None))
    if frame["sex"].null_count():
        row = frame["sex"].is_null().arg_max()
        raise InvalidInputError("a sex is neither F nor M", f"{place}, name {row}", "Write F or M.")
    return frame


def _surnames(text: str, place: str) -> pl.DataFrame:
    frame = _read_csv(text, place, (NAME, COUNT))
    return frame.filter(pl.col("name").str.to_lowercase() != ALL_OTHERS)


def _fixed_columns(text: str, place: str) -> pl.DataFrame:
    """Names with the rank counted down in place of a count, which the file does not have."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if bad := [line for line in lines if len(line) != 4]:
        raise InvalidInputError(f"a line reads '{' '.join(bad[0])}'", place, "Give the file as it is distributed.")
    return pl.DataFrame({"name": [line[0] for line in lines], "count": range(len(lines), 0, -1)})


def _read_csv(text: str, place: str, columns: tuple[Column, ...] | None) -> pl.DataFrame:
    """The columns of a CSV under our names; None for the three of a file without a header."""
    try:
        frame = pl.read_csv(text.encode(), has_header=columns is not None, infer_schema=False)
        present = {column.strip().lower(): column for column in reversed(frame.columns)}
        found = dict(zip(frame.columns, ("name", "sex", "count"), strict=True)) if columns is None else {}
        for name, spellings in columns or ():
            if not (there := [present[s] for s in spellings if s in present]):
                raise InvalidInputError(f"no column '{name}'", place, f"It has: {', '.join(frame.columns)}.")
            found[there[0]] = name
        frame = frame.select(*found).rename(found).filter(pl.col("name").str.strip_chars().fill_null("") != "")
        return frame.with_columns(pl.col("count").str.strip_chars().cast(pl.Int64))
    except pl.exceptions.PolarsError as error:
        fix = "Give the file as it is distributed."
        raise InvalidInputError(f"not a readable list of names: {str(error).splitlines()[0]}", place, fix) from None


def _most_common_first(frame: pl.DataFrame, *keys: str) -> pl.DataFrame:
    """Each name once, in capitals no more, by falling count; equal counts go by the alphabet."""
    names = [_written(name) for name in frame["name"]]
    summed = frame.with_columns(name=pl.Series(names, dtype=pl.String)).group_by(keys).agg(pl.col("count").sum())
    return summed.sort("count", "name", descending=[True, False])


def _written(name: str) -> str:
    return tidy_name(name.title() if name.isupper() else name)
