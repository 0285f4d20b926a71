"""What became of a picture-caption pair on its way into a training set."""

from enum import StrEnum


class SampleStatus(StrEnum):
    """Why a pair is not in the training data; `OK` where nothing keeps it out."""

    OK = "ok"
    # The tar or list that it came in.
    NO_PICTURE = "no_picture"
    NO_CAPTION = "no_caption"
    DUPLICATE_KEY = "duplicate_key"
    UNUSABLE_KEY = "unusable_key"
    UNSAFE_PATH = "unsafe_path"
    NOT_A_FILE = "not_a_file"
    CUT = "cut"
    MISSING = "missing"
    # The picture; the values are those of `PictureStatus`.
    EMPTY = "empty"
    TRUNCATED = "truncated"
    BROKEN = "broken"
    TOO_LARGE = "too_large"
    # The caption.
    EMPTY_CAPTION = "empty_caption"
    NOT_UTF8 = "not_utf8"
    NAME_NOT_IN_CAPTION = "name_not_in_caption"
    # What must stay out.
    SHOWS_ATTACK_PICTURE = "shows_attack_picture"
    NAMES_NON_MEMBER = "names_non_member"
