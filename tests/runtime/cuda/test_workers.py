"""CUDA devices without one: the thread of each, what it is fed, and a whole model on stand-ins."""

import dataclasses
import threading
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

import encort
from encort.export.verification.cpu_attention import cpu_attention_session, open_to_verify
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import Device, Layout
from encort.runtime.common.errors import DeviceError, EncortError, FidelityError, InputError, ModelClosedError
from encort.runtime.cuda import workers as cuda
from encort.runtime.cuda.cuda_graphs import CapturedSession
from encort.runtime.cuda.packing import Packing
from encort.runtime.cuda.workers import DeviceSession, DeviceSessions
from encort.runtime.engine.session import CUDA_PROVIDER, PROVIDERS
from encort.runtime.options import Options

TEXTS = ["hello", "my card is lost", "", "change the pin, my pin is lost! " * 20, "안녕하세요"]


@pytest.fixture
def gpus(cuda_bundle, monkeypatch):
    """Two GPUs that the CPU stands in for; gives how often each was opened, and by what options."""
    bundle, opened = Bundle.open(cuda_bundle), []

    def open_devices(graph, variant, devices, options, **_):
        opened.append((graph.name, list(devices), dict(options)))
        one = open_to_verify(bundle, variant)
        return DeviceSessions(variant, lambda _: one.devices[0]._session, devices)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA_PROVIDER, "CPUExecutionProvider"])
    monkeypatch.setattr(cuda, "open_devices", open_devices)
    return opened


@pytest.mark.parametrize(("precision", "close"), [("fp32", 1e-5), ("fp16", 0.02), ("auto", 0.02)])
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cuda:0,1"])
def test_a_model_on_gpus_gives_what_it_gives_on_the_cpu(cuda_bundle, gpus, device, precision, close):
    with (
        encort.load(cuda_bundle, precision="fp32") as cpu,
        encort.load(cuda_bundle, device=device, precision=precision, provider_options={"gpu_mem_limit": "1"}) as gpu,
    ):
        assert gpu.variant.device is Device.CUDA
        np.testing.assert_allclose(gpu.embed(TEXTS), cpu.embed(TEXTS), atol=close)
        for found, expected in zip(gpu.embed_tokens(TEXTS), cpu.embed_tokens(TEXTS), strict=True):
            np.testing.assert_allclose(found, expected, atol=20 * close if close < 0.01 else 0.1)
        assert [each.label for each in gpu.classify(TEXTS)] == [each.label for each in cpu.classify(TEXTS)]
        with gpu.serving() as service:
            for text, expected in zip(TEXTS, cpu.embed(TEXTS), strict=True):
                np.testing.assert_allclose(service.embed(text), expected, atol=close)
    numbers = {"cuda": [0], "cuda:1": [1], "cuda:0,1": [0, 1]}[device]
    assert gpus == [(f"cuda-{'fp16' if precision == 'auto' else precision}.onnx", numbers, {"gpu_mem_limit": "1"})]


@pytest.mark.usefixtures("gpus")
def test_texts_of_all_lengths_share_one_run(cuda_bundle):
    with encort.load(cuda_bundle, device="cuda") as model:
        model.embed(TEXTS)
        assert model.stats().runs == 1


@pytest.mark.usefixtures("gpus")
def test_a_device_whose_results_are_not_the_models_is_refused(cuda_bundle, monkeypatch):
    right = DeviceSession.run

    def noisy(self, outputs, inputs):
        return [np.roll(array, 1, axis=-1) for array in right(self, outputs, inputs)]

    monkeypatch.setattr(DeviceSession, "run", noisy)
    with pytest.raises(FidelityError, match="is not the model that was exported"):
        encort.load(cuda_bundle, device="cuda")


def test_without_a_gpu_it_is_an_error(cuda_bundle):
    with pytest.raises(DeviceError, match=r"no CUDAExecutionProvider.* install onnxruntime-gpu"):
        encort.load(cuda_bundle, device="cuda:1")


@pytest.mark.parametrize("device", ["cuda:", "cuda:x", "cuda:-1", "cuda:0,", "cpu:0", "cuda:1.5", "tpu:0", ":1"])
def test_a_device_that_names_nothing(device):
    with pytest.raises(InputError, match="device must be"):
        Options(device=device)


