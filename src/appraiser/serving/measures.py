"""What Prometheus reads at /metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from appraiser.serving.engine import Engine

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Measures:
    """The service's numbers, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "appraiser_requests", "Requests by route and status.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "appraiser_request_seconds",
            "Time from the first byte to the last.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.refused = Counter(
            "appraiser_refused", "Requests refused because all places were taken.", registry=self.registry
        )
        self.left = Counter("appraiser_clients_left", "Clients that left before the answer.", registry=self.registry)
        self.tokens = Counter("appraiser_generated_tokens", "Tokens that were generated.", registry=self.registry)
        self.batch_rows = Histogram(
            "appraiser_batch_rows",
            "Requests answered together.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )

    def watch(self, engine: Engine) -> None:
        """Report an engine's places and queue."""
        taken = Gauge("appraiser_places_taken", "Requests being served or waiting.", registry=self.registry)
        taken.set_function(lambda: engine.num_taken)
        waiting = Gauge("appraiser_waiting", "Requests that no worker has taken yet.", registry=self.registry)
        waiting.set_function(lambda: engine.num_waiting)

    def text(self) -> bytes:
        """All numbers in the exposition format."""
        return generate_latest(self.registry)
