"""The tree of errors, and the one line that each of them is."""

import copy
import pickle

import pytest

from idia_core import errors
from idia_core.errors import IdiaError

CLASSES = [value for value in vars(errors).values() if isinstance(value, type)]
TREE = {
    "IdiaError": "Exception",
    "UsageError": "IdiaError",
    "ConfigError": "UsageError",
    "InputError": "IdiaError",
    "MissingInputError": "InputError",
    "InvalidInputError": "InputError",
    "DuplicateNameError": "InvalidInputError",
    "LeakageError": "InvalidInputError",
    "BudgetError": "IdiaError",
    "BusyError": "IdiaError",
    "ClusterError": "IdiaError",
    "StorageError": "IdiaError",
    "SealError": "IdiaError",
    "WorkerLostError": "IdiaError",
    "TrainingError": "IdiaError",
}
LINE_ENDS = ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


def test_the_tree_is_as_drawn() -> None:
    """Every error has one parent, and all come from IdiaError."""
    assert {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES} == TREE
    assert all(len(cls.__bases__) == 1 for cls in CLASSES)


@pytest.mark.parametrize("cls", CLASSES)
def test_exit_code(cls: type[IdiaError]) -> None:
    """What the user asked for wrongly ends with 2, everything else with 1."""
    assert cls.exit_code == (2 if cls.__name__ in {"UsageError", "ConfigError"} else 1)


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        (("it is gone",), "it is gone."),
        (("it is gone", "stage scan"), "it is gone (stage scan)."),
        (("it is gone", "", "Put it back."), "it is gone. Put it back."),
        (("it is gone", "stage scan", "Put it back."), "it is gone (stage scan). Put it back."),
    ],
)
def test_what_where_and_fix_make_one_sentence(parts: tuple[str, ...], line: str) -> None:
    """The parts that are not given leave nothing behind in the line."""
    assert str(IdiaError(*parts)) == line


@pytest.mark.parametrize("end", LINE_ENDS)
def test_always_one_line(end: str) -> None:
    """Whatever line ends the parts hold, the message is a single line with its words apart."""
    line = str(IdiaError(f"a{end}b", f"{end}c{end}", f"{end}{end}d{end}e{end}"))
    assert line.splitlines() == [line]
    assert line.replace(" ", "") == "ab(c).de"
    assert "a b" in line
    assert line.endswith("d e")


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_survives_pickling(cls: type[IdiaError], protocol: int) -> None:
    """An error that crosses a process boundary keeps its type and its three parts."""
    error = cls("what\nelse", where="Zoë's place", fix="Mend it.")
    again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - our own bytes
    assert type(again) is cls
    assert (again.what, again.where, again.fix) == ("what\nelse", "Zoë's place", "Mend it.")
    assert str(again) == str(error)


@pytest.mark.parametrize("cls", CLASSES)
def test_survives_copying(cls: type[IdiaError]) -> None:
    """A copy keeps type and parts, also those not given."""
    again = copy.deepcopy(cls("what"))
    assert type(again) is cls
    assert (again.what, again.where, again.fix) == ("what", "", "")
