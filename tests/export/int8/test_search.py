"""The fastest int8 graph that loses little on labelled data becomes the bundle's first choice."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

import encort
from encort.export.evaluation import Evaluation
from encort.export.exporter import export_bundle
from encort.export.int8 import search
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import Precision
from encort.runtime.common.errors import DatasetError, EncortError, FidelityError, InputError
from encort.runtime.verification.golden import verify_bundle

TEXTS = [f"{verb} my {thing}" for verb in ("change", "play", "hello", "lost") for thing in ("card", "pin", "하이")]
FILES = {"search.json", "search.md", "search.svg"}


@pytest.fixture(scope="module")
def labelled(classifier_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts with the labels that the model itself gives, so that full precision scores 100 %."""
    file = tmp_path_factory.mktemp("labelled") / "examples.jsonl"
    with encort.load(classifier_bundle) as model:
        results = model.classify(TEXTS)
        rows = [{"text": text, "label": result.label} for text, result in zip(TEXTS, results, strict=True)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def export(classifier_checkpoint: Path, labelled: Path, output: Path) -> Callable[..., Bundle]:
    def make(**options: Any) -> Bundle:
        settings = {"variants": ["fp32", "int8"], "evaluation": labelled, "weight_bits": 7, **options}
        return export_bundle(classifier_checkpoint, output, **settings)

    return make


def precision_of(model: encort.Model) -> Precision:
    return model.manifest.variants[0].precision


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`fake(scores=, seconds=)` sets the scores and seconds of the int8 models, in the order of the search."""

    def in_order(values: list[float], full: float) -> Callable[[encort.Model], float]:
        """Return a function that gives each new int8 model the next value; a model keeps its value."""
        remaining, known = iter(values), {}

        def value_of(model: encort.Model) -> float:
            if precision_of(model) is Precision.FP32:
                return full
            if id(model) not in known:
                # The model is kept alive, so that no other model gets its id.
                known[id(model)] = (model, next(remaining))
            return known[id(model)][1]

        return value_of

    def patch(*, scores: list[float], seconds: list[float] | None = None, smoothings: int = 1) -> None:
        score, duration = in_order(scores, 90.0), in_order(seconds or [1.0] * len(scores), 2.0)
        kept = dict(list(search._SMOOTHINGS.items())[-smoothings:])
        monkeypatch.setattr(search, "_SMOOTHINGS", kept)
        monkeypatch.setattr(Evaluation, "score", lambda _, model: score(model))
        monkeypatch.setattr(search._Judge, "_seconds", lambda _, model: duration(model))

    return patch


def test_a_drop_that_is_less_than_one_example_is_told(
    export: Callable[..., Bundle], fake: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    fake(scores=[90.0])
    export(max_drop=8.3)
    assert "one more wrong example of 12 costs 8.3 points, and --max-drop allows 8.3" in caplog.text
    caplog.clear()
    fake(scores=[90.0])
    export(max_drop=8.4, overwrite=True)
    assert "one more wrong" not in caplog.text


def candidates_of(bundle: Bundle) -> list[dict[str, Any]]:
    return json.loads((bundle.folder / "search.json").read_text())["candidates"]


def quantized_products(bundle: Bundle) -> int:
    graph = onnx.load(bundle.folder / "cpu-int8.onnx", load_external_data=False).graph
    return sum(node.op_type == "MatMulIntegerToFloat" for node in graph.node)


# A real search.


@pytest.fixture(scope="module")
def searched(classifier_checkpoint: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle from a search with real scores and times on this machine."""
    folder = tmp_path_factory.mktemp("bundles") / "searched.bundle"
    return export_bundle(classifier_checkpoint, folder, evaluation=labelled, max_drop=30.0)


def test_all_candidates_are_recorded_as_json_table_and_picture(searched: Bundle) -> None:
    assert set(searched.manifest.files) >= FILES
    record = json.loads(searched.read("search.json"))
    assert (record["metric"], record["examples"], record["max_drop"]) == ("accuracy", 12, 30.0)
    full, *others = record["candidates"]
    assert (full["precision"], full["metric"], full["drop"], full["smoothing"]) == ("fp32", 100.0, 0.0, None)
    assert {candidate["precision"] for candidate in others} == {"int8"}
    assert len({candidate["smoothing"] for candidate in others}) == 3
    assert all(candidate["latency_ms"] > 0 and candidate["speedup"] > 0 for candidate in record["candidates"])
    assert [candidate["chosen"] for candidate in record["candidates"]].count(True) == 1
    lines = searched.read("search.md").decode().splitlines()
    assert len(lines) == 2 + len(record["candidates"])
    assert [line.endswith("| chosen |") for line in lines[2:]] == [
        candidate["chosen"] for candidate in record["candidates"]
    ]
    assert ET.fromstring(searched.read("search.svg").decode()).tag.endswith("svg")


def test_the_first_variant_is_the_chosen_candidate(searched: Bundle) -> None:
    (chosen,) = [candidate for candidate in candidates_of(searched) if candidate["chosen"]]
    first = searched.manifest.variants[0]
    assert first.precision == chosen["precision"]
    assert {check.variant for check in verify_bundle(searched)} == {
        variant.name for variant in searched.manifest.variants
    }
    assert chosen["drop"] <= 30.0


# Searches with fake scores and times.


def test_the_chosen_graph_is_first_and_auto_loads_it(export: Callable[..., Bundle], fake: Callable[..., None]) -> None:
    fake(scores=[89.6])
    bundle = export()
    names = ["cpu-int8", "cpu-int8-ragged", "cpu-fp32", "cpu-fp32-ragged"]
    assert [variant.name for variant in bundle.manifest.variants] == names
    metrics = {variant.name: variant.fidelity.metric for variant in bundle.manifest.variants}
    assert metrics["cpu-fp32-ragged"] is None
    assert {name: (metric.before, metric.after) for name, metric in metrics.items() if metric} == {
        "cpu-int8": (90.0, 89.6),
        "cpu-fp32": (90.0, 90.0),
    }
    assert (metrics["cpu-int8"].name, metrics["cpu-int8"].examples) == ("accuracy", 12)
    with (
        encort.load(bundle.folder) as auto,
        encort.load(bundle.folder, precision="int8") as int8,
        encort.load(bundle.folder, precision="fp32") as full,
    ):
        scores = [[result.score for result in model.classify(TEXTS)] for model in (auto, int8, full)]
    assert scores[0] == scores[1] != scores[2]


def test_more_layers_stay_in_full_precision_until_the_drop_is_small_enough(
    export: Callable[..., Bundle], fake: Callable[..., None]
) -> None:
    fake(scores=[80.0, 85.0, 89.5])
    bundle = export()
    candidates = candidates_of(bundle)
    assert [len(candidate["excluded"]) for candidate in candidates] == [0, 0, 1, 2]
    assert [candidate["drop"] for candidate in candidates] == [0.0, 10.0, 5.0, 0.5]
    assert [candidate["chosen"] for candidate in candidates] == [False, False, False, True]
    products = {"query": 3}
    left = sum(products.get(name.rsplit(".", 1)[-1], 1) for name in candidates[-1]["excluded"])
    assert quantized_products(bundle) == 3 * 6 - left


def test_the_fastest_candidate_with_a_small_drop_is_chosen(
    export: Callable[..., Bundle], fake: Callable[..., None]
) -> None:
    # The first smoothing needs one layer in full precision; the others do not, and the second is fastest.
    fake(scores=[80.0, 89.9, 89.9, 90.1], seconds=[0.1, 1.5, 0.5, 1.0], smoothings=3)
    candidates = candidates_of(export())
    assert [candidate["chosen"] for candidate in candidates] == [False, False, False, True, False]
    assert [candidate["speedup"] for candidate in candidates] == [1.0, 20.0, pytest.approx(4 / 3), 4.0, 2.0]
    assert candidates[3]["latency_ms"] == pytest.approx(500 / 12)
    assert candidates[4]["drop"] == pytest.approx(-0.1)


def test_the_most_accurate_of_equally_fast_candidates_is_chosen(
    export: Callable[..., Bundle], fake: Callable[..., None]
) -> None:
    fake(scores=[89.6, 89.9, 90.0], seconds=[1.0, 1.05, 1.5], smoothings=3)
    assert [candidate["chosen"] for candidate in candidates_of(export())] == [False, False, True, False]


@pytest.mark.parametrize(
    ("scores", "seconds"),
    [([0.0] * 6, [1.0] * 6), ([90.0], [2.5]), ([89.7], [1.95])],
    ids=["all worse", "slower than fp32", "hardly faster"],
)
def test_full_precision_stays_first_if_no_int8_graph_is_better(
    export: Callable[..., Bundle], fake: Callable[..., None], scores: list[float], seconds: list[float]
) -> None:
    fake(scores=scores, seconds=seconds)
    bundle = export()
    assert [variant.name for variant in bundle.manifest.variants] == ["cpu-fp32", "cpu-fp32-ragged"]
    assert not any(name.startswith("cpu-int8") for name in bundle.manifest.files)
    assert set(bundle.manifest.files) >= FILES
    first, *others = candidates_of(bundle)
    assert first["chosen"]
    assert not any(candidate["chosen"] for candidate in others)
    assert bundle.manifest.variants[0].fidelity.metric.after == 90.0
    with encort.load(bundle.folder) as model:
        assert len(model.classify(TEXTS)) == 12


def test_an_export_of_int8_alone_without_a_good_candidate_shows_the_table(
    export: Callable[..., Bundle], fake: Callable[..., None], output: Path
) -> None:
    fake(scores=[0.0] * 6)
    with pytest.raises(FidelityError, match=r"loses at most 0.5 points:\n\| precision .*\n(.*\n)*\| int8 .* 90.00 "):
        export(variants=["int8"])
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize("max_drop", [-0.1, 100.1, float("nan"), float("inf")])
def test_a_max_drop_out_of_range_is_refused(export: Callable[..., Bundle], output: Path, max_drop: float) -> None:
    with pytest.raises(InputError, match="max_drop must be between 0 and 100"):
        export(max_drop=max_drop)
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize("max_drop", [0, 100])
def test_a_drop_of_exactly_max_drop_is_allowed(
    export: Callable[..., Bundle], fake: Callable[..., None], max_drop: float
) -> None:
    fake(scores=[90.0 - 0.9 * max_drop])
    assert export(max_drop=max_drop).manifest.variants[0].name == "cpu-int8"


def test_labelled_data_with_unknown_labels_leaves_nothing_behind(
    export: Callable[..., Bundle], output: Path, tmp_path: Path
) -> None:
    (tmp_path / "wrong.csv").write_text("text,label\n" + "hello,nobody\n" * 12)
    with pytest.raises(DatasetError, match="nobody"):
        export(evaluation=tmp_path / "wrong.csv")
    assert list(output.parent.iterdir()) == []


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_labels_without_a_defined_metric_are_refused(encoder_checkpoint: Path, output: Path, tmp_path: Path) -> None:
    rows = [{"text": text, "text_pair": "hello", "score": 1.0} for text in TEXTS]
    (tmp_path / "same.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(EncortError):
        export_bundle(encoder_checkpoint, output, evaluation=tmp_path / "same.jsonl", variants=["fp32", "int8"])


def test_embeddings_are_judged_by_pairs_with_a_similarity(
    encoder_checkpoint: Path, output: Path, tmp_path: Path, fake: Callable[..., None]
) -> None:
    fake(scores=[90.0])
    rows = [{"text": text, "text_pair": "hello", "score": number} for number, text in enumerate(TEXTS)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bundle = export_bundle(
        encoder_checkpoint, output, evaluation=tmp_path / "pairs.jsonl", variants=["fp32", "int8"], weight_bits=7
    )
    assert Bundle.open(output).manifest.variants[0].fidelity.metric.name == "Spearman of cosines"
    assert bundle.manifest.variants[0].name == "cpu-int8"
