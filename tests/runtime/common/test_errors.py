"""The tree that `errors.py` draws is the tree that it has."""

import builtins
import inspect
import pickle
import re

import pytest

from encort.runtime.common import errors
from encort.runtime.common.errors import EncortError, InputTooLongError, MissingExtraError

CLASSES = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}
LINE = re.compile(
    r"^(?P<indent>[ │├└─]*)(?P<name>\w+Error)( \((?P<builtin>\w+)\))?\s+(exit code )?(?P<code>\d+)", re.MULTILINE
)


def drawn():
    """Name to parent, builtin parent and exit code, as the docstring draws them."""
    parents, found = {}, {}
    for line in LINE.finditer(errors.__doc__):
        depth = len(line["indent"])
        parents[depth] = line["name"]
        above = max((other for other in parents if other < depth), default=None)
        found[line["name"]] = (parents.get(above), line["builtin"], int(line["code"]))
    return found


def test_every_error_is_drawn_and_exported():
    assert set(drawn()) == set(CLASSES) == set(errors.__all__)


@pytest.mark.parametrize(("name", "family"), drawn().items())
def test_an_error_is_as_it_is_drawn(name, family):
    parent, builtin, exit_code = family
    kind = CLASSES[name]
    assert kind.exit_code == exit_code
    assert [base.__name__ for base in kind.__bases__] == [base for base in (parent or "Exception", builtin) if base]
    assert builtin is None or issubclass(getattr(builtins, builtin), Exception)


def test_exit_codes_are_not_those_of_click():
    assert all(code not in {0, 2} for _, _, code in drawn().values())


def test_errors_that_scripts_tell_apart_have_their_own_exit_codes():
    codes = [code for name, (_, _, code) in drawn().items() if name != "InputTypeError"]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("kind", CLASSES.values())
def test_an_error_survives_the_way_between_processes(kind):
    error = MissingExtraError("this", extra="export") if kind is MissingExtraError else kind("what went wrong")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (kind, str(error))


def test_a_too_long_text_is_caught_as_what_a_caller_expects():
    for expected in (EncortError, ValueError, InputTooLongError):
        with pytest.raises(expected):
            raise InputTooLongError("too long")


def test_a_missing_extra_gives_the_command_to_install_it():
    assert str(MissingExtraError("this", extra="export")) == 'this needs more packages: pip install "encort[export]"'
