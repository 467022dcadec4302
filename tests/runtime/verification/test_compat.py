"""Whether the vectors of two bundles may live in one index."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encort.runtime.bundle.bundle import Bundle
from encort.runtime.common.errors import BundleError, WrongTaskError
from encort.runtime.common.folders import sha256
from encort.runtime.verification.compat import compat
from encort.runtime.verification.space import ID_TEXTS, space_id
from tests.runtime.conftest import RunEncort

Derive = Callable[..., Path]
RANDOM = np.random.default_rng(0)
ROTATION = np.linalg.qr(RANDOM.normal(size=(40, 40)))[0].astype(np.float32)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def noise(size: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda vectors: unit(vectors + size * unit(RANDOM.normal(size=vectors.shape)))


@pytest.fixture
def derive(encoder_bundle: Path, tmp_path: Path) -> Derive:
    """`derive(change, max_length=32, prompts={...})` copies the bundle, with other golden vectors and settings."""

    def make(change: Callable[[np.ndarray], np.ndarray] = lambda vectors: vectors, **settings: Any) -> Path:
        folder = Path(shutil.copytree(encoder_bundle, tmp_path / f"copy{len(list(tmp_path.iterdir()))}"))
        with np.load(folder / "golden.npz") as golden:
            arrays = dict(golden)
        arrays["output:sentence_embedding"] = change(arrays["output:sentence_embedding"]).astype(np.float32)
        content = io.BytesIO()
        np.savez(content, **arrays)
        (folder / "golden.npz").write_bytes(content.getvalue())
        plain = json.loads((folder / "encort.json").read_text())
        plain["files"]["golden.npz"] = {"sha256": sha256(folder / "golden.npz"), "bytes": len(content.getvalue())}
        plain["max_length"] = settings.pop("max_length", plain["max_length"])
        plain["embedding"] |= settings
        (folder / "encort.json").write_text(json.dumps(plain))
        return folder

    return make


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Derive:
    """`export(checkpoint, **options)` exports a checkpoint in full precision."""
    from encort.export.exporter import export_bundle

    def run(checkpoint: Path, **options: Any) -> Path:
        return export_bundle(checkpoint, tmp_path_factory.mktemp("e") / "b", variants=["fp32"], **options).folder

    return run


def change_weights(checkpoint: Path, folder: Path, change: Callable[[Any], Any]) -> Path:
    from safetensors.torch import load_file, save_file

    shutil.copytree(checkpoint, folder)
    weights = {name: change(tensor) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_the_same_model_is_the_same_space_in_other_precision_and_rounding(
    encoder_bundle: Path, encoder_checkpoint: Path, export: Derive, tmp_path: Path
) -> None:
    rounded = export(change_weights(encoder_checkpoint, tmp_path / "rounded", lambda tensor: tensor.half().float()))
    result = compat(encoder_bundle, rounded)
    assert (result.verdict, result.reasons, result.warnings) == ("same", [], [])
    assert 0 < result.difference < 0.01
    again = compat(encoder_bundle, export(encoder_checkpoint))
    assert again.verdict == "same"
    assert again.difference < 1e-5
    assert again.ids[0] == again.ids[1] is not None


def test_a_model_that_was_trained_further_is_another_space(
    encoder_bundle: Path, encoder_checkpoint: Path, export: Derive, tmp_path: Path
) -> None:
    moved = export(change_weights(encoder_checkpoint, tmp_path / "moved", lambda tensor: tensor + 0.02 * tensor.sign()))
    result = compat(encoder_bundle, moved)
    assert result.verdict == "another"
    assert result.reasons == [f"the vectors differ by {result.difference:.2f}; up to 0.01 they would be the same"]


def test_another_pooling_is_another_space(encoder_bundle: Path, encoder_checkpoint: Path, export: Derive) -> None:
    result = compat(encoder_bundle, export(encoder_checkpoint, pooling="cls"))
    assert result.verdict == "another"
    assert "the pooling is mean in the old bundle, cls in the new" in result.reasons


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (noise(0.003), "same"),
        (noise(0.03), "another"),
        (lambda vectors: vectors @ ROTATION, "rotated"),
        (lambda vectors: noise(0.002)(vectors @ ROTATION), "rotated"),
        (lambda vectors: noise(0.03)(vectors @ ROTATION), "another"),
        (lambda vectors: vectors[:, RANDOM.permutation(40)], "rotated"),
        (lambda vectors: -vectors, "rotated"),
        (lambda vectors: vectors[:, :16], "truncated"),
        (lambda vectors: unit(vectors[:, :16]), "truncated"),
        (lambda vectors: unit(vectors[:, 16:32]), "another"),
        (lambda vectors: RANDOM.normal(size=vectors.shape), "another"),
        (lambda vectors: vectors[RANDOM.permutation(len(vectors))], "another"),
    ],
)
def test_the_verdict_follows_the_vectors(
    encoder_bundle: Path, derive: Derive, change: Callable[[np.ndarray], np.ndarray], verdict: str
) -> None:
    other = derive(change)
    assert compat(encoder_bundle, other).verdict == compat(other, encoder_bundle).verdict == verdict


def test_small_spaces_of_similar_vectors_are_told_apart(derive: Derive) -> None:
    """Vectors of encoders that were never trained for similarity have cosines near 1 to each other."""
    mean = 10 * unit(RANDOM.normal(size=(1, 40)))
    first = derive(lambda vectors: unit(mean + vectors))
    second = derive(lambda vectors: unit(mean + vectors[RANDOM.permutation(len(vectors))]))
    assert compat(first, first).verdict == "same"
    assert compat(first, second).verdict == "another"


def test_the_settings_say_what_the_vectors_do_not(encoder_bundle: Path, derive: Derive) -> None:
    query = {"prompts": {"query": "query: "}}
    default = compat(encoder_bundle, derive(**query, default_prompt="query"))
    assert default.verdict == "another"
    assert default.reasons == ["texts have the default prompt '' in the old bundle, 'query: ' in the new"]
    changed = compat(derive(**query), derive(prompts={"query": "search: "}))
    assert changed.verdict == "another"
    assert changed.reasons == ["the prompt 'query' is 'query: ' in the old bundle, 'search: ' in the new"]
    added = compat(encoder_bundle, derive(**query))
    assert (added.verdict, added.warnings) == ("same", ["only one bundle has the prompt 'query'"])
    dot = compat(encoder_bundle, derive(similarity="dot"))
    assert (dot.verdict, dot.warnings) == ("same", ["vectors are compared by cosine in the old bundle, dot in the new"])


def test_texts_that_one_bundle_cuts_are_left_out(encoder_bundle: Path, derive: Derive) -> None:
    result = compat(encoder_bundle, derive(max_length=20))
    assert result.verdict == "same"
    assert 8 <= result.texts < 50
    assert result.warnings == ["texts are cut at 64 tokens by the old bundle, at 20 by the new"]
    with pytest.raises(BundleError, match="too few to compare"):
        compat(encoder_bundle, derive(max_length=4))


def test_other_lengths_matter_unless_only_angles_are_compared(encoder_bundle: Path, derive: Derive) -> None:
    by_cosine = compat(encoder_bundle, derive(lambda vectors: 3 * vectors))
    assert by_cosine.verdict == "same"
    assert by_cosine.warnings == ["the vectors have other lengths: use an index that compares by cosine"]
    by_dot = compat(derive(similarity="dot"), derive(lambda vectors: 3 * vectors, similarity="dot"))
    assert by_dot.verdict == "another"
    assert by_dot.reasons == [
        "the vectors have the same directions and other lengths, on which their similarity depends"
    ]


def test_other_lengths_of_the_common_values_matter_for_cut_vectors_too(derive: Derive) -> None:
    def scaled(vectors: np.ndarray) -> np.ndarray:
        return vectors[:, :16] * np.random.default_rng(1).uniform(1, 9, size=(len(vectors), 1))

    for cut in (scaled, lambda vectors: unit(vectors[:, :16])):
        by_dot = compat(derive(similarity="dot"), derive(cut, similarity="dot"))
        assert by_dot.verdict == "another"
        assert by_dot.reasons[-1].endswith("other lengths, on which their similarity depends")
        by_cosine = compat(derive(), derive(cut))
        assert by_cosine.verdict == "truncated"
        assert by_cosine.warnings == ["the vectors have other lengths: use an index that compares by cosine"]
    kept = compat(derive(similarity="dot"), derive(lambda vectors: vectors[:, :16], similarity="dot"))
    assert (kept.verdict, kept.warnings) == ("truncated", [])


def test_a_number_of_dimensions_in_the_manifest_cuts_as_callers_see_it(encoder_bundle: Path, derive: Derive) -> None:
    result = compat(encoder_bundle, derive(truncate_dim=16))
    assert (result.verdict, result.dimensions) == ("truncated", (40, 16))
    assert result.reasons == ["the new vectors are the first 16 of 40 values of the old ones"]


def test_a_bundle_without_embeddings_has_no_space(encoder_bundle: Path, derive: Derive) -> None:
    folder = derive()
    plain = json.loads((folder / "encort.json").read_text())
    plain["embedding"] = None
    (folder / "encort.json").write_text(json.dumps(plain))
    with pytest.raises(WrongTaskError, match="no sentence embeddings"):
        compat(encoder_bundle, folder)


def test_damaged_golden_vectors_are_an_error(encoder_bundle: Path, derive: Derive) -> None:
    with pytest.raises(BundleError, match="has no sentence embeddings; export the bundle again"):
        compat(encoder_bundle, derive(lambda vectors: vectors * np.nan))


def test_a_bundle_of_an_earlier_version_is_compared_by_its_golden_vectors(encoder_bundle: Path, derive: Derive) -> None:
    folder = derive()
    plain = json.loads((folder / "encort.json").read_text())
    plain["format_version"] = 3
    plain["embedding"] = {"pooling": "mean", "normalize": True}
    (folder / "encort.json").write_text(json.dumps(plain))
    result = compat(folder, encoder_bundle)
    assert result.verdict == "same"
    assert result.ids[0] is None


@pytest.mark.parametrize(("change", "code"), [("same", 0), ("rotated", 5), ("truncated", 6), ("another", 7)])
def test_the_exit_code_tells_the_verdict(
    encoder_bundle: Path, derive: Derive, run_encort: RunEncort, change: str, code: int
) -> None:
    changes = {"rotated": lambda v: v @ ROTATION, "truncated": lambda v: v[:, :8], "another": noise(1.0)}
    other = derive(changes.get(change, noise(0.0)))
    done = run_encort("compat", encoder_bundle, other, *(["--json"] if change == "same" else []))
    assert (done.returncode, done.stderr) == (code, "")
    if change == "same":
        assert json.loads(done.stdout)["verdict"] == "same"
        assert len(done.stdout.splitlines()) == 1
    else:
        assert done.stdout.startswith(f"{change}: ")
        assert "reason: " in done.stdout


def test_the_id_stays_what_it_is() -> None:
    vectors = np.sin(np.arange(len(ID_TEXTS) * 6, dtype=np.float32)).reshape(-1, 6)
    assert space_id(ID_TEXTS, vectors) == "81c2b27cea7b0793"
    assert space_id(["another", *ID_TEXTS], np.vstack([vectors[:1], vectors])) == "81c2b27cea7b0793"
    assert space_id(ID_TEXTS, vectors + 1e-6 * RANDOM.normal(size=vectors.shape)) == "81c2b27cea7b0793"
    assert space_id(ID_TEXTS, vectors, prompt="query: ") != "81c2b27cea7b0793"
    assert space_id(ID_TEXTS[1:], vectors[1:]) is None


def test_the_export_writes_the_id_of_texts_that_are_samples(encoder_bundle: Path) -> None:
    from encort.export.verification.samples import sample_texts

    assert set(ID_TEXTS) <= set(sample_texts())
    embedding = Bundle.open(encoder_bundle).manifest.embedding
    assert embedding is not None
    assert embedding.space is not None


def test_inspect_shows_the_id(encoder_bundle: Path, run_encort: RunEncort) -> None:
    embedding = Bundle.open(encoder_bundle).manifest.embedding
    assert embedding is not None
    assert f"{embedding.space}" in run_encort("inspect", encoder_bundle).stdout
