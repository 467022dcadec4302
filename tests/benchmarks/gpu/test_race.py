"""The GPU race without a GPU: its checks, PyTorch's implementations, and whole races with the CPU in place of a GPU."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from torch.nn import functional

from encort.benchmarks.gpu import kinds as gpu_kinds
from encort.benchmarks.gpu import race as gpu
from encort.benchmarks.gpu.torch_on_gpu import BATCH_TOKENS, Padded, Unpadded, _sorted_batches
from encort.benchmarks.race.tables import race_table
from encort.benchmarks.results import Check, Race, read, save
from encort.export.verification.cpu_attention import open_to_verify
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.files import GraphFiles
from encort.runtime.bundle.manifest import Variant
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import EncortError, FidelityError
from encort.runtime.cuda import workers as cuda
from encort.runtime.engine.session import CUDA_PROVIDER
from encort.runtime.text.token_batch import TokenBatch

SOME_KINDS = ("BERT, embeddings", "dual encoder")
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def batch_of(*lengths: int) -> TokenBatch:
    ids = np.random.default_rng(3).integers(5, 90, sum(lengths))
    return TokenBatch(
        ids=ids,
        type_ids=ids % 2,
        cu_seqlens=np.cumsum([0, *lengths]),
        truncated=np.zeros(len(lengths), np.bool_),
    )


@pytest.fixture(scope="module")
def bert() -> transformers.BertModel:
    torch.manual_seed(0)
    return transformers.BertModel(transformers.BertConfig(vocab_size=100, **TINY)).eval()


def attention_by_text(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    _: torch.Tensor,
    longest: int,
    __: int,
) -> torch.Tensor:
    """Return the attention within each text, `(tokens, heads, size)`, as PyTorch's `varlen_attn` does on GPUs."""
    assert longest == int(bounds.diff().max())
    cut = bounds[1:-1].long().tolist()
    parts = zip(*(tensor.transpose(0, 1).tensor_split(cut, dim=1) for tensor in (query, key, value)), strict=True)
    return torch.cat([functional.scaled_dot_product_attention(*part) for part in parts], dim=1).transpose(0, 1)


@pytest.mark.parametrize("lengths", [[1], [3, 9, 1, 30], [12] * 40])
def test_all_pytorch_implementations_return_the_same_embeddings(
    bert: transformers.BertModel, lengths: list[int]
) -> None:
    batch = batch_of(*lengths)
    expected = Padded(bert)(batch)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(Padded(bert, keep_order=True)(batch), expected, atol=1e-5)
    np.testing.assert_allclose(Unpadded(bert, attention=attention_by_text)(batch), expected, atol=1e-5)


@pytest.mark.parametrize("padded", [True, False])
def test_pytorch_batches_have_every_text_once_and_stay_within_the_limit(padded: bool) -> None:
    lengths = np.random.default_rng(0).integers(1, 300, 900)
    rows = list(_sorted_batches(batch_of(*lengths), padded=padded))
    assert sorted(np.concatenate(rows).tolist()) == list(range(900))
    assert len(rows) > 1
    for indices in rows:
        assert (len(indices) * lengths[indices].max() if padded else lengths[indices].sum()) <= BATCH_TOKENS


@pytest.mark.parametrize(
    ("value", "bounds", "passed"),
    [(1.0, {"least": 0.9}, True), (0.8, {"least": 0.9}, False), (3, {"most": 2}, False), (np.nan, {"most": 2}, False)],
)
def test_a_check_passes_within_its_bounds(value: float, bounds: dict[str, float], passed: bool) -> None:
    check = Check(name="a", value=value, least=bounds.get("least"), most=bounds.get("most"))
    assert check.passed is passed


def limited(run_into: Callable[..., None]) -> Callable[..., None]:
    """Return `run_into` as if the memory were too small for runs of many tokens."""

    def run(outputs: Mapping[str, FloatArray], inputs: Mapping[str, NDArray[Any]]) -> None:
        if len(inputs["input_ids"]) > 5000:
            raise EncortError("ONNX Runtime failed: Available memory of 1 is smaller than requested bytes of 2")
        run_into(outputs, inputs)

    return run


