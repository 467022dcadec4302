"""The fastest 8-bit graph within the budget of labelled data becomes the bundle's first choice."""

import json
import xml.etree.ElementTree as ET

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
def labelled(classifier_bundle, tmp_path_factory):
    """What the model itself says of some texts, so that in full precision all is right."""
    file = tmp_path_factory.mktemp("labelled") / "examples.jsonl"
    with encort.load(classifier_bundle) as model:
        rows = [{"text": text, "label": found.label} for text, found in zip(TEXTS, model.classify(TEXTS), strict=True)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def export(classifier_checkpoint, labelled, output):
    def make(**options):
        settings = {"variants": ["fp32", "int8"], "evaluation": labelled, "weight_bits": 7, **options}
        return export_bundle(classifier_checkpoint, output, **settings)

    return make


def precision_of(model):
    return model.manifest.variants[0].precision


@pytest.fixture
def fake(monkeypatch):
    """`fake(scores=..., seconds=...)`: what 8-bit models score and how long they take, one after the other."""

    def measure(values, full):
        """Each model keeps the value that it got first."""
        given, coming = {}, iter(values)

        def of(model):
            if precision_of(model) is Precision.FP32:
                return full
            # Kept alive, so that no other model gets its id.
            return given.setdefault(id(model), (model, next(coming) if id(model) not in given else None))[1]

        return of

    def patch(*, scores, seconds=None, smoothings=1):
        score, duration = measure(scores, 90.0), measure(seconds or [1.0] * len(scores), 2.0)
        kept = dict(list(search._SMOOTHINGS.items())[-smoothings:])
        monkeypatch.setattr(search, "_SMOOTHINGS", kept)
        monkeypatch.setattr(Evaluation, "score", lambda _, model: score(model))
        monkeypatch.setattr(search._Judge, "_seconds", lambda _, model: duration(model))

    return patch


def trials_of(bundle):
    return json.loads((bundle.folder / "search.json").read_text())["candidates"]


def quantized_products(bundle):
    graph = onnx.load(bundle.folder / "cpu-int8.onnx", load_external_data=False).graph
    return sum(node.op_type == "MatMulIntegerToFloat" for node in graph.node)


# Measured for real.


@pytest.fixture(scope="module")
def searched(classifier_checkpoint, labelled, tmp_path_factory):
    """A bundle whose search took whatever is faster on this machine."""
    folder = tmp_path_factory.mktemp("bundles") / "searched.bundle"
    return export_bundle(classifier_checkpoint, folder, evaluation=labelled, max_drop=30.0)


def test_what_was_tried_is_kept_as_json_table_and_picture(searched):
    assert set(searched.manifest.files) >= FILES
    kept = json.loads(searched.path("search.json").read_text())
    assert (kept["metric"], kept["examples"], kept["max_drop"]) == ("accuracy", 12, 30.0)
    full, *others = kept["candidates"]
    assert (full["precision"], full["metric"], full["drop"], full["smoothing"]) == ("fp32", 100.0, 0.0, None)
    assert {candidate["precision"] for candidate in others} == {"int8"}
    assert len({candidate["smoothing"] for candidate in others}) == 3
    assert all(candidate["latency_ms"] > 0 and candidate["speedup"] > 0 for candidate in kept["candidates"])
    assert [candidate["chosen"] for candidate in kept["candidates"]].count(True) == 1
    lines = searched.path("search.md").read_text().splitlines()
    assert len(lines) == 2 + len(kept["candidates"])
    assert [line.endswith("| chosen |") for line in lines[2:]] == [
        candidate["chosen"] for candidate in kept["candidates"]
    ]
    assert ET.fromstring(searched.path("search.svg").read_text()).tag.endswith("svg")


def test_the_bundle_agrees_with_what_was_taken(searched):
    (chosen,) = [candidate for candidate in trials_of(searched) if candidate["chosen"]]
    first = searched.manifest.variants[0]
    assert first.precision == chosen["precision"]
    assert {check.variant for check in verify_bundle(searched)} == {each.name for each in searched.manifest.variants}
    assert chosen["drop"] <= 30.0


# Decided by faked scores and times.


def test_the_chosen_graph_is_the_first_and_what_auto_loads(export, fake):
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


def test_layers_stay_in_full_precision_until_the_budget_holds(export, fake):
    fake(scores=[80.0, 85.0, 89.5])
    bundle = export()
    candidates = trials_of(bundle)
    assert [len(candidate["excluded"]) for candidate in candidates] == [0, 0, 1, 2]
    assert [candidate["drop"] for candidate in candidates] == [0.0, 10.0, 5.0, 0.5]
    assert [candidate["chosen"] for candidate in candidates] == [False, False, False, True]
    products = {"query": 3}
    left = sum(products.get(name.rsplit(".", 1)[-1], 1) for name in candidates[-1]["excluded"])
    assert quantized_products(bundle) == 3 * 6 - left


def test_of_those_within_the_budget_the_fastest_is_taken(export, fake):
    # The first smoothing needs one layer in full precision; the others do not, and the second is fastest.
    fake(scores=[80.0, 89.9, 89.9, 90.1], seconds=[0.1, 1.5, 0.5, 1.0], smoothings=3)
    candidates = trials_of(export())
    assert [candidate["chosen"] for candidate in candidates] == [False, False, False, True, False]
    assert [candidate["speedup"] for candidate in candidates] == [1.0, 20.0, pytest.approx(4 / 3), 4.0, 2.0]
    assert candidates[3]["latency_ms"] == pytest.approx(500 / 12)
    assert candidates[4]["drop"] == pytest.approx(-0.1)


def test_of_those_about_as_fast_the_one_that_loses_least_is_taken(export, fake):
    fake(scores=[89.6, 89.9, 90.0], seconds=[1.0, 1.05, 1.5], smoothings=3)
    assert [candidate["chosen"] for candidate in trials_of(export())] == [False, False, True, False]


@pytest.mark.parametrize(
    ("scores", "seconds"),
    [([0.0] * 6, [1.0] * 6), ([90.0], [2.5]), ([89.7], [1.95])],
    ids=["all worse", "slower than fp32", "hardly faster"],
)
def test_where_no_eight_bit_graph_is_better_full_precision_stays_first(export, fake, scores, seconds):
    fake(scores=scores, seconds=seconds)
    bundle = export()
    assert [variant.name for variant in bundle.manifest.variants] == ["cpu-fp32", "cpu-fp32-ragged"]
    assert not any(name.startswith("cpu-int8") for name in bundle.manifest.files)
    assert set(bundle.manifest.files) >= FILES
    first, *others = trials_of(bundle)
    assert first["chosen"]
    assert not any(candidate["chosen"] for candidate in others)
    assert bundle.manifest.variants[0].fidelity.metric.after == 90.0
    with encort.load(bundle.folder) as model:
        assert len(model.classify(TEXTS)) == 12


def test_asked_for_eight_bits_only_it_is_an_error_that_shows_what_was_tried(export, fake, output):
    fake(scores=[0.0] * 6)
    with pytest.raises(FidelityError, match=r"loses at most 0.5 points:\n\| precision .*\n(.*\n)*\| int8 .* 90.00 "):
        export(variants=["int8"])
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize("max_drop", [-0.1, 100.1, float("nan"), float("inf")])
def test_a_budget_that_is_none_is_refused(export, output, max_drop):
    with pytest.raises(InputError, match="max_drop must be between 0 and 100"):
        export(max_drop=max_drop)
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize("max_drop", [0, 100])
def test_a_budget_at_its_end_holds(export, fake, max_drop):
    fake(scores=[90.0 - 0.9 * max_drop])
    assert export(max_drop=max_drop).manifest.variants[0].name == "cpu-int8"


def test_labelled_data_that_does_not_fit_leaves_nothing(export, output, tmp_path):
    (tmp_path / "wrong.csv").write_text("text,label\n" + "hello,nobody\n" * 12)
    with pytest.raises(DatasetError, match="nobody"):
        export(evaluation=tmp_path / "wrong.csv")
    assert list(output.parent.iterdir()) == []


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_labels_that_allow_no_metric_are_an_error_of_encorts_own(encoder_checkpoint, output, tmp_path):
    rows = [{"text": text, "text_pair": "hello", "score": 1.0} for text in TEXTS]
    (tmp_path / "same.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(EncortError):
        export_bundle(encoder_checkpoint, output, evaluation=tmp_path / "same.jsonl", variants=["fp32", "int8"])


def test_embeddings_are_searched_by_pairs_with_a_similarity(encoder_checkpoint, output, tmp_path, fake):
    fake(scores=[90.0])
    rows = [{"text": text, "text_pair": "hello", "score": number} for number, text in enumerate(TEXTS)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bundle = export_bundle(
        encoder_checkpoint, output, evaluation=tmp_path / "pairs.jsonl", variants=["fp32", "int8"], weight_bits=7
    )
    assert Bundle.open(output).manifest.variants[0].fidelity.metric.name == "Spearman of cosines"
    assert bundle.manifest.variants[0].name == "cpu-int8"
