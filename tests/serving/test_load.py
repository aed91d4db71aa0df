"""Many clients at once: no answer is lost or goes to another client."""

import os
import time

import pytest

from benchmarks.serving import Load, expected_texts, make_clients, memory_of, run_load
from tests.fixtures.servers import MODEL


@pytest.mark.slow
def test_every_client_gets_its_own_answer_and_memory_stays_flat(address, app):
    load, different, rounds, tokens = Load(), 20, 10, 2
    expected = expected_texts(MODEL, different, tokens)
    clients = make_clients(address, 16)
    # The same requests in every round, so that the memory of later rounds can be compared.
    for number in range(1, rounds + 1):
        run_load(
            clients,
            "tiny",
            range(different),
            malformed=0.05,
            tokens=tokens,
            expected=expected,
            load=load,
        )
        if number in (rounds // 2, rounds):
            load.memory.append(memory_of(os.getpid()))
    assert not load.lost
    assert not load.mixed
    assert len(load.seconds) == different * rounds * 0.95
    assert load.growth < 0.1, "the memory is that of the server and its clients together"
    figures = app.state.service.metrics.registry
    # Clients have their answers a moment before the server has put the requests away.
    end = time.monotonic() + 30
    while figures.get_sample_value("vividmed_requests_in_flight") and time.monotonic() < end:
        time.sleep(0.01)
    assert figures.get_sample_value("vividmed_requests_in_flight") == 0
    assert figures.get_sample_value("vividmed_jobs_waiting") == 0
    batches = figures.get_sample_value("vividmed_batch_size_count")
    assert figures.get_sample_value("vividmed_batch_size_sum") > 1.5 * batches, (
        "questions are answered together"
    )
