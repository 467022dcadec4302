"""Allowed imports between the rooms, and between the folders of a room."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNTIME_ORDER = (
    {"common"},
    {"text"},
    {"bundle"},
    {"engine", "hub"},
    {"tasks", "cuda"},
    {"serving", "monitoring", "verification"},
    {"options"},
    {"sessions", "task_runner", "text_methods"},
    {"task_methods"},
    {"model"},
    {"corpus"},
    {"server"},
    {"cli"},
)
"""Folders of `runtime`, and the files beside them: each imports from itself and from those before it."""
EXPORT_ORDER = (
    {"graph"},
    {"source"},
    {"verification"},
    {"int8"},
    {"traced"},
    {"portable", "variants", "metrics", "options"},
    {"evaluation"},
    {"plan"},
    {"exporter"},
    {"commands"},
)
"""Folders of `export`, and the files beside them: each imports from itself and from those before it."""
TRAINING_ORDER = (
    {"settings", "features", "dual_encoder", "weights", "tied_weights", "saved_state", "progress", "pictures"},
    {"data", "pretrained"},
    {"tasks"},
    {"prepare"},
    {"disk_errors", "fit", "report", "resume"},
    {"train"},
    {"multi_head"},
    {"commands"},
)
"""Folders of `training`, and the files beside them: each imports from itself and from those before it."""
ORDERS = {"runtime": RUNTIME_ORDER, "export": EXPORT_ORDER, "training": TRAINING_ORDER}
MAY_IMPORT = {
    "runtime": {
        *("encort.runtime", "numpy", "onnxruntime", "tokenizers", "click"),
        # In functions, or in files that no other file imports.
        *("encort_kernels", "fsspec", "huggingface_hub", "pyarrow", "prometheus_client", "opentelemetry"),
        *("msgspec", "orjson", "starlette", "uvicorn"),  # in `server`, and in the command that starts it
    },
    # A user's scripts for another library run on encort: each adapter imports that library, in its own file or folder.
    "integrations": {
        *("encort.runtime", "encort.integrations", "numpy"),
        *("chromadb", "haystack", "langchain_core", "llama_index", "torch"),
        *("daft", "pyarrow", "pyspark", "ray", "starlette"),  # batch engines
    },
    "export": {
        # The command reads calibration texts as `encort embed` reads its input.
        *("encort.export", "encort.runtime", "click", "huggingface_hub", "matplotlib", "numpy", "onnx_ir", "optimum"),
        "peft",  # in the function that merges an adapter
        *("safetensors", "scipy", "tokenizers", "torch", "tqdm", "transformers"),
    },
    "training": {
        # Training reads texts, and finds spans and answers, with the code that serves them.
        *(f"encort.runtime.{folder}" for folder in ("common", "text", "tasks")),
        "encort.training",
        *("click", "datasets", "matplotlib", "numpy", "scipy", "sklearn", "torch", "transformers"),
    },
}
HEAVY = ("torch", "transformers", "onnx", "optimum", "onnx_ir", "datasets", "sklearn")


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports break the mapping of folders"
            yield str(node.module)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    allowed = {*MAY_IMPORT[room], *sys.stdlib_module_names}
    for file in (ROOT / room).rglob("*.py"):
        for name in imports(file):
            parts = name.split(".")
            prefixes = {".".join(parts[: end + 1]) for end in range(len(parts))}
            assert prefixes & allowed, f"{file.relative_to(ROOT)} imports {name}"


def rank(room: str, name: str) -> int | None:
    """Return the position of a module's folder in the order of the room; None for a module outside of the room."""
    parts = name.split(".")
    if parts[:2] != ["encort", room] or len(parts) < 3:
        return None
    ranks = [number for number, group in enumerate(ORDERS[room]) if parts[2] in group]
    assert len(ranks) == 1, f"give {room}/{parts[2]} a place in the order of its room, above"
    return ranks[0]


@pytest.mark.parametrize("room", ORDERS)
def test_a_folder_imports_only_from_those_before_it(room: str) -> None:
    for file in (ROOT / room).rglob("*.py"):
        module = ".".join(["encort", *file.relative_to(ROOT).with_suffix("").parts])
        own = module.split(".")[2]
        if own == "__init__":
            continue
        for name in imports(file):
            imported = rank(room, name)
            is_before = imported is None or imported < rank(room, module) or name.split(".")[2] == own
            assert is_before, f"{module} imports {name}, which stands beside or after it"


def run_python(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_encort_loads_nothing_at_all() -> None:
    loaded = run_python(
        "import encort, sys; print([m for m in sys.modules if m.startswith(('numpy', 'onnx', 'torch'))])"
    )
    assert loaded.strip() == "[]"


def test_serving_loads_nothing_heavy(classifier_bundle: Path) -> None:
    code = (
        "import sys, encort; model = encort.load(sys.argv[1]); model.classify(['hello']); model.embed(['a']);"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert run_python(code, str(classifier_bundle)).strip() == "[]"


def test_the_folders_are_never_loaded_under_a_second_name(classifier_bundle: Path) -> None:
    code = (
        "import sys, encort; encort.load(sys.argv[1]).classify(['hello']);"
        "print([name for name in ('runtime', 'integrations', 'export', 'training') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(classifier_bundle)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_a_loaded_model_leaves_no_telemetry_behind(classifier_bundle: Path, tmp_path: Path) -> None:
    code = "import encort, sys; encort.load(sys.argv[1]).embed(['hello', 'my card'])"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code, classifier_bundle], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []
