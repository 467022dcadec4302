"""`encort bench` of tiny bundles, as a user runs it."""

import json
import re
import statistics
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import transformers
from click.testing import CliRunner

from encort.benchmarks.bundle import bench as measured
from encort.benchmarks.bundle import inputs
from encort.benchmarks.bundle.bench import EAGER, measure_bundle
from encort.benchmarks.bundle.cold_start import fresh_process
from encort.benchmarks.bundle.inputs import Shaper, workload
from encort.benchmarks.bundle.page import as_html, as_text, tables
from encort.benchmarks.bundle.profile import profile
from encort.benchmarks.bundle.torch_baseline import Eager
from encort.benchmarks.results import read
from encort.export.exporter import export_bundle
from encort.export.verification.cpu_attention import open_to_verify
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.cli.main import group
from encort.runtime.common.errors import CheckpointError, EncortError, InputError
from encort.runtime.cuda import workers as cuda
from encort.runtime.engine.session import CUDA_PROVIDER
from encort.training.tasks.dual_encoder import DualEncoderConfig, DualEncoderForNextSentence


@pytest.fixture(scope="module", autouse=True)
def _short():
    """A bench of seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measured, "CALLS", (2, 3))
        patch.setattr(measured, "CALL_TEXTS", (1, 3))
        patch.setattr(measured, "LOAD_SECONDS", 0.2)
        patch.setattr(measured, "FRESH", 1)
        patch.setattr(inputs, "_TOGETHER", 2)
        yield


@pytest.fixture(scope="module", params=["eight bits", "questions", "two encoders"])
def any_bundle(request, tmp_path_factory, make_checkpoint):
    """Bundles of other kinds than the one that all is tried with."""
    folder = tmp_path_factory.mktemp("kinds")
    checkpoint = make_checkpoint(seed=4)
    if request.param == "eight bits":
        return export_bundle(checkpoint, folder / "b", variants=["fp32", "int8"]).folder
    config = transformers.AutoConfig.from_pretrained(checkpoint)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    if request.param == "questions":
        network = transformers.BertForQuestionAnswering(config)
    else:
        settings = {"id2label": {0: "0", 1: "1"}, "label2id": {"0": 0, "1": 1}}
        network = DualEncoderForNextSentence(DualEncoderConfig(config.to_dict(), **settings))
    for part in (network, tokenizer):
        part.save_pretrained(folder / "c")
    return export_bundle(folder / "c", folder / "b", variants=["fp32"]).folder


@pytest.fixture(scope="module")
def report(classifier_bundle):
    return measure_bundle(classifier_bundle, rounds=3, threads=2, eager=True, with_profile=True)


def test_every_way_is_measured_in_every_round(report):
    assert [way.name for way in report.ways] == ["encort fp32", EAGER]
    assert all(len(way.seconds) == 3 for way in report.ways)
    assert len(report.control) == 3
    assert report.ways[0].cosine_min == pytest.approx(1)


def test_latency_is_of_every_shape(report):
    assert {(each.way, each.texts, each.tokens) for each in report.latency} == {
        (way.name, texts, tokens) for way in report.ways for texts in (1, 3) for tokens in (8, 32, 64)
    }
    for each in report.latency:
        assert 0 < each.p50_ms <= each.p90_ms <= each.p99_ms <= each.max_ms


def test_load_goes_beyond_what_is_done_at_once(report):
    full = report.texts / statistics.median(report.ways[0].seconds)
    assert report.load[0].offered < full / 2 < full < report.load[-1].offered


def test_the_profile_is_of_the_graphs_operators(report):
    shares = {each.name: each.share for each in report.profile}
    assert {"MatMul", "MultiHeadAttention", "LayerNormalization"} <= shares.keys()
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_the_tables_and_the_page_have_all_of_it(report):
    text, page = as_text(report), as_html(report)
    for title, _, rows in tables(report):
        assert title in text
        assert all(row[0] in text for row in rows)
    assert page.count("<svg") == 4
    assert not re.search(r"""(src|href)=["']?(?!#)""", page.replace("xlink:href", "href").replace('href="#', ""))


def test_without_what_was_not_asked_for(classifier_bundle):
    found = measure_bundle(classifier_bundle, rounds=1, rates=[50.0])
    assert [way.name for way in found.ways] == ["encort fp32"]
    assert found.profile is None
    assert [each.offered for each in found.load] == [50.0]
    assert "Where a run's time goes" not in as_text(found)


