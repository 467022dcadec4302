"""Some processors cannot compute products of 8-bit integers exactly, and then another variant is served."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import encort
from encort.export.verification.against_checkpoint import verify_against_checkpoint
from encort.runtime.bundle import cpu
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.cpu import VNNI, cpu_name, has_instruction_set
from encort.runtime.bundle.manifest import Device, Precision
from encort.runtime.common.errors import DeviceError
from encort.runtime.verification.golden import verify_bundle
from tests.runtime.conftest import EditManifest, PlainManifest

CPUINFO = (
    "processor\t: 0\nmodel name\t: {name}\nflags\t\t: {flags}\n\nprocessor\t: 1\nmodel name\t: other\nflags\t\t:\n"
)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """`machine(kind, flags=..., name=...)` replaces the processor. Without flags there is no file that describes it."""

    def fake(kind: str = "x86_64", *, flags: str | None = None, name: str = "A Processor") -> None:
        monkeypatch.setattr("platform.machine", lambda: kind)
        monkeypatch.setattr("platform.processor", lambda: "")
        monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "cpuinfo")
        if flags is not None:
            (tmp_path / "cpuinfo").write_text(CPUINFO.format(name=name, flags=flags))
        forget()

    def forget() -> None:
        cpu._field.cache_clear()
        cpu.cpu_name.cache_clear()

    yield fake
    forget()


@pytest.mark.parametrize(
    ("kind", "flags", "has"),
    [
        ("x86_64", "fpu avx2 avx512_vnni ssse3", True),
        ("x86_64", "fpu avx2 avx_vnni", True),
        ("AMD64", "avx_vnni", True),
        ("x86_64", "fpu avx2 avx512f avx512bw", False),
        ("x86_64", "avx_vnni_int8 noavx512_vnni", False),
        ("x86_64", "", False),
        ("x86_64", None, False),
        ("AMD64", None, False),
        ("aarch64", None, True),
        ("arm64", None, True),
        ("ARM64", None, True),
    ],
)
def test_vnni_depends_on_the_flags_of_the_processor(
    machine: Callable[..., None], kind: str, flags: str | None, has: bool
) -> None:
    machine(kind, flags=flags)
    assert has_instruction_set(VNNI) is has


@pytest.mark.parametrize("name", ["", "VNNI", "amx_int8", "avx_vnni"])
def test_an_unknown_instruction_set_is_not_available(machine: Callable[..., None], name: str) -> None:
    machine(flags="avx512_vnni avx_vnni amx_int8")
    assert not has_instruction_set(name)


def test_the_name_of_the_processor_is_the_first_name_of_the_kernel(machine: Callable[..., None]) -> None:
    machine(flags="", name="AMD EPYC 9V74")
    assert cpu_name() == "AMD EPYC 9V74"


def test_without_a_name_the_kind_of_machine_is_the_name(machine: Callable[..., None]) -> None:
    machine("riscv64")
    assert cpu_name() == "riscv64"


@pytest.fixture
def vnni_bundle(bundle: Path, edit_manifest: EditManifest) -> Path:
    """A bundle whose first variant is its fp32 graph again, declared as int8 for VNNI."""

    def put_first(plain: PlainManifest) -> None:
        (full,) = [variant for variant in plain["variants"] if variant["name"] == "cpu-fp32"]
        int8 = {**full, "name": "cpu-int8", "precision": "int8", "instruction_set": VNNI}
        plain["variants"].insert(0, int8)

    edit_manifest(put_first)
    return bundle


@pytest.mark.parametrize(("flags", "chosen"), [("avx2 avx_vnni", "cpu-int8"), ("avx2", "cpu-fp32")])
def test_auto_takes_the_first_variant_that_the_processor_can_run(
    machine: Callable[..., None], vnni_bundle: Path, flags: str, chosen: str
) -> None:
    machine(flags=flags)
    assert Bundle.open(vnni_bundle).variant(Device.CPU, None).name == chosen
    with encort.load(vnni_bundle) as model:
        assert len(model.classify(["my card is lost"])) == 1


def test_the_error_for_a_precision_that_cannot_run_says_what_to_do(
    machine: Callable[..., None], vnni_bundle: Path
) -> None:
    machine(flags="avx2", name="An Old One")
    with pytest.raises(DeviceError, match=r"cpu-int8 .*vnni.*\(An Old One\).*--weight-bits 7, or load fp32"):
        encort.load(vnni_bundle, precision="int8")
    with encort.load(vnni_bundle, precision="fp32") as model:
        assert model.classify(["hello"])


def test_a_precision_that_the_processor_can_run_is_served(machine: Callable[..., None], vnni_bundle: Path) -> None:
    machine(flags="avx512_vnni")
    assert Bundle.open(vnni_bundle).variant(Device.CPU, Precision.INT8).name == "cpu-int8"
    assert json.loads((vnni_bundle / "encort.json").read_text())["variants"][0]["instruction_set"] == VNNI


@pytest.mark.parametrize(("flags", "checked"), [("avx2", False), ("avx_vnni", True)])
def test_verify_skips_a_variant_that_the_processor_cannot_run(
    machine: Callable[..., None], vnni_bundle: Path, flags: str, checked: bool
) -> None:
    machine(flags=flags)
    names = [check.variant for check in verify_bundle(Bundle.open(vnni_bundle))]
    assert ("cpu-int8" in names) is checked
    assert {"cpu-fp32", "cpu-fp32-ragged"} <= set(names)


def test_verify_against_the_checkpoint_also_skips_the_variant(
    machine: Callable[..., None], vnni_bundle: Path, classifier_checkpoint: Path
) -> None:
    machine(flags="avx2")
    fidelities = verify_against_checkpoint(Bundle.open(vnni_bundle), classifier_checkpoint)
    assert [variant.name for variant, _ in fidelities] == ["cpu-fp32", "cpu-fp32-ragged"]
