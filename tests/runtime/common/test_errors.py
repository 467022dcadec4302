"""The tree in the docstring of `errors.py` shows the classes, their parents and their exit codes."""

import builtins
import inspect
import pickle
import re
from typing import Any

import pytest

from encort.runtime.common import errors
from encort.runtime.common.errors import EncortError, InputTooLongError, MissingExtraError

Family = tuple[str | None, str | None, int]

CLASSES: dict[str, Any] = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}
LINE = re.compile(
    r"^(?P<indent>[ │├└─]*)(?P<name>\w+Error)( \((?P<builtin>\w+)\))?\s+(exit code )?(?P<code>\d+)", re.MULTILINE
)


def drawn() -> dict[str, Family]:
    """Return parent, builtin parent and exit code of each error in the docstring, by name."""
    parents: dict[int, str] = {}
    tree: dict[str, Family] = {}
    for line in LINE.finditer(errors.__doc__ or ""):
        depth = len(line["indent"])
        parents[depth] = line["name"]
        parent_depth = max((other for other in parents if other < depth), default=-1)
        tree[line["name"]] = (parents.get(parent_depth), line["builtin"], int(line["code"]))
    return tree


def test_every_error_is_in_the_tree_and_exported() -> None:
    assert set(drawn()) == set(CLASSES) == set(errors.__all__)


@pytest.mark.parametrize(("name", "family"), drawn().items())
def test_an_error_has_the_parents_and_exit_code_of_the_tree(name: str, family: Family) -> None:
    parent, builtin, exit_code = family
    kind = CLASSES[name]
    assert kind.exit_code == exit_code
    assert [base.__name__ for base in kind.__bases__] == [base for base in (parent or "Exception", builtin) if base]
    assert builtin is None or issubclass(getattr(builtins, builtin), Exception)


def test_exit_codes_differ_from_those_of_click() -> None:
    assert all(code not in {0, 2} for _, _, code in drawn().values())


def test_errors_have_different_exit_codes() -> None:
    codes = [code for name, (_, _, code) in drawn().items() if name != "InputTypeError"]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("kind", CLASSES.values())
def test_an_error_can_be_pickled(kind: Any) -> None:
    error = MissingExtraError("this", extra="export") if kind is MissingExtraError else kind("what went wrong")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (kind, str(error))


def test_the_error_for_a_text_over_the_limit_can_be_caught_as_each_parent() -> None:
    for expected in (EncortError, ValueError, InputTooLongError):
        with pytest.raises(expected):
            raise InputTooLongError("too long")


def test_a_missing_extra_gives_the_install_command() -> None:
    assert str(MissingExtraError("this", extra="export")) == 'this needs more packages: pip install "encort[export]"'


@pytest.mark.parametrize("kind", CLASSES.values())
def test_every_error_has_a_docstring_of_its_own(kind: Any) -> None:
    assert vars(kind)["__doc__"]
