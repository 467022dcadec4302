"""Fit the texts and the rounds of a workload to a time."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from encort.benchmarks.timing import ROUNDS, elapsed
from encort.runtime.text.token_batch import Text

FEWEST_ROUNDS = 3
"""Rounds that are kept, if the user names no number; texts are left out before these are."""
PROBE_TEXTS = 16

Run = Callable[[Sequence[Text]], object]


@dataclass(frozen=True, kw_only=True)
class WorkloadPlan:
    """Texts and rounds that fit a time.

    Attributes:
        texts: The texts, in their order.
        rounds: Rounds of all texts.
        round_seconds: Estimated time of one round of all systems.
    """

    texts: list[Text]
    rounds: int
    round_seconds: float


def plan_workload(
    texts: Sequence[Text], *, text_seconds: float, other_passes: float, rounds: int | None, seconds: float
) -> WorkloadPlan:
    """Return as many rounds and texts as fit.

    Rounds are left out first, down to three, then texts, which are drawn with a fixed seed. At least one text stays.

    >>> plan = plan_workload(["a"] * 100, text_seconds=0.1, other_passes=2, rounds=None, seconds=60)
    >>> len(plan.texts), plan.rounds
    (100, 4)

    Args:
        texts: All texts.
        text_seconds: Mean time of a text in all systems together.
        other_passes: Passes over the texts besides the rounds, counted in rounds.
        rounds: Number of rounds that the user wants; None takes at most seven.
        seconds: Time for the rounds and the other passes.
    """
    round_seconds = len(texts) * text_seconds
    if rounds is None:
        fitting = int(seconds / round_seconds - other_passes)
        rounds = min(ROUNDS, max(FEWEST_ROUNDS, fitting))
    count = min(len(texts), max(1, round(seconds / (text_seconds * (rounds + other_passes)))))
    chosen = sorted(random.Random(13).sample(range(len(texts)), count))  # noqa: S311 - no secret
    return WorkloadPlan(texts=[texts[index] for index in chosen], rounds=rounds, round_seconds=count * text_seconds)


def probe(systems: Mapping[str, Run], texts: Sequence[Text], show: Callable[[str], None]) -> dict[str, float]:
    """Return the seconds per text of each system, from its second run of a few texts.

    Args:
        systems: Functions that run texts, by name.
        texts: All texts; some are drawn.
        show: Called with the name of each system before it runs.
    """
    few = random.Random(13).sample([*texts], min(PROBE_TEXTS, len(texts)))  # noqa: S311 - no secret
    costs = {}
    for name, run in systems.items():
        show(name)
        run(few)
        costs[name] = elapsed(run, few) / len(few)
    return costs
