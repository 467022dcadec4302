"""Requests at random: none makes the server fail. `make fuzz` sends many more of them.

schemathesis makes requests that fit the server's own description, and requests that do not.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.runtime.server.server_process import started
from tests.runtime.server.test_operations import metrics

schemathesis = pytest.importorskip("schemathesis")

EXAMPLES = int(os.environ.get("FUZZ", "10"))
FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
PATHS = ("embed", "predict", "v1/embeddings", "v1/tag", "v2/rerank", "v2/models/m/infer", "tokenize", "decode", "v2/x")
WAIT_S = 60


@pytest.fixture(scope="module")
def address(multi_head: Path) -> Iterator[str]:
    """Address of a server that lives to the end, without a failure of its own. The statuses are printed."""
    with started(multi_head, options=["--no-access-log"]) as (process, address):
        yield address
        assert process.poll() is None
        statuses = count_statuses(httpx.get(f"{address}/metrics", timeout=WAIT_S).text)
        print(f"\n{statuses.total()} requests: {dict(sorted(statuses.items()))}")  # noqa: T201 - the figures of make fuzz
        assert max(statuses) < "500"
        process.terminate()
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def count_statuses(exposition: str) -> "Counter[str]":
    """Return the numbers of requests by status."""
    statuses: Counter[str] = Counter()
    for (name, *labels), value in metrics(exposition).items():
        if name == "encort_requests_total":
            statuses[labels[-1]] += int(value)
    return +statuses


def test_requests_of_the_description_do_not_fail(address: str) -> None:
    check = schemathesis.checks.not_a_server_error
    for operation in schemathesis.openapi.from_url(f"{address}/openapi.json").get_all_operations():

        @FUZZ
        @given(case=operation.ok().as_strategy())
        def call(case: Any) -> None:
            if isinstance(case.body, dict) and "model" in case.body:
                case.body["model"] = "m"  # else most requests fail early
            if case.path_parameters:
                case.path_parameters["model"] = "m"
            case.validate_response(case.call(timeout=WAIT_S), checks=[check])

        call()


@FUZZ
@given(path=st.sampled_from(PATHS), body=st.binary(max_size=300), length=st.none() | st.integers(-1, 400))
def test_bytes_at_random_do_not_fail(address: str, path: str, body: bytes, length: int | None) -> None:
    headers = {} if length is None else {"inference-header-content-length": str(length)}
    answer = httpx.post(f"{address}/{path}", content=body, headers=headers, timeout=WAIT_S)
    assert 400 <= answer.status_code < 500