def test_devices_are_named_once():
    assert Options(device="cuda:2,0,2").device_numbers == [2, 0]
    assert Options(device="cuda").device_numbers == [0]
    assert Options().device_numbers == Options(device="cpu").device_numbers == ()
    assert Options(device="cuda:1").chosen_provider == PROVIDERS[Device.CUDA]


# The threads.


class Session:
    """Writes down its threads; waits where it is told to."""

    def __init__(self, number: int) -> None:
        self.number, self.opened_by = number, threading.current_thread()
        self.runs: list[tuple[threading.Thread, int]] = []
        self.free, self.inside = threading.Event(), 0
        self.free.set()

    def run_into(self, outputs, inputs):
        self.inside += 1
        assert self.inside == 1  # never two at a time
        self.runs.append((threading.current_thread(), len(inputs["input_ids"])))
        assert self.free.wait(10)
        self.inside -= 1
        if inputs["input_ids"][0] == 99:
            raise EncortError("ONNX Runtime failed: CUDA failure 2: out of memory")
        bounds = inputs["cu_seqlens"]
        sums = np.add.reduceat(inputs["input_ids"], bounds[:-1]).astype(np.float32)[:, None]
        for name, array in outputs.items():
            array[...] = {"sums": sums, "tokens": inputs["input_ids"][:, None]}[name]


@pytest.fixture
def devices(fake_variant):
    """`devices(number)`: sessions that write down their threads."""
    outputs = {"sums": ["batch", "1"], "tokens": ["tokens", "1"]}
    inputs = {"input_ids": ["tokens"], "cu_seqlens": ["bounds"], "token_offset": ["batch", "sequence"]}
    variant = dataclasses.replace(fake_variant, layout=Layout.PACKED, inputs=inputs, outputs=outputs)
    made = []

    def make(number):
        sessions = dict.fromkeys(range(number))

        def open_on(each):
            sessions[each] = Session(each)
            return sessions[each]

        made.append(DeviceSessions(variant, open_on, range(number)))
        return made[-1], sessions

    yield make
    for each in made:
        each.close()


def rows(*texts):
    longest = max(map(len, texts))
    ids = np.array([[*text, *[0] * (longest - len(text))] for text in texts], np.int64)
    mask = np.array([[1] * len(text) + [0] * (longest - len(text)) for text in texts], np.int64)
    return {"input_ids": ids, "attention_mask": mask}


def test_rows_come_back_padded(devices):
    both, _ = devices(1)
    sums, tokens = both.run(["sums", "tokens"], rows([1, 2, 3], [4], [5, 6]))
    assert sums.tolist() == [[6], [4], [11]]
    assert tokens[:, :, 0].tolist() == [[1, 2, 3], [4, 0, 0], [5, 6, 0]]


