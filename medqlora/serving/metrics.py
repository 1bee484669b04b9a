"""The figures of `/metrics`, in Prometheus' format. No label holds text of a client."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The figures of one service.

    Args:
        waiting: number of open questions, read when the figures are.
        ready: number of inference processes that take questions.
    """

    def __init__(self, waiting: Callable[[], float], ready: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        made = self.registry
        self.requests = Counter(
            "medqlora_requests", "Requests by endpoint and HTTP status", ["endpoint", "status"], registry=made
        )
        self.seconds = Histogram(
            "medqlora_request_seconds",
            "Time to the complete answer",
            ["endpoint"],
            buckets=_SECONDS,
            registry=made,
        )
        self.first_token = Histogram(
            "medqlora_first_token_seconds",
            "Time to the first token of a streamed answer",
            buckets=_SECONDS,
            registry=made,
        )
        self.tokens = Counter(
            "medqlora_tokens", "Tokens read (prompt) and generated (completion)", ["kind"], registry=made
        )
        self.decisions = Counter(
            "medqlora_decisions", "Answers by model and decision", ["model", "decision"], registry=made
        )
        self.refusals = Counter("medqlora_refusals", "Fixed safety replies by kind", ["kind"], registry=made)
        self.claims = Counter("medqlora_claims", "Verified claims by verdict", ["verdict"], registry=made)
        self.refused = Counter(
            "medqlora_refused_requests", "Requests refused by a limit", ["limit"], registry=made
        )
        self.restarts = Counter(
            "medqlora_process_restarts", "Inference processes that ended by themselves", registry=made
        )
        self.audit_errors = Counter(
            "medqlora_audit_errors", "Lines of the audit log that could not be written", registry=made
        )
        Gauge("medqlora_queue", "Questions that are waited for", registry=made).set_function(waiting)
        Gauge(
            "medqlora_processes_ready", "Inference processes that take questions", registry=made
        ).set_function(ready)

    def text(self) -> bytes:
        """All figures; the share of uncertain answers is `decision="uncertain"` over all decisions."""
        return generate_latest(self.registry)
