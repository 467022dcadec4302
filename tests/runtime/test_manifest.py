"""`encort.json` is read strictly, and an unknown format is told apart from a damaged one."""

import json

import pytest

from encort.runtime.errors import BundleError, BundleVersionError
from encort.runtime.manifest import FORMAT_VERSION, Manifest


@pytest.fixture(scope="module")
def text(classifier_bundle):
    return (classifier_bundle / "encort.json").read_text(encoding="utf-8")


def test_what_is_written_is_read_again(text):
    manifest = Manifest.from_json(text)
    assert manifest.to_json() == text
    assert manifest.labels == ["card_lost", "change_pin", "hello"]


def test_labels_are_written_as_they_are_read(text):
    manifest = Manifest.from_json(json.dumps(json.loads(text) | {"labels": ["안녕", "✓", '"\n']}))
    assert "안녕" in manifest.to_json()
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0, -1, "1", None, [1]])
def test_another_format_version_is_its_own_error(text, version):
    with pytest.raises(BundleVersionError, match=r"format_version .* this encort reads 1; export the bundle again"):
        Manifest.from_json(json.dumps(json.loads(text) | {"format_version": version}))


@pytest.mark.parametrize("content", ["[]", '"text"', "null", "{}"])
def test_json_that_has_no_format_version_is_another_format(content):
    with pytest.raises(BundleVersionError):
        Manifest.from_json(content)


@pytest.mark.parametrize("content", ["", "{", "not json", "[" * 100_000])
def test_what_is_not_json_is_a_bundle_error(content):
    with pytest.raises(BundleError, match="not JSON"):
        Manifest.from_json(content)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"format_version": True}, "format_version"),
        ({"task": "translation"}, "task: expected one of 'feature-extraction', 'text-classification'"),
        ({"labels": "hello"}, "labels"),
        ({"labels": ["a", 1]}, r"labels\[1\]"),
        ({"pooling": "max"}, "pooling"),
        ({"normalize": 1}, "normalize"),
        ({"max_length": "64"}, "max_length"),
        ({"source": {}}, "source lacks architecture, model, revision"),
        ({"files": {"config.json": {"sha256": "0"}}}, "files.config.json lacks bytes"),
        ({"variants": [{"name": "x"}]}, r"variants\[0\] lacks"),
        ({"surprise": 1}, "unknown surprise"),
    ],
)
def test_a_field_that_does_not_fit_is_named(text, change, place):
    with pytest.raises(BundleError, match=f"{place}.*export the bundle again"):
        Manifest.from_json(json.dumps(json.loads(text) | change))


def test_every_field_is_needed(text):
    plain = json.loads(text)
    for name in plain.keys() - {"format_version"}:
        with pytest.raises(BundleError, match=f"it lacks {name}"):
            Manifest.from_json(json.dumps({key: value for key, value in plain.items() if key != name}))
