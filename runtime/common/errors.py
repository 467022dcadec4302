"""Every error that encort raises, in one tree.

    EncortError                         exit code 1
    ├── InputError (ValueError)                  3   texts or options that cannot be used
    │   ├── InputTypeError (TypeError)           3   not a text, not a list of texts
    │   └── InputTooLongError                    4   over the limit, with overflow="error"
    ├── BundleError (ValueError)                10   a folder that is not a usable bundle
    │   ├── BundleFileMissingError (FileNotFoundError)  11
    │   ├── BundleFileChangedError              12   a hash or a graph differs from the manifest
    │   ├── BundleVersionError                  13   a format that this encort does not know
    │   ├── BundlePathError                     14   a path that leaves the folder
    │   └── VariantNotFoundError (LookupError)  15   no variant of this device and precision
    ├── WrongTaskError (TypeError)              16   the bundle has no head for this call
    ├── DeviceError (RuntimeError)              20   the device or its library cannot be had
    ├── ModelClosedError (RuntimeError)         21
    ├── OverloadedError (RuntimeError)          22   the queue of a service is full
    ├── DeadlineError (TimeoutError)            23   no result in the time that was given
    ├── WorkerDiedError (RuntimeError)          24   a service lost a worker, and with it what it had queued
    ├── CheckpointError (ValueError)            30   a checkpoint that cannot be exported or trained
    ├── FidelityError (ArithmeticError)         31   results differ from the model that was trained
    ├── DatasetError (ValueError)               40   training data that cannot be used
    ├── OutputExistsError (FileExistsError)     41   a folder that would be overwritten
    └── MissingExtraError (ImportError)         50   an optional dependency is not installed

The second parent is the builtin that a caller would catch. The CLI prints the message and exits with the
code; usage errors exit with 2, as click has it.
"""

__all__ = [
    "BundleError",
    "BundleFileChangedError",
    "BundleFileMissingError",
    "BundlePathError",
    "BundleVersionError",
    "CheckpointError",
    "DatasetError",
    "DeadlineError",
    "DeviceError",
    "EncortError",
    "FidelityError",
    "InputError",
    "InputTooLongError",
    "InputTypeError",
    "MissingExtraError",
    "ModelClosedError",
    "OutputExistsError",
    "OverloadedError",
    "VariantNotFoundError",
    "WorkerDiedError",
    "WrongTaskError",
]


class EncortError(Exception):
    """Parent of every error that encort raises on purpose."""

    exit_code = 1


class InputError(EncortError, ValueError):
    exit_code = 3


class InputTypeError(InputError, TypeError):
    exit_code = 3


class InputTooLongError(InputError):
    exit_code = 4


class BundleError(EncortError, ValueError):
    exit_code = 10


class BundleFileMissingError(BundleError, FileNotFoundError):
    exit_code = 11


class BundleFileChangedError(BundleError):
    exit_code = 12


class BundleVersionError(BundleError):
    exit_code = 13


class BundlePathError(BundleError):
    exit_code = 14


class VariantNotFoundError(BundleError, LookupError):
    exit_code = 15


class WrongTaskError(EncortError, TypeError):
    exit_code = 16


class DeviceError(EncortError, RuntimeError):
    exit_code = 20


class ModelClosedError(EncortError, RuntimeError):
    exit_code = 21


class OverloadedError(EncortError, RuntimeError):
    exit_code = 22


class DeadlineError(EncortError, TimeoutError):
    exit_code = 23


class WorkerDiedError(EncortError, RuntimeError):
    exit_code = 24


class CheckpointError(EncortError, ValueError):
    exit_code = 30


class FidelityError(EncortError, ArithmeticError):
    exit_code = 31


class DatasetError(EncortError, ValueError):
    exit_code = 40


class OutputExistsError(EncortError, FileExistsError):
    exit_code = 41


class MissingExtraError(EncortError, ImportError):
    """An optional dependency is not installed.

    >>> str(MissingExtraError("encort export", extra="export"))
    'encort export needs more packages: pip install "encort[export]"'
    """

    exit_code = 50

    def __init__(self, what: str, *, extra: str) -> None:
        super().__init__(f'{what} needs more packages: pip install "encort[{extra}]"')
        self._arguments = (what, extra)

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions pickle their message, which is not what this one is made from.
        return _missing_extra, self._arguments


def _missing_extra(what: str, extra: str) -> MissingExtraError:
    return MissingExtraError(what, extra=extra)
