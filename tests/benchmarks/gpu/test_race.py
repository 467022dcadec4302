"""The race on a GPU, where there is none: its checks, its ways to run PyTorch, and a whole race on stand-ins."""

import functools

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from click.testing import CliRunner
from torch.nn import functional

from encort.benchmarks.gpu import kinds as gpu_kinds
from encort.benchmarks.gpu import race as gpu
from encort.benchmarks.gpu.torch_on_gpu import PLACES, Padded, Unpadded, _sorted
from encort.benchmarks.race.tables import race_table
from encort.benchmarks.results import Check, read, save
from encort.export.verification.cpu_attention import open_to_verify
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.common.errors import EncortError, FidelityError
from encort.runtime.cuda import workers as cuda
from encort.runtime.engine.session import CUDA_PROVIDER
from encort.runtime.text.token_batch import TokenBatch

SOME_KINDS = ("BERT, embeddings", "two encoders")
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def batch_of(*lengths):
    ids = np.random.default_rng(3).integers(5, 90, sum(lengths))
    return TokenBatch(
        ids=ids,
        type_ids=ids % 2,
        cu_seqlens=np.cumsum([0, *lengths]),
        truncated=np.zeros(len(lengths), np.bool_),
    )


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(0)
    return transformers.BertModel(transformers.BertConfig(vocab_size=100, **TINY)).eval()


def by_text(query, key, value, bounds, _, longest, __):
    """Attention of each text by itself, of `(tokens, heads, size)`."""
    assert longest == int(bounds.diff().max())
    cut = bounds[1:-1].long().tolist()
    parts = zip(*(each.transpose(0, 1).tensor_split(cut, dim=1) for each in (query, key, value)), strict=True)
    return torch.cat([functional.scaled_dot_product_attention(*part) for part in parts], dim=1).transpose(0, 1)


