"""The files of a tar grouped into samples in compiled loops, as webdataset and open_clip's loader group them.

A file's key is its path up to the first dot of the last part, and what follows is its suffix. Files of one key in a row
form a sample; a suffix that comes again begins the next. When a constant of `idia_core.tar_headers` changes, touch this
file too: numba does not notice that.
"""

from idia_core.compiled import inline, jit
from idia_core.tar_headers import (
    FILE_AT,
    FILE_BYTES,
    FILE_TYPE,
    FOLDER,
    NAME_AT,
    NAME_BYTES,
    PREFIX_AT,
    PREFIX_BYTES,
    REGULAR,
    Bytes,
    Integers,
    Verdict,
)

LONGEST_KEY = 96
"""Bytes of a key: with its suffix it must fit the name of a tar's file."""
LONGEST_NAME = 100
"""Bytes of a file's name in a USTAR header."""
MOST_FILES = 1000
"""Of a sample: a longer one is parted, as each file's suffix is looked for among those before it."""

# The columns of a table of named files. The key begins after the `./` that the name may begin with. Places of the
# name's parts are places among all names; FILE_AT and FILE_BYTES are as in the table of files, -1 for what is no whole
# regular file.
NAME, KEY, KEY_END, NAME_END, CONTENT_AT, CONTENT_BYTES, MEANING, FAULT, NAMED_COLUMNS = range(9)
# What a file means to its sample: 0 to 3, a picture, in the order in which open_clip looks for one (jpg, png, jpeg,
# webp); or one of these.
CAPTION, OTHER, NO_FILE, ALONE = 4, 5, 6, 7

# The columns of a table of samples; -1 where a sample has no such file.
SAMPLE_KEY, SAMPLE_KEY_END, PICTURE, PICTURE_AT, PICTURE_BYTES, CAPTION_AT, CAPTION_BYTES, VERDICT = range(8)
FIRST_FILE, SAMPLE_COLUMNS = 8, 9

_DOT, _SLASH, _LOW_LINE = 46, 47, 95


@jit
def name_files(content: Bytes, files: Integers, names: Bytes, named: Integers) -> int:
    """Write all names into `names` and fill the table of named files; how many the loader would not read over."""
    end, count = 0, 0
    for file in files:
        row = named[count]
        row[NAME], row[NAME_END] = end, _copy_name(content, file, names, end)
        row[FAULT] = _unsafe(names, row[NAME], row[NAME_END])
        regular = file[FILE_TYPE] == REGULAR
        skipped = file[FILE_TYPE] == FOLDER or _is_skipped(names, row[NAME], row[NAME_END])
        _part_name(names, row)
        if row[FAULT] == Verdict.FINE and (skipped or (regular and row[MEANING] == ALONE)):
            continue
        if skipped:
            row[KEY_END], row[MEANING] = row[NAME_END], ALONE
        elif not regular and row[MEANING] != ALONE:
            row[MEANING] = NO_FILE
        whole = file[FILE_AT] + file[FILE_BYTES] <= len(content)
        row[CONTENT_AT], row[CONTENT_BYTES] = (file[FILE_AT], file[FILE_BYTES]) if regular and whole else (-1, -1)
        row[FAULT] = min(row[FAULT], _key_fault(names, row), file[FILE_TYPE], Verdict.FINE if whole else Verdict.CUT)
        end, count = row[NAME_END], count + 1
    return count


@jit
def _copy_name(content: Bytes, file: Integers, names: Bytes, at: int) -> int:
    """Write a file's name at `at` in `names`; where it ends."""
    if file[PREFIX_BYTES]:
        for i in range(file[PREFIX_BYTES]):
            names[at + i] = content[file[PREFIX_AT] + i]
        names[at + file[PREFIX_BYTES]] = _SLASH
        at += file[PREFIX_BYTES] + 1
    for i in range(file[NAME_BYTES]):
        names[at + i] = content[file[NAME_AT] + i]
    return int(at + file[NAME_BYTES])


@jit
def _unsafe(names: Bytes, begin: int, end: int) -> int:
    """Whether the path is absolute or has a part `..`."""
    if begin < end and names[begin] == _SLASH:
        return Verdict.ABSOLUTE
    dots = 0  # of this part, which has nothing else so far
    for i in range(begin, end):
        if names[i] == _SLASH:
            if dots == 2:
                return Verdict.LEADS_OUT
            dots = 0
        else:
            dots = dots + 1 if dots >= 0 and names[i] == _DOT else -1
    return Verdict.LEADS_OUT if dots == 2 else Verdict.FINE


@jit
def _is_skipped(names: Bytes, begin: int, end: int) -> bool:
    """Whether webdataset takes the path for its own notes: its first part begins and ends with `__`."""
    stop = begin
    while stop < end and names[stop] != _SLASH:
        stop += 1
    if stop - begin < 4:
        return False
    first = names[begin] == _LOW_LINE and names[begin + 1] == _LOW_LINE
    return bool(first and names[stop - 1] == _LOW_LINE and names[stop - 2] == _LOW_LINE)


@jit
def _part_name(names: Bytes, row: Integers) -> None:
    """Find where the key begins and ends, and what the suffix means; ALONE where webdataset sees no key."""
    begin, end = row[NAME], row[NAME_END]
    last, before = begin, begin  # where the last part of the path begins, and the one before it
    for i in range(begin, end):
        if names[i] == _SLASH:
            last, before = i + 1, last
    dot = last
    while dot < end and names[dot] != _DOT:
        dot += 1
    is_key = dot < end
    if is_key and dot == last:  # webdataset takes the folder for the key of `folder/.hidden`, unless it has a dot
        is_key = last > begin
        for i in range(before, last):
            is_key = is_key and names[i] != _DOT
    row[KEY_END], row[MEANING] = (dot, _meaning(names, dot + 1, end)) if is_key else (end, ALONE)
    row[KEY] = begin
    while row[KEY] + 1 < row[KEY_END] and names[row[KEY]] == _DOT and names[row[KEY] + 1] == _SLASH:
        row[KEY] += 2


