"""Random damage to the folder of a bundle, as disks, interrupted copies, editors and strangers do it."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import onnx

from encort.runtime.bundle.bundle import file_entries
from encort.runtime.bundle.manifest import MANIFEST_FILE
from encort.runtime.bundle.schema import to_plain

Damage = Callable[[Path, Random], object]
"""Changes a copy of a bundle. The folder `OUTSIDE` next to the copy has the files of the intact bundle."""

OUTSIDE = "outside"
JUNK: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**31, 10**30, 1e308, float("nan"), "", "x" * 10**5, [], {}, [[]], {"a": {"b": None}}),
    *("../outside/config.json", "/dev/zero", "\x1b[31m\x07", "\ud800", "nul\0", "\u2028\u202e"),
)
"""Values that are put into JSON files."""
HUGE = 40 * 2**30
"""Bytes of a sparse file, more than the memory of a child."""


def change_content(folder: Path, random: Random) -> None:
    """Change the content of one file, and leave its hash in the manifest."""
    file = _random_file(folder, random)
    content = file.read_bytes()
    cut = random.randrange(len(content))
    file.write_bytes(
        random.choice(
            [
                _flipped(content, random),
                content[:cut],
                content + random.randbytes(9),
                b"",
                random.randbytes(cut),
                content[cut:] + content[:cut],
                _random_file(folder, random).read_bytes(),
            ]
        )
    )


def change_kind(folder: Path, random: Random) -> None:
    """Remove one file, or put something in its place that is not a plain file."""
    file = _random_file(folder, random)
    file.unlink()
    replace: Callable[[Path], object] = random.choice(
        [
            lambda _: None,
            Path.mkdir,
            os.mkfifo,
            lambda path: path.symlink_to(path.name),
            lambda path: path.symlink_to("/dev/zero"),
            lambda path: path.symlink_to("nowhere"),
            _make_huge,
        ]
    )
    replace(file)


def change_manifest(folder: Path, random: Random) -> None:
    """Change values of the manifest."""
    _rewrite_json(folder / MANIFEST_FILE, random)


def change_manifest_text(folder: Path, random: Random) -> None:
    """Change the text of the manifest, so that most of the results are no JSON, or unusual JSON."""
    file = folder / MANIFEST_FILE
    text = file.read_text(encoding="utf-8")
    cut = random.randrange(len(text))
    inserted = random.choice(["[" * 10**5, '{"a":' * 10**5, '"files": {},', "\ufeff", "\0", "1" * 5000, "NaN", "//"])
    file.write_text(text[:cut] + random.choice([inserted, ""]) + text[cut:], encoding="utf-8")


def craft_json(folder: Path, random: Random) -> None:
    """Change values of the tokenizer or the configuration, with right hashes."""
    _rewrite_json(folder / random.choice(["tokenizer.json", "config.json"]), random)
    _fix_hashes(folder)


def craft_content(folder: Path, random: Random) -> None:
    """Change bytes of a file, such as a graph or weights, with right hashes."""
    file = random.choice([file for file in sorted(folder.iterdir()) if file.name != MANIFEST_FILE])
    content = file.read_bytes()
    file.write_bytes(random.choice([_flipped(content, random), content[: random.randrange(len(content))]]))
    _fix_hashes(folder)


def craft_graph(folder: Path, random: Random) -> None:
    """Change a part of a graph, with right hashes."""
    file = random.choice(sorted(folder.glob("*.onnx")))
    model = onnx.load(file, load_external_data=False)
    node, weight = random.choice(model.graph.node), random.choice(model.graph.initializer)
    change: Callable[[], object] = random.choice(
        [
            lambda: setattr(node, "op_type", random.choice(["Identity", "Loop", "Softmax", "Nonsense"])),
            lambda: node.input.append(weight.name),
            lambda: node.ClearField("attribute"),
            lambda: weight.dims.append(random.choice([0, -1, 2**40])),
            lambda: weight.ClearField("external_data"),
            lambda: model.graph.node.remove(node),
            lambda: setattr(model.opset_import[0], "version", random.randrange(-1, 40)),
        ]
    )
    change()
    file.write_bytes(model.SerializeToString())
    _fix_hashes(folder)


def leave_by_name(folder: Path, random: Random) -> None:
    """Name a file outside of the folder in the manifest, in the place of one that the bundle uses."""
    file = folder / MANIFEST_FILE
    plain = json.loads(file.read_text(encoding="utf-8"))
    variant, key = plain["variants"][0], random.choice(["file", "weights_file"])
    name = random.choice(["../outside/{}", "{parent}/outside/{}", "./../outside/{}", "a/../../outside/{}"])
    outside = name.format(variant[key], parent=folder.parent)
    plain["files"][outside] = plain["files"][variant[key]]
    variant[key] = outside
    file.write_text(json.dumps(plain), encoding="utf-8")


def leave_by_link(folder: Path, random: Random) -> None:
    """Replace a file that the bundle uses by a link to the same file outside of the folder."""
    file = folder / random.choice([MANIFEST_FILE, "tokenizer.json", "cpu-fp32.onnx", "cpu-fp32.weights"])
    file.unlink()
    file.symlink_to(random.choice([Path("..") / OUTSIDE, folder.parent / OUTSIDE]) / file.name)


def leave_by_graph(folder: Path, random: Random) -> None:
    """Make a graph read its weights from outside of the folder."""
    file = folder / "cpu-fp32.onnx"
    model = onnx.load(file, load_external_data=False)
    location = random.choice(["../outside/{}", "{parent}/outside/{}", "link"])
    if location == "link":
        (folder / location).symlink_to(f"../outside/{file.stem}.weights")
    for weight in model.graph.initializer:
        for entry in weight.external_data:
            if entry.key == "location":
                entry.value = location.format(entry.value, parent=folder.parent)
    file.write_bytes(model.SerializeToString())
    _fix_hashes(folder)


SAME_RESULTS: tuple[Damage, ...] = (change_content, change_kind)
"""After this damage, a bundle that can be loaded gives the results of the intact one."""
ANY_RESULTS: tuple[Damage, ...] = (change_manifest, change_manifest_text, craft_json, craft_content, craft_graph)
"""After this damage, a bundle that can be loaded may give other results: it describes another model."""
NO_RESULTS: tuple[Damage, ...] = (leave_by_name, leave_by_link, leave_by_graph)
"""After this damage, a bundle cannot be loaded."""


def _random_file(folder: Path, random: Random) -> Path:
    return random.choice(sorted(folder.iterdir()))


def _flipped(content: bytes, random: Random) -> bytes:
    """Return the content with some bits flipped."""
    changed = bytearray(content)
    for _ in range(random.randrange(1, 9)):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _make_huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(HUGE)


def _rewrite_json(file: Path, random: Random) -> None:
    """Change one to three values."""
    plain = json.loads(file.read_text(encoding="utf-8"))
    for _ in range(random.randrange(1, 4)):
        container, key = random.choice(list(_entries(plain)))
        change = random.randrange(3)
        if change == 0:
            del container[key]
        elif change == 1:
            container[key] = random.choice(JUNK)
        elif isinstance(container, list):
            container.append(container[key])
        else:
            container[str(random.choice(JUNK))[:300]] = container[key]
    file.write_text(json.dumps(plain), encoding="utf-8")


def _entries(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every list and object of a JSON value with each of its keys."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _entries(value[key])


def _fix_hashes(folder: Path) -> None:
    """Write the hashes of the files as they are now into the manifest."""
    file = folder / MANIFEST_FILE
    plain = json.loads(file.read_text(encoding="utf-8"))
    plain["files"] = to_plain(file_entries(folder))
    file.write_text(json.dumps(plain), encoding="utf-8")
