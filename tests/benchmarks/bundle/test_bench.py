"""`encort bench` with tiny bundles, as a user runs it."""

import json
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import transformers
from click.testing import CliRunner

from encort.benchmarks.bundle import bench, inputs
from encort.benchmarks.bundle.bench import measure_bundle
from encort.benchmarks.bundle.inputs import TextCutter, workload
from encort.benchmarks.bundle.measurements import calls
from encort.benchmarks.bundle.measurements.cold_start import measure_cold_start
from encort.benchmarks.bundle.measurements.profile import profile
from encort.benchmarks.bundle.page import build_tables, render_html, render_text
from encort.benchmarks.bundle.report import BundleReport, ColdStart
from encort.benchmarks.bundle.systems import EAGER
from encort.benchmarks.bundle.torch_baseline import Eager
from encort.benchmarks.results import read
from encort.export.exporter import export_bundle
from encort.export.verification.cpu_attention import open_to_verify
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.files import GraphFiles
from encort.runtime.bundle.manifest import Variant
from encort.runtime.cli.main import group
from encort.runtime.common.errors import CheckpointError, EncortError, InputError
from encort.runtime.cuda import workers as cuda
from encort.runtime.engine.session import CUDA_PROVIDER, Runner
from encort.runtime.text.token_batch import Text
from encort.training.dual_encoder import DualEncoderConfig, DualEncoderForNextSentence


@pytest.fixture(scope="module", autouse=True)
def _short() -> Iterator[None]:
    """Make `encort bench` take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "MAX_CALLS", 3)
        patch.setattr(calls, "TEXTS_PER_CALL", (1, 3))
        patch.setattr(bench, "LOAD_SECONDS", 0.2)
        patch.setattr(bench, "COLD_STARTS", 1)
        patch.setattr(inputs, "_MAX_JOINED", 2)
        yield


@pytest.fixture(scope="module", params=["int8", "questions", "dual encoder"])
def any_bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Any) -> Path:
    """Bundles of further kinds; the other tests take a text classifier in fp32."""
    folder = tmp_path_factory.mktemp("kinds")
    checkpoint = make_checkpoint(seed=4)
    if request.param == "int8":
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
def report(classifier_bundle: Path) -> BundleReport:
    return measure_bundle(classifier_bundle, rounds=3, threads=2, eager=True, with_profile=True)


def test_every_system_is_measured_in_every_round(report: BundleReport) -> None:
    assert [system.name for system in report.systems] == ["encort fp32", EAGER]
    assert all(len(system.seconds) == 3 for system in report.systems)
    assert len(report.control) == 3
    assert report.systems[0].cosine_min == pytest.approx(1)


def test_latency_is_measured_for_every_shape(report: BundleReport) -> None:
    assert {(latency.system, latency.texts, latency.tokens) for latency in report.latency} == {
        (system.name, texts, tokens) for system in report.systems for texts in (1, 3) for tokens in (8, 32, 64)
    }
    for latency in report.latency:
        assert 0 < latency.p50_ms <= latency.p90_ms <= latency.p99_ms <= latency.max_ms


def test_offered_rates_exceed_the_throughput(report: BundleReport) -> None:
    throughput = report.texts / statistics.median(report.systems[0].seconds)
    assert report.load[0].offered < throughput / 2 < throughput < report.load[-1].offered


def test_the_profile_has_the_operators_of_the_graph(report: BundleReport) -> None:
    assert report.profile is not None
    shares = {operator.name: operator.share for operator in report.profile}
    assert {"MatMul", "MultiHeadAttention", "LayerNormalization"} <= shares.keys()
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_text_and_page_have_everything_and_load_nothing(report: BundleReport) -> None:
    text, page = render_text(report), render_html(report)
    for title, _, rows in build_tables(report):
        assert title in text
        assert all(row[0] in text for row in rows)
    assert page.count("<svg") == 4
    assert not re.search(r"""(src|href)=["']?(?!#)""", page.replace("xlink:href", "href").replace('href="#', ""))


def test_eager_and_profile_are_left_out_by_default(classifier_bundle: Path) -> None:
    report = measure_bundle(classifier_bundle, rounds=1, rates=[50.0])
    assert [system.name for system in report.systems] == ["encort fp32"]
    assert report.profile is None
    assert [load.offered for load in report.load] == [50.0]
    assert "Time of the runs by operator" not in render_text(report)


