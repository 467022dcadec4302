"""Native variants: whole layers as operators of encort-kernels, in bf16 and int8."""

import importlib.metadata
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import encort
from encort.benchmarks.bundle.measurements.profile import profile
from encort.export.exporter import export_bundle
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.kernels import kernels_instruction_set
from encort.runtime.bundle.manifest import Device, Precision
from encort.runtime.cli.inspect import inspect
from encort.runtime.common.errors import DeviceError, FidelityError, InputError
from encort.runtime.engine.session import Session
from encort.runtime.text.backend import Backend
from encort.runtime.verification.golden import verify_bundle
from encort.runtime.verification.tolerance import cosines

TEXTS = ["card", "I lost my card", "how do I change the pin of my card ?", "hello"]

needs_kernels = pytest.mark.skipif(
    importlib.util.find_spec("encort_kernels") is None, reason="encort-kernels is not installed"
)


@pytest.fixture(scope="module", autouse=True)
def any_processor() -> Iterator[None]:
    """Let a processor without a fast instruction set run the plain one."""
    with pytest.MonkeyPatch.context() as patch:
        if not kernels_instruction_set():
            patch.setenv("ENCORT_KERNELS_ISA", "reference")
        kernels_instruction_set.cache_clear()
        yield
    kernels_instruction_set.cache_clear()


