"""Options of an export are closed sets and ranges; a wrong value is an error that lists the valid ones."""

from pathlib import Path
from typing import Any

import pytest

from encort.export import options
from encort.export.exporter import export_bundle
from encort.export.options import ExportOptions, VariantKind
from encort.runtime.bundle.manifest import Pooling
from encort.runtime.common.errors import InputError

WRONG = {
    "pooling": ({"pooling": "median"}, "pooling must be one of mean, cls, pooler, .*; got 'median'"),
    "variant": ({"variants": ["fp32", "fp16"]}, "variants must be some of fp32, int8, .*; got fp32, fp16"),
    "no variants": ({"variants": []}, "variants must be some of fp32, int8, .*; got none"),
    "weight bits": ({"weight_bits": 4}, "weight_bits must be 7 or 8, got 4"),
    "max drop": ({"max_drop": float("nan")}, "max_drop must be between 0 and 100 points, got nan"),
    "columns without data": ({"evaluation_columns": {"text": "message"}}, "give it with --evaluation"),
    "header without data": ({"evaluation_header": ["text"]}, "give it with --evaluation"),
}


@pytest.mark.parametrize(("wrong", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_option_is_refused_before_anything_is_loaded(wrong: dict[str, Any], message: str, output: Path) -> None:
    with pytest.raises(InputError, match=message):
        export_bundle("/no/such/checkpoint", output, **wrong)
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize("has_vnni", [True, False])
def test_weights_have_as_many_bits_as_the_processor_multiplies_exactly(
    has_vnni: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "has_instruction_set", lambda _: has_vnni)
    assert ExportOptions().bits == (8 if has_vnni else 7)
    assert ExportOptions(weight_bits=7).bits == 7


def test_weights_of_8_bits_are_refused_without_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "has_instruction_set", lambda _: False)
    with pytest.raises(InputError, match="8-bit weights need vnni to be verified"):
        ExportOptions(weight_bits=8)


def test_variants_for_gpus_are_made_only_on_request() -> None:
    assert [kind for kind in VariantKind if ExportOptions().is_wanted(kind)] == ["fp32", "int8", "portable"]
    wanted = ExportOptions(variants=["cuda-fp16"])
    assert [kind for kind in VariantKind if wanted.is_wanted(kind)] == ["cuda-fp16"]


def test_a_pooling_becomes_a_list_of_one_member_of_the_manifests_enumeration() -> None:
    assert ExportOptions(pooling="cls").chosen_pooling == [Pooling.CLS]
    assert ExportOptions().chosen_pooling is None
