"""Packaging: links in a checkout, real files in sdist and wheel, and a runtime that stands alone."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import typing
import zipfile
from pathlib import Path

import pytest

import encort

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ROOMS = ("runtime", "integrations", "export", "training", "benchmarks")


def run(*command: object, cwd: Path, **options: typing.Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=cwd, check=False, **options)


def test_the_package_links_to_every_room() -> None:
    links = {link.name: str(link.readlink()) for link in (ROOT / "encort").iterdir() if link.is_symlink()}
    assert links == {room: f"../{room}" for room in ROOMS}


@pytest.mark.parametrize("has_text_files", [True, False])
def test_a_checkout_without_symbolic_links_says_what_to_do(tmp_path: Path, has_text_files: bool) -> None:
    (tmp_path / "encort").mkdir()
    shutil.copy(ROOT / "encort" / "__init__.py", tmp_path / "encort")
    for room in ROOMS if has_text_files else ():  # as Git on Windows checks links out
        (tmp_path / "encort" / room).write_text(f"../{room}")
    imported = run(sys.executable, "-c", "import encort", cwd=tmp_path)
    assert imported.returncode == 1
    assert imported.stderr.splitlines()[-1].startswith("ImportError: ")
    assert "git -c core.symlinks=true clone" in imported.stderr


def test_an_editable_install_is_a_path_that_type_checkers_follow() -> None:
    """In `pyproject.toml`, package-dir makes setuptools write a plain .pth file in place of an import hook."""
    assert PYPROJECT["tool"]["setuptools"]["package-dir"] == {"": "."}
    assert Path(encort.__file__).parent == ROOT / "encort"


def test_the_runtime_needs_four_packages() -> None:
    names = {requirement.split(">")[0] for requirement in PYPROJECT["project"]["dependencies"]}
    assert names == {"click", "numpy", "onnxruntime", "tokenizers"}


def test_every_public_name_exists() -> None:
    for name in encort.__all__:
        assert getattr(encort, name).__name__.endswith(name)
    assert set(encort.__all__) <= set(dir(encort))


@pytest.mark.parametrize(
    "public", [encort.Model, encort.ServiceContext, encort.Service, encort.AsyncService, encort.Stats]
)
def test_types_in_public_signatures_are_public(public: type) -> None:
    members = [getattr(member, "fget", member) for name, member in vars(public).items() if is_public(name)]
    hints = [str(typing.get_type_hints(member)) for member in [public, *members] if callable(member)]
    names = set(re.findall(r"(?:encort\.[\w.]+\.|<enum ')(\w+)", " ".join(hints)))
    assert names <= set(encort.__all__)


def is_public(name: str) -> bool:
    return not name.startswith("_") or name in {"__enter__", "__aenter__"}


@pytest.mark.parametrize("public", [getattr(encort, name) for name in encort.__all__ if name not in ("errors", "load")])
def test_public_classes_and_their_methods_have_docstrings(public: type) -> None:
    members = {name: getattr(member, "fget", member) for name, member in vars(public).items()}
    methods = [member for name, member in members.items() if not name.startswith("_") and callable(member)]
    assert public.__doc__
    assert [method.__qualname__ for method in methods if not method.__doc__] == []


def test_every_error_has_a_docstring() -> None:
    assert [name for name in encort.errors.__all__ if not vars(getattr(encort.errors, name)).get("__doc__")] == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        encort.lod  # noqa: B018


def test_the_versions_agree() -> None:
    assert encort.__version__ == PYPROJECT["project"]["version"]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the sdist of the checkout, and the wheel that was built from the sdist."""
    folder = tmp_path_factory.mktemp("distributions")
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    checkout = folder / "checkout"
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_symlink() or (ROOT / name).exists():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name, follow_symlinks=False)
    built = run(sys.executable, "-m", "build", "--outdir", folder, checkout, cwd=folder)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.slow
def test_sdist_and_wheel_contain_every_module_as_a_real_file(distributions: Path) -> None:
    modules = {
        f"encort/{file.relative_to(ROOT)}"
        for room in ROOMS
        for file in [*(ROOT / room).rglob("*.py"), *(ROOT / room).rglob("samples.txt")]
    }
    modules |= {f"encort/runtime/server/page/{file.name}" for file in (ROOT / "runtime/server/page").glob("*.*")}
    modules |= {"encort/__init__.py", "encort/__main__.py", "encort/errors.py", "encort/py.typed", "encort/server.py"}
    with zipfile.ZipFile(next(distributions.glob("encort-*.whl"))) as wheel:
        assert {name for name in wheel.namelist() if ".dist-info/" not in name} == modules
    with tarfile.open(next(distributions.glob("encort-*.tar.gz"))) as sdist:
        files = {member.name.partition("/")[2] for member in sdist.getmembers() if member.isfile()}
    assert modules <= files


@pytest.fixture(scope="module")
def bare_python(distributions: Path) -> Path:
    """Python of a fresh environment with the wheel and its base dependencies alone."""
    subprocess.run([sys.executable, "-m", "venv", str(distributions / "venv")], check=True)
    python = distributions / "venv/bin/python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheel = next(distributions.glob("encort-*.whl"))
    subprocess.run([*pip, "install", "--constraint", str(ROOT / "constraints.txt"), str(wheel)], check=True)
    return python


@pytest.mark.slow
def test_the_wheel_serves_a_bundle_with_base_dependencies_alone(
    bare_python: Path, classifier_bundle: Path, tmp_path: Path
) -> None:
    command = bare_python.with_name("encort")
    with encort.load(classifier_bundle) as model:
        expected = model.classify(["my card is lost"])[0].label
    predicted = run(command, "predict", classifier_bundle, "my card is lost", cwd=tmp_path)
    assert expected in predicted.stdout
    assert run(command, "verify", classifier_bundle, cwd=tmp_path).returncode == 0
    missing = run(command, "export", "x", "-o", "y", cwd=tmp_path)
    assert (missing.returncode, missing.stderr) == (
        50,
        'encort: encort export needs more packages: pip install "encort[export]"\n',
    )