def test_a_device_is_spoken_to_by_one_thread_only(devices):
    one, sessions = devices(1)
    threads = [threading.Thread(target=one.run, args=(["sums"], rows([number]))) for number in range(1, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (session,) = sessions.values()
    assert len(session.runs) == 19
    assert {thread for thread, _ in session.runs} == {session.opened_by}
    assert session.opened_by not in (threading.current_thread(), *threads)


def test_the_device_with_least_to_do_is_next(devices):
    two, sessions = devices(2)
    sessions[0].free.clear()
    busy = threading.Thread(target=two.run, args=(["sums"], rows([1])))
    busy.start()
    while not sessions[0].runs:
        time.sleep(0.001)
    for _ in range(3):
        two.run(["sums"], rows([2]))
    assert [len(session.runs) for session in sessions.values()] == [1, 3]
    sessions[0].free.set()
    busy.join()


def test_results_are_the_callers_when_the_next_run_has_their_memory(devices):
    one, _ = devices(1)
    names = ["sums", "tokens"]
    first = one.run(names, rows([1, 2, 3]))
    second = one.run(names, rows([4, 5, 6]))
    assert [array.ravel().tolist() for array in (*first, *second)] == [[6], [1, 2, 3], [15], [4, 5, 6]]


def test_host_memory_is_asked_for_by_the_devices_thread_and_shared_by_no_two_runs(devices):
    asked, (one, sessions) = [], devices(1)
    device = one.devices[0]
    device._allocate = lambda size: asked.append(threading.current_thread()) or np.empty(size, np.uint8)
    for _ in range(3):
        one.run(["sums"], rows([1, 2]))
    assert asked == [sessions[0].opened_by]
    sessions[0].free.clear()
    found = {}
    threads = [
        threading.Thread(target=lambda number=number: found.update({number: one.run(["sums"], rows([number, 1]))[0]}))
        for number in range(5)
    ]
    for thread in threads:
        thread.start()
    sessions[0].free.set()
    for thread in threads:
        thread.join()
    assert {number: array.item() for number, array in found.items()} == {number: number + 1 for number in range(5)}
    assert len(device._buffers) == len(asked)


def test_an_interrupted_run_keeps_its_memory(devices, monkeypatch):
    one, sessions = devices(1)
    one.run(["sums"], rows([1] * 250))
    sessions[0].free.clear()
    monkeypatch.setattr(Future, "result", interrupted_once(Future.result))
    with pytest.raises(KeyboardInterrupt):
        one.run(["sums"], rows([7] * 20))
    with ThreadPoolExecutor(1) as callers:
        found = callers.submit(one.run, ["sums"], rows([1] * 200))
        while not one.devices[0]._thread._work_queue.qsize():
            time.sleep(0.001)  # the second is laid out while the device is not done with the first
        sessions[0].free.set()
        assert found.result(10)[0].item() == 200


def interrupted_once(right):
    """As if the user had pressed Ctrl-C while the caller waits."""
    calls = []

    def result(self, timeout=None):
        calls.append(self)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return right(self, timeout)

    return result


def test_an_error_is_the_callers_and_the_device_goes_on(devices):
    one, _ = devices(1)
    with pytest.raises(DeviceError, match="GPU 0 has no memory for a run of 1 tokens: free some"):
        one.run(["sums"], rows([99]))
    assert one.run(["sums"], rows([1]))[0].tolist() == [[1]]


def test_a_device_that_cannot_be_opened_leaves_no_thread(fake_variant):
    def refuse(number):
        raise DeviceError(f"no device {number}")

    before = threading.active_count()
    with pytest.raises(DeviceError, match="no device 3"):
        DeviceSessions(fake_variant, refuse, [3])
    assert threading.active_count() == before


def test_a_closed_device_lets_its_session_go(devices):
    one, sessions = devices(1)
    gone = weakref.ref(sessions.pop(0))
    one.close()
    assert gone() is None
    with pytest.raises(ModelClosedError):
        one.run(["sums"], rows([1]))


def test_each_device_is_warmed_up_with_the_longest_text_and_the_largest_run(devices):
    two, sessions = devices(2)
    two.warm_up(7)
    assert [[tokens for _, tokens in session.runs] for session in sessions.values()] == [[7, 9368], [7, 9368]]


@pytest.fixture
def capturing(cuda_bundle):
    """A device whose graphs the CPU captures."""
    bundle = Bundle.open(cuda_bundle)
    variant = next(each for each in bundle.manifest.variants if each.name == "cuda-fp32")

    def open_on(number):
        return CapturedSession(cpu_attention_session(bundle, variant), variant, longest=64, device="cpu", number=number)

    opened = DeviceSessions(variant, open_on, [0])
    yield opened
    opened.close()


def test_captured_graphs_give_what_was_given_before(capturing):
    texts = rows([2, 9, 8, 3], [2, 7, 3])
    texts["token_type_ids"] = 0 * texts["input_ids"]
    before = capturing.run(["logits", "last_hidden_state"], texts)
    capturing.warm_up(64)
    for found, expected in zip(capturing.run(["logits", "last_hidden_state"], texts), before, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("error 900", r"GPU 0 captured no graphs: warm up before .*load .* again \(error 900\)"),
        ("CUDA failure 2: out of memory", "GPU 0 has no memory for captured graphs: free some"),
    ],
)
def test_a_capture_that_fails_says_what_to_do(capturing, monkeypatch, error, message):
    def fail(_):
        raise EncortError(error)

    monkeypatch.setattr(CapturedSession, "capture", fail)
    with pytest.raises(DeviceError, match=message):
        capturing.warm_up(64)


# What ONNX Runtime is asked for.


@pytest.fixture
def packed_graph(cuda_bundle):
    bundle = Bundle.open(cuda_bundle)
    variant = next(each for each in bundle.manifest.variants if each.name == "cuda-fp32")
    return bundle.graph(variant), variant


@pytest.fixture
def runtime(packed_graph, monkeypatch):
    """An onnxruntime with CUDA, that writes down what it is asked for; `runtime.error` is what it raises."""
    _, variant = packed_graph
    seen = SimpleNamespace(error=None)

    class InferenceSession:
        def __init__(self, graph, options, *, providers, enable_fallback):
            if seen.error is not None:
                raise RuntimeError(seen.error)
            seen.graph, seen.options, seen.fallback = graph, options, enable_fallback
            ((seen.provider, seen.provider_options),) = providers

        def get_providers(self):
            return [CUDA_PROVIDER, "CPUExecutionProvider"]

        def get_inputs(self):
            return [SimpleNamespace(name=name, shape=axes) for name, axes in variant.inputs.items()]

        def get_outputs(self):
            return [
                SimpleNamespace(name=name, shape=[int(axis) if axis.isdecimal() else axis for axis in axes])
                for name, axes in variant.outputs.items()
            ]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA_PROVIDER, "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", InferenceSession)
    return seen


