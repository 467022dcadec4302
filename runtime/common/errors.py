"""Every error that encort raises, in one tree.

    EncortError                         exit code 1
    ├── InputError (ValueError)                  3   a text or an option cannot be used
    │   ├── InputTypeError (TypeError)           3   not a text, not a list of texts
    │   └── InputTooLongError                    4   over the limit, with overflow="error"
    ├── BundleError (ValueError)                10   the folder is not a usable bundle
    │   ├── BundleFileMissingError (FileNotFoundError)  11
    │   ├── BundleFileChangedError              12   a hash or a graph differs from the manifest
    │   ├── BundleVersionError                  13   a format that this encort does not read
    │   ├── BundlePathError                     14   a path outside of the folder
    │   └── VariantNotFoundError (LookupError)  15   no variant for this device and precision
    ├── WrongTaskError (TypeError)              16   the bundle has no head for this call
    ├── NotVerifiedError (RuntimeError)         17   nothing of the bundle can be verified on this machine
    ├── HubError (OSError)                      18   the hub does not give or take a bundle
    ├── DeviceError (RuntimeError)              20   the device or its library is not available
    ├── ModelClosedError (RuntimeError)         21
    ├── OverloadedError (RuntimeError)          22   the queue of a service is full
    ├── DeadlineError (TimeoutError)            23   no result within timeout_s
    ├── WorkerDiedError (RuntimeError)          24   a worker of a service died, with its queue
    ├── CheckpointError (ValueError)            30   a checkpoint cannot be exported or trained
    ├── FidelityError (ArithmeticError)         31   results differ from the trained model
    ├── DatasetError (ValueError)               40   labelled data cannot be used
    ├── OutputExistsError (FileExistsError)     41   a folder would be overwritten
    └── MissingExtraError (ImportError)         50   an optional package is not installed

The second parent is the builtin that a caller would catch. The command line prints the message and exits with the code.
Usage errors exit with 2, as click does.
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
    "HubError",
    "InputError",
    "InputTooLongError",
    "InputTypeError",
    "MissingExtraError",
    "ModelClosedError",
    "NotVerifiedError",
    "OutputExistsError",
    "OverloadedError",
    "VariantNotFoundError",
    "WorkerDiedError",
    "WrongTaskError",
]

_START, _END = 800, 190
_LONGEST = 1000
"""Characters of a message about a bundle: the first ones, the last ones, which say what to do, and the most."""


class EncortError(Exception):
    """Parent of every error that encort raises on purpose.

    Attributes:
        exit_code: Exit code of the command line.
    """

    exit_code = 1


class InputError(EncortError, ValueError):
    """A text or an option cannot be used."""

    exit_code = 3


class InputTypeError(InputError, TypeError):
    """An input has the wrong type: it is not a text, or not a list of texts."""

    exit_code = 3


class InputTooLongError(InputError):
    """A text is longer than the model's limit, and `overflow` is `"error"`."""

    exit_code = 4


class BundleError(EncortError, ValueError):
    """A folder is not a usable bundle.

    A long message loses its middle, because it may quote any amount of a damaged manifest or graph.
    """

    exit_code = 10

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) <= _LONGEST else f"{message[:_START]} … {message[-_END:]}")


class BundleFileMissingError(BundleError, FileNotFoundError):
    """A file of the bundle is missing."""

    exit_code = 11


class BundleFileChangedError(BundleError):
    """A file of the bundle, or its graph, differs from the manifest."""

    exit_code = 12


class BundleVersionError(BundleError):
    """The bundle has a format version that this encort does not read."""

    exit_code = 13


class BundlePathError(BundleError):
    """The bundle names a path outside of its folder."""

    exit_code = 14


class VariantNotFoundError(BundleError, LookupError):
    """The bundle has no variant for the device and the precision."""

    exit_code = 15


class WrongTaskError(EncortError, TypeError):
    """The bundle has no head for the call."""

    exit_code = 16


class NotVerifiedError(EncortError, RuntimeError):
    """No variant of the bundle was verified, because this machine can run none of them."""

    exit_code = 17


class HubError(EncortError, OSError):
    """The hub cannot be reached, or does not give or take a bundle; or a download cannot be written."""

    exit_code = 18


class DeviceError(EncortError, RuntimeError):
    """A device, or the library that it needs, is not available."""

    exit_code = 20


class ModelClosedError(EncortError, RuntimeError):
    """The model or its service was closed."""

    exit_code = 21


class OverloadedError(EncortError, RuntimeError):
    """The queue of a service is full."""

    exit_code = 22


class DeadlineError(EncortError, TimeoutError):
    """There was no result within `timeout_s`."""

    exit_code = 23


class WorkerDiedError(EncortError, RuntimeError):
    """A worker of a service died, and all requests in the queue failed with it."""

    exit_code = 24


class CheckpointError(EncortError, ValueError):
    """A checkpoint cannot be exported or trained."""

    exit_code = 30


class FidelityError(EncortError, ArithmeticError):
    """Results differ from the trained model by more than the tolerance."""

    exit_code = 31


class DatasetError(EncortError, ValueError):
    """Labelled data cannot be used."""

    exit_code = 40


class OutputExistsError(EncortError, FileExistsError):
    """The output exists and would be overwritten."""

    exit_code = 41


class MissingExtraError(EncortError, ImportError):
    """An optional package is not installed.

    >>> str(MissingExtraError("encort export", extra="export"))
    'encort export needs more packages: pip install "encort[export]"'

    With `package`, the message names a package that is in no extra.
    """

    exit_code = 50

    def __init__(self, what: str, *, extra: str = "", package: str = "") -> None:
        requirement = package or f"encort[{extra}]"
        super().__init__(f'{what} needs more packages: pip install "{requirement}"')
        self._arguments = (what, extra, package)

    def __reduce__(self) -> tuple[object, ...]:
        # By default an exception is unpickled from its message, but this one is made from other arguments.
        return _missing_extra, self._arguments


def _missing_extra(what: str, extra: str, package: str) -> MissingExtraError:
    return MissingExtraError(what, extra=extra, package=package)
