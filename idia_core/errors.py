"""Every error that idia raises on purpose, in one tree.

Each says what is wrong, where, and how to fix it, on one line:
`MissingInputError: no Parquet file matches 'x/*.parquet' (stage scan, input captions). Check the path.`
"""

from idia_core.secrets import without_secrets


class IdiaError(Exception):
    """Something a user can understand and mend; never a bug.

    `what` is the fact, `where` the file, field or stage it was met in, `fix` a sentence to act on.
    `exit_code` is what the command line ends with.
    """

    exit_code = 1

    def __init__(self, what: str, where: str = "", fix: str = "") -> None:
        # Exception.args carries all three, so that the error survives pickling between Ray processes.
        super().__init__(what, where, fix)
        self.what, self.where, self.fix = what, where, fix

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        fix = f" {self.fix}" if self.fix else ""
        return without_secrets(" ".join(f"{self.what}{place}.{fix}".split()))


class UsageError(IdiaError):
    """The command line or the study asks for something that does not exist."""

    exit_code = 2


class ConfigError(UsageError):
    """A study or one of its fields is not valid."""


class InputError(IdiaError):
    """An input cannot be used as it is."""


class MissingInputError(InputError):
    """An input is not there, or matches nothing."""


class InvalidInputError(InputError):
    """An input is there but its content is not what the stage needs."""


class DuplicateNameError(InvalidInputError):
    """A name that must be unique is given twice."""


class LeakageError(InvalidInputError):
    """A picture or a name that must stay out of the training data is in it."""


class BusyError(IdiaError):
    """Another run is writing to the same place."""


class StorageError(IdiaError):
    """There is no room for what is to be written."""


class SealError(IdiaError):
    """A sealed output is not what its manifest says."""


class WorkerLostError(IdiaError):
    """A split was lost more often than its retries allow."""


class TrainingError(IdiaError):
    """A training run ended without a usable checkpoint."""


class BudgetError(IdiaError):
    """A black box may not be asked any more questions."""


class ClusterError(IdiaError):
    """A cluster cannot be reached, or refuses what it is asked for."""
