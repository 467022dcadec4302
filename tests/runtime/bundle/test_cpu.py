"""Which processors multiply bytes exactly, and what is served on those that do not."""

import json

import pytest

import encort
from encort.export.verification.against_checkpoint import verify_against_checkpoint
from encort.runtime.bundle import cpu
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.cpu import VNNI, cpu_name, has_instruction_set
from encort.runtime.bundle.manifest import Device, Precision
from encort.runtime.common.errors import DeviceError
from encort.runtime.verification.golden import verify_bundle

CPUINFO = (
    "processor\t: 0\nmodel name\t: {name}\nflags\t\t: {flags}\n\nprocessor\t: 1\nmodel name\t: other\nflags\t\t:\n"
)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """`machine(kind, flags=..., name=...)` is the one that the tests run on; without flags it tells nothing."""

    def fake(kind="x86_64", *, flags=None, name="A Processor"):
        monkeypatch.setattr("platform.machine", lambda: kind)
        monkeypatch.setattr("platform.processor", lambda: "")
        monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "cpuinfo")
        if flags is not None:
            (tmp_path / "cpuinfo").write_text(CPUINFO.format(name=name, flags=flags))
        forget()

    def forget():
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
def test_vnni_is_what_the_processor_says(machine, kind, flags, has):
    machine(kind, flags=flags)
    assert has_instruction_set(VNNI) is has


@pytest.mark.parametrize("name", ["", "VNNI", "amx_int8", "avx_vnni"])
def test_an_instruction_set_that_encort_does_not_know_is_not_there(machine, name):
    machine(flags="avx512_vnni avx_vnni amx_int8")
    assert not has_instruction_set(name)


def test_the_name_of_the_processor_is_the_first_that_the_kernel_gives(machine):
    machine(flags="", name="AMD EPYC 9V74")
    assert cpu_name() == "AMD EPYC 9V74"


def test_without_a_name_it_is_the_kind_of_machine(machine):
    machine("riscv64")
    assert cpu_name() == "riscv64"


@pytest.fixture
def vnni_bundle(bundle, edit_manifest):
    """The bundle's graph again as its first choice, said to be in eight bits and for VNNI."""

    def put_first(plain):
        (full,) = [variant for variant in plain["variants"] if variant["name"] == "cpu-fp32"]
        eight = {**full, "name": "cpu-int8", "precision": "int8", "instruction_set": VNNI}
        plain["variants"].insert(0, eight)

    edit_manifest(put_first)
    return bundle


@pytest.mark.parametrize(("flags", "chosen"), [("avx2 avx_vnni", "cpu-int8"), ("avx2", "cpu-fp32")])
def test_auto_takes_the_first_variant_that_the_processor_can_run(machine, vnni_bundle, flags, chosen):
    machine(flags=flags)
    assert Bundle.open(vnni_bundle).variant(Device.CPU, None).name == chosen
    with encort.load(vnni_bundle) as model:
        assert len(model.classify(["my card is lost"])) == 1


def test_a_precision_that_the_processor_cannot_run_is_refused_with_what_to_do(machine, vnni_bundle):
    machine(flags="avx2", name="An Old One")
    with pytest.raises(DeviceError, match=r"cpu-int8 .*vnni.*\(An Old One\).*--weight-bits 7, or load fp32"):
        encort.load(vnni_bundle, precision="int8")
    with encort.load(vnni_bundle, precision="fp32") as model:
        assert model.classify(["hello"])


def test_a_precision_that_the_processor_can_run_is_served(machine, vnni_bundle):
    machine(flags="avx512_vnni")
    assert Bundle.open(vnni_bundle).variant(Device.CPU, Precision.INT8).name == "cpu-int8"
    assert json.loads((vnni_bundle / "encort.json").read_text())["variants"][0]["instruction_set"] == VNNI


@pytest.mark.parametrize(("flags", "checked"), [("avx2", False), ("avx_vnni", True)])
def test_verify_leaves_out_what_the_processor_cannot_run(machine, vnni_bundle, flags, checked):
    machine(flags=flags)
    names = [check.variant for check in verify_bundle(Bundle.open(vnni_bundle))]
    assert ("cpu-int8" in names) is checked
    assert {"cpu-fp32", "cpu-fp32-ragged"} <= set(names)


def test_verify_against_the_checkpoint_leaves_it_out_too(machine, vnni_bundle, classifier_checkpoint):
    machine(flags="avx2")
    found = verify_against_checkpoint(Bundle.open(vnni_bundle), classifier_checkpoint)
    assert [variant.name for variant, _ in found] == ["cpu-fp32", "cpu-fp32-ragged"]