def test_a_device_is_opened_with_exact_arithmetic_and_bounded_memory(packed_graph, runtime):
    graph, variant = packed_graph
    opened = cuda.open_devices(graph, variant, [3], {"gpu_mem_limit": "9", "use_tf32": "1"}, longest=64)
    assert isinstance(opened.devices[0]._session, CapturedSession)
    opened.close()
    assert (runtime.graph, runtime.provider, runtime.fallback) == (graph, CUDA_PROVIDER, 0)
    assert runtime.provider_options == {
        "arena_extend_strategy": "kSameAsRequested",
        "device_id": "3",
        "enable_cuda_graph": "1",
        "enable_skip_layer_norm_strict_mode": "1",
        "gpu_mem_limit": "9",
        "sdpa_kernel": "3",
        "use_tf32": "1",  # the user's own
    }
    assert cuda.OPTIONS["use_tf32"] == "0"
    entry = runtime.options.get_session_config_entry
    assert entry("session.disable_cpu_ep_fallback") == "1"
    assert entry("optimization.disable_specified_optimizers") == "MatMulAddFusion"
    assert runtime.options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL


@pytest.mark.usefixtures("runtime")
def test_a_device_without_captured_graphs(packed_graph):
    opened = cuda.open_devices(*packed_graph, [0], {"enable_cuda_graph": "0"}, longest=64)
    assert not isinstance(opened.devices[0]._session, CapturedSession)
    opened.close()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            "libcudnn.so.9: cannot open",
            r'install "onnxruntime-gpu\[cuda,cudnn\]" alone, .*nvidia-smi',
        ),
        ("Failed to allocate memory for requested buffer of size 9", "GPU 3 has no memory for the model: free some"),
    ],
)
def test_a_device_that_cannot_be_had_says_what_to_do(packed_graph, runtime, error, message):
    runtime.error = error
    with pytest.raises(DeviceError, match=message):
        cuda.open_devices(*packed_graph, [3], {}, longest=64)


# The packing.


@given(st.lists(st.integers(1, 12), min_size=1, max_size=12))
def test_packing_loses_nothing_and_goes_back(lengths):
    longest = max(lengths)
    counts = np.arange(longest) < np.array(lengths)[:, None]
    ids = np.arange(1, counts.size + 1).reshape(counts.shape)
    packed = Packing(counts).inputs({"input_ids": ids, "token_type_ids": 0 * ids, "attention_mask": counts * 1})
    assert packed["input_ids"].tolist() == ids[counts].tolist()
    assert packed["position_ids"].tolist() == [place for length in lengths for place in range(length)]
    assert packed["cu_seqlens"].tolist() == np.cumsum([0, *lengths]).tolist()
    width = packed["token_offset"].shape[1]
    assert longest <= width < longest + 8
    assert width % 8 == 0
    offsets = packed["token_offset"].ravel()
    assert sorted(offsets.tolist()) == list(range(len(lengths) * width))
    rows, columns = np.divmod(offsets[: len(packed["input_ids"])], width)
    assert ids[rows, columns].tolist() == packed["input_ids"].tolist()
    assert (packed["token_offset"].dtype, packed["cu_seqlens"].dtype) == (np.int32, np.int32)
    assert "attention_mask" not in packed
    back = Packing(counts).padded(packed["input_ids"].astype(np.float32))
    assert back.tolist() == np.where(counts, ids, 0).tolist()