@pytest.fixture
def tiny_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU with the CPU in its place, and a race that takes seconds."""

    def open_devices(
        graph: GraphFiles, variant: Variant, _: Sequence[int], options: Mapping[str, str], **__: Any
    ) -> cuda.GpuWorkers:
        workers = open_to_verify(Bundle.open(graph.path.parent), variant)
        assert isinstance(workers, cuda.GpuWorkers)
        if "gpu_mem_limit" in options:
            session = workers.workers[0]._session
            assert session is not None
            monkeypatch.setattr(session, "run_into", limited(session.run_into))
        return workers

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA_PROVIDER, "CPUExecutionProvider"])
    monkeypatch.setattr(cuda, "open_devices", open_devices)
    monkeypatch.setitem(gpu.SIZES, "minilm", TINY)
    for module in (gpu, gpu_kinds):
        monkeypatch.setattr(
            module, "mixed_texts", lambda: ["my card is lost", "hello", "change the pin " * 9, "?"] * 20
        )
    monkeypatch.setattr(gpu_kinds, "KINDS", {name: gpu_kinds.KINDS[name] for name in SOME_KINDS})
    for name, value in {"REPEATS": 2, "CALLS": 1, "PRODUCT": 32}.items():
        monkeypatch.setattr(gpu, name, value)


@pytest.mark.usefixtures("tiny_gpu")
def test_a_race_checks_and_times_all_systems(tmp_path: Path) -> None:
    race = gpu.run("minilm", tmp_path, rounds=2, device="cpu")
    assert all(check.passed for check in race.checks), race.checks
    assert len(race.checks) == 10
    assert [outcome.precision for outcome in race.outcomes if outcome.name == "encort"] == ["fp16", "fp32"]
    assert all(len(outcome.seconds) == 2 for outcome in (*race.outcomes, *race.limits))
    assert all(outcome.cosine_min > 0.999 for outcome in race.outcomes if outcome.cosine_min is not None)
    assert race.texts == 160
    assert read(save(race, tmp_path / race.file_name)) == race
    table = race_table(race)
    assert "cuda-fp16: min cosine to eager PyTorch" in table
    assert "**no**" not in table


@pytest.mark.usefixtures("tiny_gpu")
def test_wrong_results_fail_the_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_devices = cuda.open_devices

    def open_wrong_devices(*arguments: Any, **options: Any) -> cuda.GpuWorkers:
        workers = open_devices(*arguments, **options)
        run = workers.run

        def run_wrongly(outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[FloatArray]:
            # The result of a text depends on its neighbours.
            return [array + np.float32(0.1 * (len(inputs["input_ids"]) > 1)) for array in run(outputs, inputs)]

        monkeypatch.setattr(workers, "run", run_wrongly)
        return workers

    monkeypatch.setattr(cuda, "open_devices", open_wrong_devices)
    race = gpu.run("minilm", tmp_path, rounds=1, device="cpu")
    failed = {check.name for check in race.checks if not check.passed}
    assert {"cuda-fp32: max difference to each text alone", "cuda-fp16: min cosine to eager PyTorch"} <= failed


RunGpu = Callable[..., tuple[Result, Race]]


@pytest.fixture
def run_gpu(tmp_path: Path) -> RunGpu:
    """`run_gpu(*options)` runs the command, and returns its result and the race that it wrote."""

    def run(*options: str) -> tuple[Result, Race]:
        done = CliRunner().invoke(gpu.main, [*options, "--output", str(tmp_path)], catch_exceptions=False)
        (file,) = tmp_path.glob("race-*.json")
        race = read(file)
        assert isinstance(race, Race)
        return done, race

    return run


@pytest.mark.parametrize("name", gpu_kinds.KINDS)
def test_every_kind_of_model_can_be_made(name: str) -> None:
    assert gpu_kinds.KINDS[name]().num_parameters() < 1e7


@pytest.mark.usefixtures("tiny_gpu")
def test_small_models_of_every_kind_are_checked(run_gpu: RunGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_kinds, "mixed_texts", lambda: ["change the pin " * 30] * 70 + ["hello"])
    done, race = run_gpu("--model", "kinds")
    assert done.exit_code == 0, done.output
    assert [check.name for check in race.checks[:-1:4]] == [
        f"{kind}, cuda-fp16: min cosine to eager PyTorch" for kind in SOME_KINDS
    ]
    assert race.checks[-1].name.startswith("a run that exceeds the memory")
    assert all(check.passed for check in race.checks)
    assert "| dual encoder, cuda-fp32: min cosine to eager PyTorch | 1 | at least 0.9999 | yes |" in done.output


@pytest.mark.usefixtures("tiny_gpu")
def test_a_kind_that_fails_is_reported_and_the_next_is_checked(
    run_gpu: RunGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = gpu_kinds.verify_against_checkpoint

    def fail_once(bundle: Bundle, *arguments: Any, **options: Any) -> Any:
        if bundle.manifest.embedding is not None and bundle.manifest.variants[0].name == "cuda-fp16":
            raise FidelityError("it is another model")
        return verify(bundle, *arguments, **options)

    monkeypatch.setattr(gpu_kinds, "verify_against_checkpoint", fail_once)
    done, race = run_gpu("--model", "kinds")
    assert done.exit_code == 1
    assert "it is another model" in done.stderr
    assert race.checks[0].name == "BERT, embeddings, cuda-fp16 is checked: FidelityError"
    assert [check.passed for check in race.checks] == [False, *[True] * 6, False]  # the memory did not run out


@pytest.mark.usefixtures("tiny_gpu")
def test_a_system_that_fails_is_reported_and_the_others_are_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = Padded.__call__

    def fail_in_order(self: Padded, batch: TokenBatch) -> FloatArray:
        if self._keep_order:
            raise RuntimeError("no kernel image")
        return embed(self, batch)

    monkeypatch.setattr(Padded, "__call__", fail_in_order)
    race = gpu.run("minilm", tmp_path, rounds=1, device="cpu")
    errors = {outcome.key: outcome.error for outcome in race.outcomes if outcome.error is not None}
    assert errors == {"eager PyTorch, as texts come:fp32": "RuntimeError: no kernel image"}
    assert "failed: RuntimeError: no kernel image" in race_table(race)
    assert all(check.passed for check in race.checks)


@pytest.mark.usefixtures("tiny_gpu")
def test_a_model_that_cannot_be_loaded_is_a_failed_check(run_gpu: RunGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise FidelityError("other golden vectors")

    monkeypatch.setattr(gpu, "run", functools.partial(gpu.run, device="cpu"))
    monkeypatch.setattr(gpu.encort, "load", refuse)
    done, race = run_gpu("--model", "minilm")
    assert done.exit_code == 1
    assert "other golden vectors" in done.stderr
    (check,) = race.checks
    assert check.name == "minilm is exported, loaded, checked and timed: FidelityError"
    assert not check.passed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_small_models_are_right_on_a_gpu(run_gpu: RunGpu) -> None:
    done, _ = run_gpu("--model", "kinds")
    assert done.exit_code == 0, done.output