def test_from_the_shell(classifier_bundle, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("hello\nmy card is lost\n", encoding="utf-8")
    result, page = tmp_path / "bench.json", tmp_path / "bench.html"
    arguments = ["--input", str(texts), "--rounds", "1", "--output", str(result), "--html", str(page)]
    done = CliRunner().invoke(group, ["bench", str(classifier_bundle), *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    assert "2 texts" in done.output
    assert read(result).workload == "texts.txt"
    assert json.loads(result.read_text())["machine"]["cores"] >= 1
    assert page.read_text().startswith("<!doctype html>")


def test_costs_are_kept(classifier_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = CliRunner().invoke(group, ["bench", str(classifier_bundle), "--calibrate"], catch_exceptions=False)
    assert re.fullmatch(r"a run [\d.]+ ms, each token [\d.]+ us\n", done.output)
    assert list(tmp_path.glob("encort/costs-*.json"))


def test_every_kind_of_bundle_is_measured(any_bundle):
    found = measure_bundle(any_bundle, rounds=1, rates=[20.0], eager=True, with_profile=True)
    assert [way.name for way in found.ways][-1] == EAGER
    assert {each.way for each in found.fresh} == {way.name for way in found.ways}
    assert as_html(found)


@pytest.mark.parametrize("tokens", [3, 8, 33, 64])
def test_texts_are_cut_to_a_number_of_tokens(tokens, encoder_bundle):
    bundle = Bundle.open(encoder_bundle)
    shaper = Shaper(bundle, workload(bundle))
    assert tokens <= shaper.tokens(shaper(tokens)) <= min(tokens + 1, 64)


def test_sample_texts_are_mixed_in_length_and_all_different(encoder_bundle):
    texts = workload(Bundle.open(encoder_bundle))
    assert len(set(texts)) == len(texts) > 50
    assert max(map(len, texts)) > 10 * min(map(len, texts))


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_workload_is_refused(content, encoder_bundle, tmp_path):
    (tmp_path / "none.txt").write_text(content)
    with pytest.raises(InputError, match="has no texts"):
        workload(Bundle.open(encoder_bundle), tmp_path / "none.txt")


def test_eager_runs_the_checkpoint_that_was_exported(classifier_bundle, tmp_path):
    bundle = Bundle.open(classifier_bundle)
    seen = []
    eager = Eager(bundle, None, threads=1)
    eager._model.register_forward_hook(lambda *values: seen.append(values[-1].logits))
    eager(["hello"] * 33)
    assert [tuple(each.shape) for each in seen] == [(32, 3), (1, 3)]
    with pytest.raises(CheckpointError, match="--checkpoint"):
        Eager(bundle, str(tmp_path / "gone"), threads=1)


def test_a_fresh_process_tells_what_it_pays_for(classifier_bundle):
    found = fresh_process(classifier_bundle, "cpu", "fp32", 1, ["hello", "my card"])
    assert 0.1 < found.seconds < 60
    assert min(found.python_seconds, found.import_seconds, found.load_seconds, found.first_seconds) > 0
    # Of the new process, and not of the one that started it, which holds torch.
    ballast = np.ones(2**27)
    again = fresh_process(classifier_bundle, "cpu", "fp32", 1, ["hello"])
    assert again.peak_mib_first < 400 < ballast.nbytes / 2**20


def test_a_process_that_fails_says_why(classifier_bundle):
    with pytest.raises(EncortError, match=r"loads encort int8: .*no variant for device cpu, precision int8"):
        fresh_process(classifier_bundle, "cpu", "int8", 1, ["hello"])


def test_a_profile_of_pairs(classifier_bundle):
    bundle = Bundle.open(classifier_bundle)
    found = profile(bundle, bundle.manifest.variants[0], [("hello", "my card"), ("the pin", "a")])
    assert found[0].seconds > 0


def test_reports_say_where_they_come_from(report):
    assert report.machine.versions["encort"]
    assert report.machine.revision is None or re.match(r"[0-9a-f]{7,}", report.machine.revision)
    assert Path(report.bundle).is_dir()


def test_a_bundle_on_a_gpu(classifier_checkpoint, tmp_path, monkeypatch):
    variants = ["fp32", "cuda-fp16", "cuda-fp32"]
    bundle = export_bundle(classifier_checkpoint, tmp_path / "b", variants=variants)
    opened, fresh = [], []

    def open_devices(_, variant, devices, *__, **___):
        opened.append((variant.name, *devices))
        return open_to_verify(bundle, variant)

    def fresh_on(folder, device, precision, threads, texts):
        fresh.append((device, precision))
        return fresh_process(folder, "cpu", "fp32", threads, texts)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA_PROVIDER, "CPUExecutionProvider"])
    monkeypatch.setattr(cuda, "open_devices", open_devices)
    monkeypatch.setattr(measured, "fresh_process", fresh_on)
    found = measure_bundle(bundle.folder, device="cuda:1", rounds=1, rates=[20.0])
    assert [way.name for way in found.ways] == ["encort fp16", "encort fp32"]
    assert set(opened) == {("cuda-fp16", 1), ("cuda-fp32", 1)}
    assert fresh == [("cuda:1", "fp16"), ("cuda:1", "fp32")]
    assert found.device == "cuda:1"
    assert ", cuda:1," in as_text(found)


@pytest.mark.parametrize("option", ["with_profile", "eager"])
def test_what_is_of_cpus_is_not_measured_beside_a_gpu(classifier_bundle, option):
    with pytest.raises(InputError, match="leave --profile and --against out"):
        measure_bundle(classifier_bundle, device="cuda", **{option: True})