@jit
def _meaning(names: Bytes, at: int, end: int) -> int:
    """What a suffix means, in whatever case; it is written in lower case."""
    word = 0
    for i in range(at, end):
        if 65 <= names[i] <= 90:
            names[i] += 32
        word = (word << 8 | names[i]) & 0xFFFFFFFFFF
    if end - at == 3:
        return 0 if word == 0x6A7067 else 1 if word == 0x706E67 else CAPTION if word == 0x747874 else OTHER
    if end - at == 4:
        return 2 if word == 0x6A706567 else 3 if word == 0x77656270 else OTHER
    return OTHER


@jit
def _key_fault(names: Bytes, row: Integers) -> int:
    """What keeps a key from being that of a sample that is written anew."""
    key, end = row[KEY], row[KEY_END]
    if row[MEANING] == ALONE:
        return Verdict.FINE
    zeros = 0
    for i in range(key, end):
        if names[i] == _DOT:
            return Verdict.DOT_IN_KEY
        zeros += names[i] == 0
    suffix = row[NAME_END] - end if row[MEANING] <= CAPTION else 0
    if end - key > LONGEST_KEY or end - key + suffix > LONGEST_NAME:
        return Verdict.LONG_KEY
    if zeros:
        return Verdict.ZERO_IN_KEY
    if _is_skipped(names, key, row[NAME_END]):
        return Verdict.SKIPPED_FOLDER
    return Verdict.NO_NAME if key == end or names[end - 1] == _SLASH else Verdict.FINE


@jit
def group(content: Bytes, names: Bytes, named: Integers, samples: Integers, whole: bool) -> int:
    """Fill the table of samples; how many there are.

    Where the tar is not `whole`, its last sample was cut unless it has both its picture and its caption.
    """
    count, current = 0, -1
    for i in range(len(named)):
        file = named[i]
        if file[MEANING] == ALONE or current < 0 or not _continues(names, named, i, samples[current]):
            samples[count] = -1
            samples[count, SAMPLE_KEY], samples[count, SAMPLE_KEY_END] = file[KEY], file[KEY_END]
            samples[count, FIRST_FILE], samples[count, VERDICT] = i, Verdict.FINE
            current = current if file[MEANING] == ALONE else count
            count += 1
        sample = samples[count - 1 if file[MEANING] == ALONE else current]
        sample[VERDICT] = min(sample[VERDICT], file[FAULT])
        _add(file, sample)
    if current >= 0 and not whole and (samples[current, PICTURE] < 0 or samples[current, CAPTION_AT] < 0):
        samples[current, VERDICT] = min(samples[current, VERDICT], Verdict.CUT)
    for sample in samples[:count]:
        if sample[VERDICT] == Verdict.FINE:
            sample[VERDICT] = _missing(content, sample)
    return count


@jit
def _continues(names: Bytes, named: Integers, i: int, sample: Integers) -> bool:
    """Whether a file has the key of the sample before it, and a suffix that the sample has not."""
    first, file = sample[FIRST_FILE], named[i]
    if not _same(names, named[first, NAME], named[first, KEY_END], file[NAME], file[KEY_END]):
        return False
    if file[MEANING] == NO_FILE:
        return True
    if i - first >= MOST_FILES:
        return False
    for earlier in named[first:i]:
        if earlier[MEANING] == file[MEANING] and _same(
            names, earlier[KEY_END], earlier[NAME_END], file[KEY_END], file[NAME_END]
        ):
            return False
    return True


@jit
def _same(names: Bytes, begin: int, end: int, other: int, other_end: int) -> bool:
    if end - begin != other_end - other:
        return False
    for i in range(end - begin):  # noqa: SIM110 - numba knows no generator expressions
        if names[begin + i] != names[other + i]:
            return False
    return True


@inline
def _add(file: Integers, sample: Integers) -> None:
    """Take a file for the sample's picture, unless it has one that open_clip prefers, or for its caption."""
    if file[CONTENT_AT] < 0:
        return
    if file[MEANING] < CAPTION and (sample[PICTURE] < 0 or file[MEANING] < sample[PICTURE]):
        sample[PICTURE] = file[MEANING]
        sample[PICTURE_AT], sample[PICTURE_BYTES] = file[CONTENT_AT], file[CONTENT_BYTES]
    elif file[MEANING] == CAPTION:
        sample[CAPTION_AT], sample[CAPTION_BYTES] = file[CONTENT_AT], file[CONTENT_BYTES]


@jit
def _missing(content: Bytes, sample: Integers) -> int:
    """What the sample lacks; `UNSURE` where its caption begins with what may be white space beyond ASCII."""
    if sample[PICTURE] < 0:
        return Verdict.NO_PICTURE
    if sample[CAPTION_AT] < 0:
        return Verdict.NO_CAPTION
    if sample[PICTURE_BYTES] == 0:
        return Verdict.EMPTY_PICTURE
    at = sample[CAPTION_AT]
    for byte in content[at : at + sample[CAPTION_BYTES]]:
        if byte != 32 and not 9 <= byte <= 13 and not 28 <= byte <= 31:
            return Verdict.UNSURE if byte >= 0x80 else Verdict.FINE
    return Verdict.EMPTY_CAPTION
