"""Other execution providers run the portable graph by name, after a check of its results."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import encort
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import TOKENIZER_FILE
from encort.runtime.common.errors import DeviceError, FidelityError, VariantNotFoundError
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.verification import golden
from encort.runtime.verification.golden import check_results

OPENVINO = "OpenVINOExecutionProvider"


@pytest.fixture(scope="module")
def portable_bundle(encoder_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from encort.export.exporter import export_bundle

    return export_bundle(encoder_checkpoint, tmp_path_factory.mktemp("p") / "b", variants=["portable", "fp32"]).folder


@pytest.fixture
def openvino(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Pretend that onnxruntime has OpenVINO and cannot start it, so that it falls back to the CPU provider.

    The fixture is the list of the providers that sessions asked for.
    """
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [OPENVINO, "CPUExecutionProvider"])
    opened: list[Any] = []

    class Session(onnxruntime.InferenceSession):
        def __init__(self, path: Any, options: Any, providers: Any, enable_fallback: Any) -> None:
            assert not enable_fallback  # a fallback would print, and hide the error
            opened.append(providers)
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "0")
            super().__init__(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    return opened


def test_an_error_for_a_missing_provider_lists_the_installed_ones(portable_bundle: Path) -> None:
    with pytest.raises(DeviceError, match=f"has no {OPENVINO}, only .*CPUExecutionProvider.* leave provider out"):
        encort.load(portable_bundle, provider=OPENVINO)


@pytest.mark.usefixtures("openvino")
def test_a_bundle_without_a_portable_graph_says_how_to_get_one(encoder_bundle: Path) -> None:
    with pytest.raises(VariantNotFoundError, match="export it with --variant portable"):
        encort.load(encoder_bundle, provider=OPENVINO)


def test_a_provider_that_does_not_start_is_an_error(portable_bundle: Path, openvino: list[Any]) -> None:
    with pytest.raises(DeviceError, match=f"{OPENVINO} could not be started; .* leave provider out"):
        encort.load(portable_bundle, provider=OPENVINO, provider_options={"device_type": "GPU"})
    assert openvino == [[(OPENVINO, {"device_type": "GPU"})]]


@pytest.mark.usefixtures("openvino")
def test_options_that_the_provider_refuses_raise_a_device_error(
    portable_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such device")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(DeviceError, match=f"{OPENVINO} .*cannot run .*no such device; .* leave provider out"):
        encort.load(portable_bundle, provider=OPENVINO)


def test_a_provider_with_the_results_of_the_model_is_used(
    portable_bundle: Path, openvino: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with encort.load(portable_bundle) as own:
        expected = own.embed(["hello", "my card"])
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda _: [OPENVINO])
    with encort.load(portable_bundle, provider=OPENVINO) as model:
        np.testing.assert_allclose(model.embed(["hello", "my card"]), expected, atol=1e-5)
    assert openvino == [[("CPUExecutionProvider", {})], [(OPENVINO, {})]]


def tokenizer_of(bundle: Bundle) -> Tokenizer:
    return Tokenizer(bundle.read(TOKENIZER_FILE), max_length=bundle.manifest.max_length)


class WrongSession:
    """Returns negated outputs."""

    def __init__(self, session: Any) -> None:
        self.session = session

    def run(self, names: list[str], inputs: dict[str, Any]) -> list[Any]:
        return [-array for array in self.session.run(names, inputs)]


def test_a_provider_with_other_results_is_refused(portable_bundle: Path) -> None:
    bundle = Bundle.open(portable_bundle)
    variant = bundle.portable()
    session = golden.Session(bundle.graph(variant), variant, threads=1)
    check_results(bundle, variant, session, tokenizer_of(bundle))
    with pytest.raises(FidelityError, match=r"a cosine of -1\.0000 to a golden vector"):
        check_results(bundle, variant, WrongSession(session), tokenizer_of(bundle))


class CountingSession:
    """Notes the lengths of the texts of each run."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.lengths: list[list[int]] = []

    def run(self, names: list[str], inputs: dict[str, Any]) -> list[Any]:
        self.lengths.append(inputs["attention_mask"].sum(axis=1).tolist())
        return self.session.run(names, inputs)  # type: ignore[no-any-return]


def test_a_part_of_the_golden_texts_has_the_shortest_and_the_longest(portable_bundle: Path) -> None:
    bundle = Bundle.open(portable_bundle)
    variant = bundle.portable()
    every, some = (CountingSession(golden.Session(bundle.graph(variant), variant, threads=1)) for _ in range(2))
    check_results(bundle, variant, every, tokenizer_of(bundle))
    check_results(bundle, variant, some, tokenizer_of(bundle), most_texts=3)
    *alone, together = some.lengths
    assert len(alone) == len(together) == 3
    assert (min(together), max(together)) == (min(every.lengths[-1]), max(every.lengths[-1]))
