"""Many clients at once: no answer is lost or goes to another client."""

import os

import pytest

from benchmarks.serving import Load, expected_texts, memory_of, run_load
from tests.fixtures.servers import MODEL


@pytest.mark.slow
def test_every_client_gets_its_own_answer_and_memory_stays_flat(address, app):
    load, count, tokens = Load(), 200, 3
    expected = expected_texts(MODEL, 40, tokens)
    # The same 40 requests five times over, so that the memory of the later rounds can be compared.
    for number in range(5):
        run_load(
            address,
            "tiny",
            range(40),
            clients=16,
            malformed=0.05,
            tokens=tokens,
            expected=expected,
            load=load,
        )
        if number in (2, 4):
            load.memory.append(memory_of(os.getpid()))
    assert not load.lost
    assert not load.mixed
    assert len(load.seconds) == count * 0.95
    assert load.growth < 0.05
    figures = app.state.service.metrics.registry
    assert figures.get_sample_value("vividmed_requests_in_flight") == 0
    assert figures.get_sample_value("vividmed_jobs_waiting") == 0
    batches = figures.get_sample_value("vividmed_batch_size_count")
    assert figures.get_sample_value("vividmed_batch_size_sum") > 1.5 * batches, (
        "questions are answered together"
    )
