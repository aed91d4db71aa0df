"""Figures for Prometheus. No label carries anything about a patient or a client."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class ServerMetrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        options: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("vividmed_requests", "Answered requests", ["path", "status"], **options)
        self.seconds = Histogram(
            "vividmed_request_seconds",
            "Time from request to end of answer",
            ["path"],
            buckets=_SECONDS,
            **options,
        )
        self.first_token_seconds = Histogram(
            "vividmed_first_token_seconds", "Time until the first token", buckets=_SECONDS, **options
        )
        self.in_flight = Gauge("vividmed_requests_in_flight", "Requests that are read or answered", **options)
        self.waiting = Gauge("vividmed_jobs_waiting", "Jobs that wait for the model", **options)
        self.batch_size = Histogram(
            "vividmed_batch_size", "Questions answered together", buckets=(1, 2, 4, 8, 16, 32), **options
        )
        self.prompt_tokens = Counter("vividmed_prompt_tokens", "Tokens read, images included", **options)
        self.written_tokens = Counter("vividmed_written_tokens", "Tokens written", **options)

    def render(self) -> bytes:
        """The figures in Prometheus' text format."""
        return generate_latest(self.registry)