def test_the_command_writes_a_result_and_a_page(classifier_bundle: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("hello\nmy card is lost\n", encoding="utf-8")
    result, page = tmp_path / "bench.json", tmp_path / "bench.html"
    arguments = ["--input", str(texts), "--rounds", "1", "--output", str(result), "--html", str(page)]
    done = CliRunner().invoke(group, ["bench", str(classifier_bundle), *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    assert "2 texts" in done.output
    stored = read(result)
    assert stored.workload == "texts.txt"
    assert json.loads(result.read_text())["machine"]["cores"] >= 1
    assert page.read_text().startswith("<!doctype html>")


def test_the_time_is_kept_and_the_progress_shown(classifier_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    report = measure_bundle(classifier_bundle, budget_s=4)
    assert time.monotonic() - start < 20  # the least of everything; a busy machine takes longer than four seconds
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "encort bench: about 4 s; --budget-s takes another time"
    rounds, texts = len(report.control), report.texts
    assert any(f"{texts} texts in {rounds} rounds: encort fp32" in line for line in lines)
    parts = dict.fromkeys(
        line.split(": ")[1].split(",")[0] for line in lines[1:] if re.search(r"\d s (left|over)", line)
    )
    assert list(parts) == ["open", "first texts", "rounds", "latency", "load", "cold starts", "stages"]


def test_calibrate_stores_the_costs(classifier_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = CliRunner().invoke(group, ["bench", str(classifier_bundle), "--calibrate"], catch_exceptions=False)
    assert re.fullmatch(r"[\d.]+ ms per run and [\d.]+ us per token\n", done.output)
    assert list(tmp_path.glob("encort/costs-*.json"))


def test_every_kind_of_bundle_is_measured(any_bundle: Path) -> None:
    report = measure_bundle(any_bundle, rounds=1, rates=[20.0], eager=True, with_profile=True)
    assert [system.name for system in report.systems][-1] == EAGER
    assert {start.system for start in report.cold_starts} == {system.name for system in report.systems}
    assert render_html(report)


@pytest.mark.parametrize("tokens", [3, 8, 33, 64])
def test_texts_are_cut_to_a_number_of_tokens(tokens: int, encoder_bundle: Path) -> None:
    bundle = Bundle.open(encoder_bundle)
    cutter = TextCutter(bundle, workload(bundle))
    assert tokens <= cutter.count_tokens(cutter.cut(tokens)) <= min(tokens + 1, 64)


def test_sample_texts_are_mixed_in_length_and_all_different(encoder_bundle: Path) -> None:
    texts = workload(Bundle.open(encoder_bundle))
    assert len(set(texts)) == len(texts) > 50
    assert max(map(len, texts)) > 10 * min(map(len, texts))


def test_a_table_without_names_of_columns_gets_them(encoder_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("1,hello\n2,bye\n")
    assert workload(Bundle.open(encoder_bundle), tmp_path / "x.csv", header="id,text") == ["hello", "bye"]


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_workload_is_refused(content: str, encoder_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text(content)
    with pytest.raises(InputError, match="has no texts"):
        workload(Bundle.open(encoder_bundle), tmp_path / "none.txt")


def test_eager_pytorch_runs_the_checkpoint_that_was_exported(classifier_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(classifier_bundle)
    logits: list[Any] = []
    eager = Eager(bundle, None, threads=1)
    eager._model.register_forward_hook(lambda *values: logits.append(values[-1].logits))
    eager(["hello"] * 33)
    assert [tuple(array.shape) for array in logits] == [(32, 3), (1, 3)]
    with pytest.raises(CheckpointError, match="--checkpoint"):
        Eager(bundle, str(tmp_path / "gone"), threads=1)


def test_a_cold_start_has_the_time_of_each_part_and_the_memory(classifier_bundle: Path) -> None:
    start = measure_cold_start(classifier_bundle, "cpu", "fp32", 1, ["hello", "my card"])
    assert 0.1 < start.seconds < 60
    assert min(start.python_seconds, start.import_seconds, start.load_seconds, start.first_seconds) > 0
    # The memory is that of the new process, not of this one, which is much larger.
    ballast = np.ones(2**27)
    again = measure_cold_start(classifier_bundle, "cpu", "fp32", 1, ["hello"])
    assert again.peak_mib_first is not None
    assert again.peak_mib_first < 400 < ballast.nbytes / 2**20


def test_a_process_that_fails_says_why(classifier_bundle: Path) -> None:
    with pytest.raises(EncortError, match=r"loads encort int8 failed: .*no variant for device cpu, precision int8"):
        measure_cold_start(classifier_bundle, "cpu", "int8", 1, ["hello"])


def test_a_profile_takes_pairs(classifier_bundle: Path) -> None:
    bundle = Bundle.open(classifier_bundle)
    operators = profile(bundle, bundle.manifest.variants[0], [("hello", "my card"), ("the pin", "a")])
    assert operators[0].seconds > 0


def test_a_report_names_versions_revision_and_bundle(report: BundleReport) -> None:
    assert report.machine.versions["encort"]
    assert report.machine.revision is None or re.match(r"[0-9a-f]{7,}", report.machine.revision)
    assert Path(report.bundle).is_dir()


def test_a_bundle_is_measured_on_a_gpu(
    classifier_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = ["fp32", "cuda-fp16", "cuda-fp32"]
    bundle = export_bundle(classifier_checkpoint, tmp_path / "b", variants=variants)
    opened: list[tuple[Any, ...]] = []
    cold_starts: list[tuple[str, str]] = []

    def open_devices(_: GraphFiles, variant: Variant, devices: Sequence[int], *__: Any, **___: Any) -> Runner:
        opened.append((variant.name, *devices))
        return open_to_verify(bundle, variant)

    def record(folder: Path, device: str, precision: str, threads: int, texts: Sequence[Text]) -> ColdStart:
        cold_starts.append((device, precision))
        return measure_cold_start(folder, "cpu", "fp32", threads, texts)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA_PROVIDER, "CPUExecutionProvider"])
    monkeypatch.setattr(cuda, "open_devices", open_devices)
    monkeypatch.setattr(bench, "measure_cold_start", record)
    report = measure_bundle(bundle.folder, device="cuda:1", rounds=1, rates=[20.0])
    assert [system.name for system in report.systems] == ["encort fp16", "encort fp32"]
    assert set(opened) == {("cuda-fp16", 1), ("cuda-fp32", 1)}
    assert cold_starts == [("cuda:1", "fp16"), ("cuda:1", "fp32")]
    assert report.device == "cuda:1"
    assert ", cuda:1," in render_text(report)


@pytest.mark.parametrize("option", ["with_profile", "eager"])
def test_eager_and_profile_are_refused_on_a_gpu(classifier_bundle: Path, option: str) -> None:
    options: dict[str, Any] = {option: True}
    with pytest.raises(InputError, match="leave --profile and --against out"):
        measure_bundle(classifier_bundle, device="cuda", **options)
