"""Run the race: `python -m encort.benchmarks.race`."""

from encort.benchmarks.race.race import main

main()
