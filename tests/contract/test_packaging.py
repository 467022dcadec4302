"""What is installed: every room, nothing else, and a runtime that stands alone."""

import re
import subprocess
import sys
import tomllib
import typing
from pathlib import Path

import pytest

import encort

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_links_of_the_package_lead_to_every_room():
    links = {link.name: str(link.readlink()) for link in (ROOT / "encort").iterdir() if link.is_symlink()}
    assert links == {room: f"../{room}" for room in ("runtime", "export", "training", "benchmarks")}


def test_the_runtime_needs_four_packages():
    names = {requirement.split(">")[0] for requirement in PYPROJECT["project"]["dependencies"]}
    assert names == {"click", "numpy", "onnxruntime", "tokenizers"}


def test_every_public_name_is_there():
    for name in encort.__all__:
        assert getattr(encort, name).__name__.endswith(name)
    assert set(encort.__all__) <= set(dir(encort))


@pytest.mark.parametrize(
    "public", [encort.Model, encort.ServiceContext, encort.Service, encort.AsyncService, encort.Stats]
)
def test_what_a_public_class_takes_and_gives_is_public(public):
    members = [getattr(member, "fget", member) for name, member in vars(public).items() if is_public(name)]
    hints = [str(typing.get_type_hints(each)) for each in [public, *members] if callable(each)]
    found = set(re.findall(r"(?:encort\.[\w.]+\.|<enum ')(\w+)", " ".join(hints)))
    assert found <= {*encort.__all__, "RequestOptions"}  # which only declares keyword arguments


def is_public(name):
    return not name.startswith("_") or name in {"__enter__", "__aenter__"}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        encort.lod  # noqa: B018


def test_the_versions_agree():
    assert encort.__version__ == PYPROJECT["project"]["version"]


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """Python of a fresh environment with the wheel and its base dependencies alone."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    pip = [str(folder / "venv/bin/python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], check=True)
    wheel = next(folder.glob("encort-*.whl"))
    subprocess.run([*pip, "install", "--constraint", str(ROOT / "constraints.txt"), str(wheel)], check=True)
    return folder / "venv/bin/python"


@pytest.mark.slow
def test_the_wheel_serves_a_bundle_with_base_dependencies_alone(bare_python, classifier_bundle, tmp_path):
    encort_command = bare_python.with_name("encort")
    with encort.load(classifier_bundle) as model:
        expected = model.classify(["my card is lost"])[0].label
    for arguments in (["predict", classifier_bundle, "my card is lost"], ["verify", classifier_bundle]):
        done = subprocess.run([encort_command, *arguments], capture_output=True, text=True, check=True, cwd=tmp_path)
        assert expected in done.stdout or arguments[0] == "verify"
    missing = subprocess.run(
        [encort_command, "export", "x", "-o", "y"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (missing.returncode, missing.stderr) == (
        50,
        'encort: encort export needs more packages: pip install "encort[export]"\n',
    )
