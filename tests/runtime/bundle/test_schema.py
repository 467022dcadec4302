"""JSON values become frozen dataclasses, or an error with the path of the wrong value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pytest

from encort.runtime.bundle.schema import SchemaError, from_plain


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True)
class Leaf:
    color: Color
    weight: float


@dataclass(frozen=True, kw_only=True)
class Tree:
    name: str | None
    height: int
    leaves: list[Leaf]
    owners: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Twig:
    length: int
    buds: list[str] = field(default_factory=list)
    is_green: bool = True


def plain_tree(**changes: Any) -> dict[str, Any]:
    leaf = {"color": "red", "weight": 0.5}
    return {"name": "oak", "height": 3, "leaves": [leaf, leaf], "owners": {"ann": 1}} | changes


def test_nested_values_become_dataclasses() -> None:
    leaf = Leaf(color=Color.RED, weight=0.5)
    assert from_plain(Tree, plain_tree()) == Tree(name="oak", height=3, leaves=[leaf, leaf], owners={"ann": 1})


def test_a_text_is_unicode() -> None:
    with pytest.raises(SchemaError, match=r"buds\[1\]: '\\ud800' has an unpaired surrogate"):
        from_plain(Twig, {"length": 1, "buds": ["é", "\ud800"]})


def test_none_is_a_value_only_where_it_is_declared() -> None:
    assert from_plain(Tree, plain_tree(name=None)).name is None
    with pytest.raises(SchemaError, match="height: expected int, got None"):
        from_plain(Tree, plain_tree(height=None))


def test_an_int_becomes_a_float() -> None:
    weight = from_plain(Leaf, {"color": "blue", "weight": 2}).weight
    assert (weight, type(weight)) == (2.0, float)


def test_a_field_with_a_default_may_be_missing() -> None:
    assert from_plain(Twig, {"length": 2}) == Twig(length=2)
    with pytest.raises(SchemaError, match="lacks length"):
        from_plain(Twig, {"buds": []})


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ([], r"it: expected dict, got \[\]"),
        (None, "it: expected dict, got None"),
        ({}, "it lacks height, leaves, name, owners"),
        (plain_tree(age=1, size=2), "it has unknown age, size"),
        (plain_tree(height=True), "height: expected int, got True"),
        (plain_tree(height=3.0), "height: expected int, got 3.0"),
        (plain_tree(height="3"), "height: expected int, got '3'"),
        (plain_tree(name=3), "name: expected str, got 3"),
        (plain_tree(leaves={}), r"leaves: expected list, got \{\}"),
        (plain_tree(leaves=[None]), r"leaves\[0\]: expected dict, got None"),
        (plain_tree(leaves=[{"color": "red"}]), r"leaves\[0\] lacks weight"),
        (plain_tree(leaves=[{"color": "red", "weight": True}]), r"leaves\[0\].weight: expected float, got True"),
        (plain_tree(leaves=[{"color": "green", "weight": 1}]), r"leaves\[0\].color: expected one of 'red', 'blue'"),
        (
            plain_tree(leaves=[{"color": [], "weight": 1}]),
            r"leaves\[0\].color: expected one of 'red', 'blue', got \[\]",
        ),
        (plain_tree(owners=[]), r"owners: expected dict, got \[\]"),
        (plain_tree(owners={"ann": "1"}), r"owners.ann: expected int, got '1'"),
    ],
)
def test_the_error_for_a_wrong_value_has_its_path(plain: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=f"^{message}"):
        from_plain(Tree, plain)
