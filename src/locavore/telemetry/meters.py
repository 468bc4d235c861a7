"""Metrics of finished calls: the conventions' client histograms, and our own for cost and energy.

Labels are places, providers and models that answered: never a key, a person or a name that clients
choose.
"""

from opentelemetry.metrics import Histogram, Meter

from locavore.core.outcome import Attempt, CallRecord
from locavore.telemetry.conventions import operation, provider

SECONDS = tuple(0.01 * 2**n for n in range(14))
TOKENS = tuple(4**n for n in range(14))
"""Bucket edges that the conventions ask for: 0.01 to 81.92 s, 1 to 67,108,864 tokens."""


class Meters:
    """Instruments, and how a record counts in them."""

    def __init__(self, meter: Meter) -> None:
        def seconds(name: str, about: str) -> None:
            self._seconds[name] = meter.create_histogram(
                name, "s", about, explicit_bucket_boundaries_advisory=SECONDS
            )

        self._seconds: dict[str, Histogram] = {}
        seconds("gen_ai.client.operation.duration", "Of one attempt.")
        seconds("gen_ai.client.operation.time_to_first_chunk", "Of streamed attempts.")
        seconds("gen_ai.server.request.duration", "Of a call, all attempts and waits included.")
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Input and output tokens of one attempt; cached and reasoning tokens are in them.",
            explicit_bucket_boundaries_advisory=TOKENS,
        )
        self._cost = meter.create_counter("locavore.cost", "{USD}", "Known cost of attempts.")
        self._unknown = meter.create_counter(
            "locavore.cost.unknown", "{attempt}", "Attempts whose cost is unknown."
        )
        self._energy = meter.create_counter("locavore.energy", "J", "Measured on this machine.")

    def count(self, record: CallRecord) -> None:
        called = {
            "gen_ai.operation.name": operation(record.format),
            "locavore.outcome": record.outcome,
        }
        if record.decision.facts.task:
            called["locavore.task"] = record.decision.facts.task
        self._seconds["gen_ai.server.request.duration"].record(record.duration_s, called)
        for attempt in record.attempts:
            self._count_attempt(record, attempt)

    def _count_attempt(self, record: CallRecord, attempt: Attempt) -> None:
        common = {
            "gen_ai.operation.name": operation(record.format),
            "gen_ai.provider.name": provider(attempt.provider),
            "locavore.place": attempt.place,
        }
        if attempt.usage is not None:  # of a model that exists: a failed name may be anything
            common["gen_ai.request.model"] = attempt.model
        failed = common if attempt.fault is None else {**common, "error.type": attempt.fault}
        self._seconds["gen_ai.client.operation.duration"].record(attempt.duration_s, failed)
        if record.stream and attempt.ttft_s is not None:
            name = "gen_ai.client.operation.time_to_first_chunk"
            self._seconds[name].record(attempt.ttft_s, common)
        usage = attempt.usage
        if usage is not None:
            for kind, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
                if count is not None:
                    self._tokens.record(count, {**common, "gen_ai.token.type": kind})
        if attempt.cost is not None and attempt.cost.usd is not None:
            self._cost.add(float(attempt.cost.usd), common)
        elif attempt.cost is not None:
            self._unknown.add(1, common)

    def energy(self, meter: str, joules: int) -> None:
        """`meter`: as `ledger.energy` names it, `nvml:...` or `rapl:...`."""
        self._energy.add(joules, {"locavore.energy.source": meter.partition(":")[0]})
