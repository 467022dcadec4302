"""Engines over fake sessions, which raise an error at the id `BAD`."""

import pytest

from encort.runtime.bundle.manifest import Layout
from encort.runtime.common.errors import EncortError
from encort.runtime.engine.engine import Engine
from tests.runtime.fakes import Fakes, MakeEngine

BAD = 99


@pytest.fixture(autouse=True)
def _bad_id(fakes: Fakes) -> None:
    fakes.errors[BAD] = EncortError("a bad id")


@pytest.fixture
def engine(make_engine: MakeEngine) -> Engine:
    """Return an engine with four threads."""
    return make_engine(threads=4)


@pytest.fixture
def single(make_engine: MakeEngine) -> Engine:
    """Return an engine with one thread."""
    return make_engine(threads=1)


@pytest.fixture
def ragged(make_engine: MakeEngine) -> Engine:
    """Return an engine over a graph that takes rows of mixed lengths."""
    return make_engine(threads=2, layout=Layout.RAGGED)
