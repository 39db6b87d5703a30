"""What the chain says of its work, as events, with secrets taken out."""

from dataclasses import dataclass

from jobs.attempt import Attempt
from jobs.events import (
    AttemptOpened,
    AttemptSettled,
    AttributionWasRefused,
    CredentialMarked,
    Events,
    RefreshSettled,
    TargetPassedOver,
)
from jobs.providers.answer import Answer, Verdict
from jobs.providers.resolve import PassedOver
from jobs.providers.settle import Settled
from jobs.request import Completion
from jobs.secret import Redactor
from jobs.target import Target

_REQUEST_ID = ("x-request-id", "request-id", "cf-ray")


@dataclass(frozen=True, slots=True)
class Teller:
    """Tells of one run's attempts; `run_id` is None outside runs."""

    events: Events
    redactor: Redactor
    run_id: int | None

    def opened(self, attempt: Attempt) -> None:
        """A request is about to leave."""
        self.events.emit(
            AttemptOpened(
                attempt.id,
                self.run_id,
                attempt.target.provider,
                attempt.target.model,
                attempt.credential.label,
                attempt.purpose,
            )
        )

    def settled(
        self,
        attempt: Attempt,
        verdict: Verdict,
        answer: Answer,
        latency: float,
        completion: Completion | None = None,
    ) -> None:
        """A request was answered, or failed; `latency` in seconds."""
        usage = completion.usage if completion else None
        self.events.emit(
            AttemptSettled(
                attempt_id=attempt.id,
                run_id=self.run_id,
                provider=attempt.target.provider,
                model=attempt.target.model,
                credential=attempt.credential.label,
                purpose=attempt.purpose,
                error_class=verdict.error_class,
                rule=verdict.rule,
                http_status=answer.status,
                code=verdict.code,
                latency=latency,
                input_tokens=usage.input_tokens if usage else None,
                output_tokens=usage.output_tokens if usage else None,
            )
        )

    def passed_over(self, target: Target, passed: PassedOver) -> None:
        """A target was not asked."""
        self.events.emit(
            TargetPassedOver(self.run_id, target.provider, target.model, passed.error_class, passed.message)
        )

    def refreshed(self, target: Target, label: str, outcome: str) -> None:
        """A refresh came to an end."""
        self.events.emit(RefreshSettled(target.provider, label, outcome))

    def marked(self, settled: Settled) -> None:
        """A failure closed something, or was not allowed to."""
        attempt, mark = settled.attempt, settled.mark
        if settled.refused_attribution is not None:
            self.events.emit(AttributionWasRefused(attempt.id, settled.refused_attribution))
        if mark is not None:
            self.events.emit(
                CredentialMarked(
                    attempt.target.provider,
                    attempt.credential.label,
                    mark.scope,
                    mark.error_class,
                    mark.code,
                    mark.until,
                    attempt.id,
                )
            )

    def request_id(self, answer: Answer) -> str | None:
        """Return the provider's own name for a request, to quote when asking its support."""
        found = next((answer.headers[name] for name in _REQUEST_ID if name in answer.headers), None)
        return self.redactor.clean(found)[:100] if found else None
