"""What is wrong with labelled data, gathered so that it is told at once."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from encort.runtime.common.errors import DatasetError
from encort.training.data.sources import Source

SHOWN_ROWS = 20


@dataclass
class Problems:
    """What is wrong with the data, found before anything is trained."""

    rows: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    other: list[str] = field(default_factory=list)

    def add(self, problem: str) -> None:
        self.other.append(problem)

    def add_row(self, source: Source, problem: str, number: int) -> None:
        self.rows[f"{source.name}: {problem}"].append(number)

    def __bool__(self) -> bool:
        return bool(self.rows or self.other)

    def check(self) -> None:
        """Refuse the data if there is any.

        Raises:
            DatasetError: All of them.
        """
        lines = [*self.other, *(f"{problem}: {_shown(numbers)}" for problem, numbers in self.rows.items())]
        if lines:
            raise DatasetError("this cannot be trained on:\n  " + "\n  ".join(lines))


def _shown(numbers: Sequence[int]) -> str:
    more = len(numbers) - SHOWN_ROWS
    shown = ", ".join(map(str, numbers[:SHOWN_ROWS]))
    return f"row{'s' if len(numbers) > 1 else ''} {shown}{f' and {more} more' if more > 0 else ''}"
