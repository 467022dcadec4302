"""Ray Data and Ray Serve over a bundle. `make clusters` has the packages."""

import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import encort

pa = pytest.importorskip("pyarrow")
ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")

COUNT = 60
TEXTS = [f"my card {number}" for number in range(COUNT)]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Four cores, of which reads and checkpoints need some. Ray runs nothing outside of this process's children."""
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def texts() -> Any:
    """Six blocks of ten texts."""
    blocks = [range(start, start + 10) for start in range(0, COUNT, 10)]
    return ray.data.from_arrow([pa.table({"id": block, "text": [TEXTS[n] for n in block]}) for block in blocks])


def vectors(rows: list[dict[str, Any]]) -> Any:
    assert sorted(row["id"] for row in rows) == list(range(COUNT))
    return np.stack([row["embedding"] for row in sorted(rows, key=lambda row: row["id"])])


def test_actors_give_the_results_of_the_model(bundle: Path, model: encort.Model, texts: Any) -> None:
    from encort.integrations.ray import Embed, embed

    expected = model.embed(TEXTS, prompt="passage")
    options = {"bundle": str(bundle), "prompt": "passage"}
    by_hand = texts.map_batches(
        Embed,
        fn_constructor_kwargs=options,
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=1,
        batch_format="pyarrow",
    )
    np.testing.assert_allclose(vectors(by_hand.take_all()), expected, atol=1e-6)
    in_one_call = embed(texts, str(bundle), prompt="passage", actors=(1, 2), batch_rows=20)
    np.testing.assert_allclose(vectors(in_one_call.take_all()), expected, atol=1e-6)


def test_an_actor_uses_the_cores_that_ray_gives_it(bundle: Path) -> None:
    from encort.integrations.ray import Embed

    class Threads(Embed):
        def __call__(self, table: Any) -> Any:
            return pa.table({"threads": [self._model.open().options.threads] * len(table)})

    one = ray.data.from_arrow(pa.table({"text": ["a"]}))
    counted = one.map_batches(
        Threads,
        fn_constructor_kwargs={"bundle": str(bundle)},
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=2,
        batch_format="pyarrow",
    )
    assert counted.take_all() == [{"threads": 2}]


def test_a_killed_actor_loses_nothing(bundle: Path, model: encort.Model, texts: Any, tmp_path: Path) -> None:
    from encort.integrations.ray import Embed, run

    killed = tmp_path / "killed"

    class Dying(Embed):
        def __call__(self, table: Any) -> Any:
            if 30 in table["id"].to_pylist() and not killed.exists():
                killed.touch()
                os._exit(1)
            return super().__call__(table)

    rows = run(Dying, texts, str(bundle), prompt="", batch_rows=10).take_all()
    assert killed.exists()
    np.testing.assert_allclose(vectors(rows), model.embed(TEXTS, prompt=""), atol=1e-6)


def test_a_checkpoint_by_id_skips_what_is_written(bundle: Path, texts: Any, tmp_path: Path) -> None:
    from ray.data.checkpoint import CheckpointConfig

    from encort.integrations.ray import Embed, run

    calls = tmp_path / "calls"

    class Counting(Embed):
        def __call__(self, table: Any) -> Any:
            with calls.open("a") as file:
                file.write("".join(f"{n}\n" for n in table["id"].to_pylist()))
            return super().__call__(table)

    texts.limit(30).write_parquet(str(tmp_path / "half"))
    texts.write_parquet(str(tmp_path / "all"))
    context = ray.data.DataContext.get_current()
    context.checkpoint_config = CheckpointConfig(
        id_column="id", checkpoint_path=str(tmp_path / "checkpoint"), delete_checkpoint_on_success=False
    )
    try:
        for source in ("half", "all"):  # as if the first job had stopped in the middle
            dataset = ray.data.read_parquet(str(tmp_path / source))
            run(Counting, dataset, str(bundle), batch_rows=10).write_parquet(str(tmp_path / "out"))
    finally:
        context.checkpoint_config = None
    written = ray.data.read_parquet(str(tmp_path / "out")).take_all()
    assert sorted(row["id"] for row in written) == list(range(COUNT))
    assert sorted(map(int, calls.read_text().split())) == list(range(COUNT))  # each id was computed once


def test_a_deployment_awaits_the_scheduler(bundle: Path, model: encort.Model) -> None:
    from ray import serve

    from encort.integrations.ray.serving import deployment

    handle = serve.run(deployment(str(bundle), replicas=(1, 2), ongoing_requests=8))
    try:
        answers = [handle.embed.remote(text, prompt="") for text in TEXTS[:20]]
        results = np.stack([answer.result() for answer in answers])
        np.testing.assert_allclose(results, model.embed(TEXTS[:20], prompt=""), atol=1e-5)
        body = json.dumps({"text": "hello", "prompt": ""}).encode()
        with urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:8000/", data=body)) as answer:
            vector = json.loads(answer.read())["embed"]
        np.testing.assert_allclose(vector, model.embed(["hello"], prompt="")[0], atol=1e-5)
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:8000/", data=b'{"call": "x", "text": "a"}'))
    finally:
        serve.shutdown()