@pytest.mark.parametrize("lengths", [[1], [3, 9, 1, 30], [12] * 40])
def test_all_ways_to_run_pytorch_are_one_model(bert, lengths):
    batch = batch_of(*lengths)
    right = Padded(bert)(batch)
    np.testing.assert_allclose(np.linalg.norm(right, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(Padded(bert, in_order=True)(batch), right, atol=1e-5)
    np.testing.assert_allclose(Unpadded(bert, attention=by_text)(batch), right, atol=1e-5)


@pytest.mark.parametrize("padded", [True, False])
def test_batches_of_pytorch_have_every_text_and_stay_within_their_places(padded):
    lengths = np.random.default_rng(0).integers(1, 300, 900)
    rows = list(_sorted(batch_of(*lengths), padded=padded))
    assert sorted(np.concatenate(rows).tolist()) == list(range(900))
    assert len(rows) > 1
    for each in rows:
        assert (len(each) * lengths[each].max() if padded else lengths[each].sum()) <= PLACES


@pytest.mark.parametrize(
    ("found", "bounds", "right"),
    [(1.0, {"least": 0.9}, True), (0.8, {"least": 0.9}, False), (3, {"most": 2}, False), (np.nan, {"most": 2}, False)],
)
def test_a_check_has_a_bound(found, bounds, right):
    assert Check(name="a", found=found, **bounds).is_right is right


def few_only(run_into):
    """Runs of few tokens, as if there was no memory for more."""

    def run(outputs, inputs):
        if len(inputs["input_ids"]) > 5000:
            raise EncortError("ONNX Runtime failed: Available memory of 1 is smaller than requested bytes of 2")
        run_into(outputs, inputs)

    return run


@pytest.fixture
def tiny_gpu(monkeypatch):
    """A GPU that the CPU stands in for, and a race that takes seconds."""

    def open_devices(graph, variant, _, options, **__):
        devices = open_to_verify(Bundle.open(graph.parent), variant)
        if "gpu_mem_limit" in options:
            monkeypatch.setattr(devices.devices[0]._session, "run_into", few_only(devices.devices[0]._session.run_into))
        return devices

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
def test_a_whole_race(tmp_path):
    race = gpu.run("minilm", tmp_path, rounds=2, device="cpu")
    assert all(check.is_right for check in race.checks), race.checks
    assert len(race.checks) == 10
    assert [each.precision for each in race.outcomes if each.name == "encort"] == ["fp16", "fp32"]
    assert all(len(each.seconds) == 2 for each in (*race.outcomes, *race.limits))
    assert all(each.cosine_min > 0.999 for each in race.outcomes if each.cosine_min is not None)
    assert race.texts == 160
    assert read(save(race, tmp_path / race.file_name)) == race
    table = race_table(race)
    assert "cuda-fp16: least cosine to eager PyTorch" in table
    assert "**no**" not in table


@pytest.mark.usefixtures("tiny_gpu")
def test_what_is_wrong_is_told(tmp_path, monkeypatch):
    opened = cuda.open_devices

    def with_noise(*arguments, **options):
        devices = opened(*arguments, **options)
        run = devices.run
        # As if what a text gets depended on its neighbours.
        devices.run = lambda outputs, inputs: [
            array + 0.1 * (len(inputs["input_ids"]) > 1) for array in run(outputs, inputs)
        ]
        return devices

    monkeypatch.setattr(cuda, "open_devices", with_noise)
    race = gpu.run("minilm", tmp_path, rounds=1, device="cpu")
    wrong = {check.name for check in race.checks if not check.is_right}
    assert {"cuda-fp32: most apart from alone", "cuda-fp16: least cosine to eager PyTorch"} <= wrong


@pytest.fixture
def run_gpu(tmp_path):
    """`run_gpu(*options)`: the command's exit code, what it printed, and what it kept."""

    def run(*options):
        done = CliRunner().invoke(gpu.main, [*options, "--output", str(tmp_path)], catch_exceptions=False)
        (file,) = tmp_path.glob("race-*.json")
        return done, read(file)

    return run


@pytest.mark.parametrize("name", gpu_kinds.KINDS)
def test_every_kind_can_be_made(name):
    assert gpu_kinds.KINDS[name]().num_parameters() < 1e7


@pytest.mark.usefixtures("tiny_gpu")
def test_small_models_of_every_kind(run_gpu, monkeypatch):
    monkeypatch.setattr(gpu_kinds, "mixed_texts", lambda: ["change the pin " * 30] * 70 + ["hello"])
    done, kept = run_gpu("--model", "kinds")
    assert done.exit_code == 0, done.output
    assert [check.name for check in kept.checks[:-1:4]] == [
        f"{kind}, cuda-fp16: least cosine to eager PyTorch" for kind in SOME_KINDS
    ]
    assert kept.checks[-1].name.startswith("memory that runs out")
    assert all(check.is_right for check in kept.checks)
    assert "| two encoders, cuda-fp32: least cosine to eager PyTorch | 1 | at least 0.9999 | yes |" in done.output


@pytest.mark.usefixtures("tiny_gpu")
def test_a_kind_that_is_wrong_is_told_and_the_next_is_checked(run_gpu, monkeypatch):
    right = gpu_kinds.verify_against_checkpoint

    def wrong_once(bundle, *arguments, **options):
        if bundle.manifest.embedding is not None and bundle.manifest.variants[0].name == "cuda-fp16":
            raise FidelityError("it is another model")
        return right(bundle, *arguments, **options)

    monkeypatch.setattr(gpu_kinds, "verify_against_checkpoint", wrong_once)
    done, kept = run_gpu("--model", "kinds")
    assert done.exit_code == 1
    assert "it is another model" in done.stderr
    assert kept.checks[0].name == "BERT, embeddings, cuda-fp16 is checked: FidelityError"
    assert [check.is_right for check in kept.checks] == [False, *[True] * 6, False]  # there was memory for all


@pytest.mark.usefixtures("tiny_gpu")
def test_a_way_that_fails_is_told_and_the_others_are_timed(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no kernel image")

    right = gpu.Padded.__call__
    monkeypatch.setattr(gpu.Padded, "__call__", lambda self, batch: fail() if self._in_order else right(self, batch))
    race = gpu.run("minilm", tmp_path, rounds=1, device="cpu")
    errors = {each.key: each.error for each in race.outcomes if each.error is not None}
    assert errors == {"eager PyTorch, as texts come:fp32": "RuntimeError: no kernel image"}
    assert "failed: RuntimeError: no kernel image" in race_table(race)
    assert all(check.is_right for check in race.checks)


@pytest.mark.usefixtures("tiny_gpu")
def test_a_model_that_fails_is_a_check_that_fails(run_gpu, monkeypatch):
    def refuse(*_, **__):
        raise FidelityError("other golden vectors")

    monkeypatch.setattr(gpu, "run", functools.partial(gpu.run, device="cpu"))
    monkeypatch.setattr(gpu.encort, "load", refuse)
    done, kept = run_gpu("--model", "minilm")
    assert done.exit_code == 1
    assert "other golden vectors" in done.stderr
    (check,) = kept.checks
    assert check.name == "minilm is exported, loaded, checked and timed: FidelityError"
    assert not check.is_right


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_small_models_on_a_gpu(run_gpu):
    done, _ = run_gpu("--model", "kinds")
    assert done.exit_code == 0, done.output
