"""Base of all scenarios: steps with random choices, and counts of what they did."""

from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path
from random import Random

from tests.soak.models import Models


class Scenario(ABC):
    """Something that is done again and again, each time with other random choices.

    A step that finds a fault raises an exception. All choices of a step come from the `Random` that it gets, so that a
    step can be repeated.

    Attributes:
        models: Models and their expected results.
        folder: Empty folder for the files of the scenario.
        counts: What was done so far.
    """

    def __init__(self, models: Models, folder: Path) -> None:
        self.models, self.folder, self.counts = models, folder, Counter[str]()

    @abstractmethod
    def step(self, random: Random) -> None:
        """Do it once."""

    def close(self) -> None:
        """Release what the steps shared, and check what only the end shows."""
        return