@pytest.fixture(scope="module")
def bundle(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("native") / "bundle"
    export_bundle(checkpoint("roberta", "encoder"), output, variants=["fp32", "int8", "native-bf16", "native-int8"])
    return output


@needs_kernels
def test_embeddings_are_near_fp32_and_equal_alone_and_among_others(bundle: Path) -> None:
    with encort.load(bundle, precision="fp32") as full, encort.load(bundle, precision="bf16") as native:
        assert (native.variant.name, full.variant.name) == ("native-bf16", "cpu-fp32")
        together = native.embed(TEXTS)
        assert cosines(together, full.embed(TEXTS)).min() > 0.999
        np.testing.assert_allclose(together, [native.embed([text])[0] for text in TEXTS], atol=1e-6)


@needs_kernels
def test_int8_is_as_near_as_the_stock_operators(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    by_name = {variant.name: variant.fidelity for variant in opened.manifest.variants}
    native, stock = by_name["native-int8"], by_name["cpu-int8"]
    assert native is not None
    assert stock is not None
    assert native.mean_cosine > stock.mean_cosine - 0.002
    with encort.load(bundle, precision="int8") as model:
        assert model.variant.name == "native-int8"


@needs_kernels
def test_auto_is_bf16_where_the_kernels_are(bundle: Path) -> None:
    with encort.load(bundle) as model:
        assert model.variant.name == "native-bf16"
        assert model.instruction_set == kernels_instruction_set()
    assert {check.variant for check in verify_bundle(Bundle.open(bundle))} >= {"native-bf16", "native-int8"}


@needs_kernels
@pytest.mark.parametrize(
    ("architecture", "head"),
    [("mpnet", "token-classification"), ("distilbert", "text-classification"), ("electra", "question-answering")],
)
def test_heads_agree_with_eager(architecture: str, head: str, checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    export_bundle(checkpoint(architecture, head), tmp_path / "bundle", variants=["native-bf16"])
    (variant,) = Bundle.open(tmp_path / "bundle").manifest.variants
    assert variant.fidelity is not None
    assert variant.fidelity.mean_cosine > 0.9995
    if head == "text-classification":
        assert ", 0 label flips" in CliRunner().invoke(inspect, [str(tmp_path / "bundle")]).output


@needs_kernels
def test_a_variant_that_misses_the_golden_vectors_is_replaced(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise FidelityError("a cosine of 0.5")

    monkeypatch.setattr("encort.runtime.sessions.check_results", fail)
    with caplog.at_level(logging.WARNING), encort.load(bundle, precision="int8") as model:
        assert model.variant.name == "cpu-int8"
    assert "native-int8 is not used, cpu-int8 is: a cosine of 0.5" in caplog.text
    with pytest.raises(FidelityError, match=r"cosine of 0\.5"):
        encort.load(bundle, precision="bf16")


@needs_kernels
def test_a_load_reads_the_tokenizer_and_opens_the_graph_once(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Counter[type]()
    for kind in (Backend, Session):
        monkeypatch.setattr(kind, "__init__", _counted(kind, counts))
    with encort.load(bundle, precision="bf16", max_length=8) as model:
        assert model.variant.name == "native-bf16"
        assert model.tokenize(["card " * 20]).lengths.tolist() == [8]
    assert counts == {Backend: 1, Session: 1}


def _counted(kind: type, counts: Counter[type]) -> Callable[..., None]:
    original = kind.__init__  # type: ignore[misc]

    def init(self: object, *args: object, **kwargs: object) -> None:
        counts[kind] += 1
        original(self, *args, **kwargs)

    return init


@needs_kernels
def test_without_the_kernels_other_variants_run(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encort.runtime.bundle.cpu.kernels_instruction_set", lambda: "")
    with encort.load(bundle) as model:
        assert model.variant.name == "cpu-fp32"
    with encort.load(bundle, precision="int8") as model:
        assert model.variant.name == "cpu-int8"
    with pytest.raises(DeviceError, match=r"native-bf16 needs encort-kernels, which is not installed or does not know"):
        encort.load(bundle, precision="bf16")


@needs_kernels
def test_inspect_says_what_computes_native_layers(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = CliRunner().invoke(inspect, [str(bundle)]).output
    assert f"computed by encort-kernels, on this machine with {kernels_instruction_set()}" in printed
    monkeypatch.setattr("encort.runtime.bundle.kernels.kernels_instruction_set", lambda: "")
    assert (
        "not used on this machine: encort-kernels is not installed" in CliRunner().invoke(inspect, [str(bundle)]).output
    )


@needs_kernels
def test_a_profile_has_the_phases_of_the_layers(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    operators = profile(opened, opened.variant(Device.CPU, Precision.BF16), TEXTS)
    names = {operator.name for operator in operators if operator.seconds > 0}
    assert names >= {f"EncoderLayer, {phase}" for phase in ("qkv", "attention", "intermediate", "output norm")}
    assert sum(operator.share for operator in operators) == pytest.approx(1)


@needs_kernels
def test_a_wrong_name_of_an_instruction_set_is_named(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ENCORT_KERNELS_ISA", "avx513")
    kernels_instruction_set.cache_clear()
    try:
        with caplog.at_level(logging.WARNING), encort.load(bundle) as model:
            assert model.variant.name == "cpu-fp32"
    finally:
        kernels_instruction_set.cache_clear()
    assert "ENCORT_KERNELS_ISA=avx513 is no instruction set of this processor" in caplog.text


@needs_kernels
@pytest.mark.parametrize("damage", ["cut", "other processor"])
def test_a_damaged_library_is_named_and_other_variants_run(bundle: Path, tmp_path: Path, damage: str) -> None:
    for file in importlib.metadata.files("encort-kernels") or ():
        # Without the hashes of pip, the system's loader decides.
        if "__pycache__" not in file.parts and (damage == "cut" or file.name != "RECORD"):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), tmp_path / file)
    library = tmp_path / "encort_kernels" / "libencort_kernels.so"
    content = library.read_bytes()
    library.write_bytes(content[:5000] if damage == "cut" else content[:18] + b"\xb7" + content[19:])  # AArch64
    script = f"import encort; print(encort.load({str(bundle)!r}).variant.name)"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "cpu-fp32"
    assert "encort-kernels cannot be loaded, so native variants are not used; install it again" in result.stderr


def test_an_export_without_the_kernels_says_what_to_install(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encort.runtime.bundle.cpu.kernels_instruction_set", lambda: "")
    with pytest.raises(InputError, match=r"native variants need encort-kernels.*install it"):
        export_bundle(checkpoint("roberta", "encoder"), tmp_path / "bundle", variants=["native-bf16"])
    assert not (tmp_path / "bundle").exists()
