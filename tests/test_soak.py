"""Every scenario of the soak runs for a moment. `make soak` runs them for minutes or hours."""

from pathlib import Path

import pytest

from tests.soak.models import Models, make_models
from tests.soak.runner import SCENARIOS, SoakError, run_scenario

SEED = 7


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return make_models(tmp_path_factory.mktemp("soak"))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_finds_no_fault(models: Models, name: str) -> None:
    counts = run_scenario(name, models, seed=SEED, seconds=1)
    assert counts["steps"] >= 1


def test_a_fault_is_told_with_its_seed_and_step(tmp_path: Path) -> None:
    with pytest.raises(SoakError, match=r"traffic failed at seed 7, step 3; repeat it with: .* --seed 7 --step 3\n"):
        run_scenario("traffic", Models(tmp_path), seed=SEED, seconds=1, first_step=3)
