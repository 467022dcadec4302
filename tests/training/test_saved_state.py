"""States of trainings that changed after they were saved."""

from collections.abc import Callable
from pathlib import Path

import pytest

from encort.runtime.common.errors import InputError
from encort.training.saved_state import check_state, seal

FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors", "trainer_state.json")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).write_bytes(name.encode())
    seal(tmp_path)
    return tmp_path


def cut_in_half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def fill_with_nonsense(file: Path) -> None:
    file.write_text('{"global_step": "x"}')


def test_an_unchanged_state_is_accepted(state: Path) -> None:
    check_state(state, processes=1)


@pytest.mark.parametrize("damage", [Path.unlink, cut_in_half, flip_a_bit, fill_with_nonsense])
@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_named(name: str, damage: Callable[[Path], None], state: Path) -> None:
    damage(state / name)
    with pytest.raises(InputError, match=rf"the saved state .* is damaged \(.*{name}.*--overwrite"):
        check_state(state, processes=1)


@pytest.mark.parametrize("damage", [cut_in_half, flip_a_bit, fill_with_nonsense])
def test_a_changed_seal_is_damage(damage: Callable[[Path], None], state: Path) -> None:
    damage(state / "sha256.json")
    with pytest.raises(InputError, match="is damaged"):
        check_state(state, processes=1)


@pytest.mark.parametrize("name", FILES[:-1])
def test_a_state_without_a_seal_needs_all_files(name: str, state: Path) -> None:
    (state / "sha256.json").unlink()
    check_state(state, processes=1)
    (state / name).unlink()
    with pytest.raises(InputError, match=f"it lacks {name}"):
        check_state(state, processes=1)


def test_every_process_needs_its_random_numbers(state: Path) -> None:
    (state / "rng_state_0.pth").touch()
    with pytest.raises(InputError, match=r"it lacks rng_state_1\.pth"):
        check_state(state, processes=2)
    (state / "rng_state_1.pth").touch()
    check_state(state, processes=2)
