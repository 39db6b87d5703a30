"""One target's turn: resolve, refresh, send, classify, settle, until it answers or is left."""

import asyncio
import random
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from jobs import clock
from jobs.attempt import Attempt, Purpose, Step, Wait
from jobs.credential import CredentialKind, Readable
from jobs.errors import ErrorClass
from jobs.events import (
    AttemptSettled,
    AttributionWasRefused,
    CredentialMarked,
    Events,
    RefreshSettled,
    TargetPassedOver,
)
from jobs.providers.answer import Answer, Verdict
from jobs.providers.call import Left, Progress
from jobs.providers.classify import classify, completion_of
from jobs.providers.client import Client
from jobs.providers.oauth import Adopted, Refresh, Refreshed, Refresher, Refused, Unanswerable
from jobs.providers.recovery import Next, Situation, Visit, next_at_target
from jobs.providers.registry import Registry
from jobs.providers.resolve import PassedOver
from jobs.providers.rules import Rules
from jobs.providers.settle import (
    NeedsRefresh,
    Opened,
    Settled,
    open_attempt,
    record_unsent,
    settle_failure,
    settle_success,
)
from jobs.providers.vault import Vault
from jobs.request import Completion, Request
from jobs.secret import Redactor
from jobs.store.attempts import Failure, Place
from jobs.store.store import Store

_REQUEST_ID = ("x-request-id", "request-id", "cf-ray")

LARGE_BODY = 128 * 1024


@dataclass(frozen=True, slots=True)
class Services:
    """What the chain works with; made once by the composition root."""

    registry: Registry
    rules: Rules
    store: Store
    vault: Vault
    client: Client
    refresher: Refresher
    events: Events
    redactor: Redactor


class Stay:
    """The chain's time at one target: a fresh retry budget, and nothing carried over from another."""

    def __init__(self, services: Services, request: Request, progress: Progress) -> None:
        self._services, self._request, self._progress = services, request, progress
        self._target = progress.target
        self._provider = services.registry.provider(self._target.provider)
        call = progress.call
        self._place = Place(call.run_id, call.tries, call.purpose, progress.index)
        self._visit = Visit()
        self._last: Left | None = None

    async def run(self) -> tuple[Completion, Attempt] | Left:
        """Ask until there is an answer or a reason to leave."""
        while not self._progress.spent:
            opened = await self._open()
            match opened:
                case PassedOver():
                    return self._last or self._pass_over(opened)
                case NeedsRefresh(readable):
                    step = await self._refresh(readable)
                case Opened(attempt, readable):
                    answered = await self._send(attempt)
                    if isinstance(answered, Completion):
                        return answered, attempt
                    step = await self._refresh(readable) if answered.step is Step.REFRESH else answered
            if step.step in (Step.NEXT_TARGET, Step.STOP):
                assert self._last is not None
                return self._last
            await self._wait(step)
        return self._last or Left(self._target, ErrorClass.UNKNOWN, "no request or no time is left")

    async def _open(self) -> Opened | NeedsRefresh | PassedOver:
        return await self._services.store.insist(
            open_attempt,
            self._services.vault,
            self._provider,
            self._target,
            self._place,
            refused=frozenset(self._visit.refused),
            use_stale=frozenset(self._visit.refreshed),
            wait=self._progress.wait,
            recovery=self._progress.step_out if self._last is None else None,
            now=clock.utcnow(),
        )

    def _pass_over(self, passed: PassedOver) -> Left:
        self._services.events.emit(
            TargetPassedOver(
                self._place.run_id,
                self._target.provider,
                self._target.model,
                passed.error_class,
                passed.message,
            )
        )
        return Left(self._target, passed.error_class, passed.message)

    async def _send(self, attempt: Attempt) -> Completion | Next:
        self._progress.requests += 1
        self._progress.wait = Wait()
        timeout = min(self._provider.timeout, self._progress.time_left)
        started = clock.monotonic()
        answer = await self._services.client.ask(attempt, self._provider, self._request, timeout=timeout)
        latency = clock.monotonic() - started
        verdict, completion = await self._judged(answer)
        if completion is None:
            error_class = verdict.error_class or ErrorClass.INVALID_RESPONSE
            return await self._failed(attempt, answer, verdict, error_class, latency)
        await self._services.store.insist(
            settle_success,
            attempt,
            usage=completion.usage,
            http_status=answer.status or 0,
            request_id=self._request_id(answer),
            latency=latency,
        )
        self._tell(attempt, verdict, answer, latency, completion)
        return completion

    async def _judged(self, answer: Answer) -> tuple[Verdict, Completion | None]:
        """Classify an answer and read it if it is one; a large body is parsed off the loop."""

        def judge() -> tuple[Verdict, Completion | None]:
            verdict = classify(answer, self._target.provider, self._services.rules, now=clock.utcnow())
            return verdict, completion_of(answer) if verdict.error_class is None else None

        return await asyncio.to_thread(judge) if len(answer.body) > LARGE_BODY else judge()

    async def _refresh(self, readable: Readable) -> Next:
        """Bring a login up to date; a retry when there is a token to try, else what its failure leads to."""
        self._visit.refreshed.add(readable.credential.label)
        return await self._services.refresher.refresh(
            readable,
            self._place,
            self._target,
            left=self._progress.time_left,
            settle=partial(self._settle_refresh, readable),
        )

    async def _settle_refresh(self, readable: Readable, done: Refresh) -> Next:
        label = readable.credential.label
        match done:
            case Adopted():
                self._tell_refresh(label, "adopted")
                return Next(Step.RETRY)
            case Refreshed(attempt, answer, seconds):
                return await self._refreshed(attempt, answer, seconds)
            case Refused(attempt, answer, seconds):
                return await self._refresh_refused(readable, attempt, answer, seconds)
            case Unanswerable(error_class, message):
                self._tell_refresh(label, error_class)
                if readable.stale and readable.valid:
                    return Next(Step.RETRY)
                return await self._unsent(readable, error_class, message)

    async def _refreshed(self, attempt: Attempt, answer: Answer, seconds: float) -> Next:
        self._progress.requests += 1
        await self._services.store.insist(
            settle_success,
            attempt,
            http_status=answer.status or 0,
            request_id=self._request_id(answer),
            latency=seconds,
        )
        self._tell(attempt, Verdict(None, "*/refreshed"), answer, seconds)
        self._tell_refresh(attempt.credential.label, "succeeded")
        return Next(Step.RETRY)

    async def _refresh_refused(
        self, readable: Readable, attempt: Attempt, answer: Answer, seconds: float
    ) -> Next:
        """Settle a refresh that gave no token; one that is still valid, or that came meanwhile, is used."""
        self._progress.requests += 1
        verdict = classify(answer, self._target.provider, self._services.rules, now=clock.utcnow())
        error_class = verdict.error_class or ErrorClass.AUTH_UNAVAILABLE
        self._tell_refresh(attempt.credential.label, error_class)
        if error_class is ErrorClass.AUTH_UNAVAILABLE:
            usable = readable.stale and readable.valid
        else:
            usable = await self._services.refresher.was_replaced(readable)
        if usable:
            return await self._settle(attempt, answer, verdict, error_class, Next(Step.RETRY), seconds)
        return await self._failed(attempt, answer, verdict, error_class, seconds)

    async def _failed(
        self, attempt: Attempt, answer: Answer, verdict: Verdict, error_class: ErrorClass, latency: float
    ) -> Next:
        hint = verdict.wait.until - clock.utcnow() if verdict.wait else None
        situation = Situation(
            label=attempt.credential.label,
            left=self._progress.time_left,
            requests_left=self._progress.requests_left,
            can_refresh=attempt.credential.kind is CredentialKind.OAUTH
            and attempt.purpose is not Purpose.REFRESH,
            repeat_safe=self._progress.call.repeat_safe,
            verifiable=not verdict.rule.endswith("/tls"),
            hint=max(hint, timedelta(0)) if hint is not None else None,
        )
        chosen = next_at_target(error_class, self._visit, situation, jitter=random.random())  # noqa: S311 - no secret
        return await self._settle(attempt, answer, verdict, error_class, chosen, latency)

    async def _settle(
        self,
        attempt: Attempt,
        answer: Answer,
        verdict: Verdict,
        error_class: ErrorClass,
        chosen: Next,
        latency: float,
    ) -> Next:
        """Commit answer and mark together, with what is really done next; remember the last failure."""
        now = clock.utcnow()
        message = self._services.redactor.clean(verdict.message)
        failure = Failure(
            error_class=error_class,
            rule=verdict.rule,
            message=message,
            code=verdict.code and self._services.redactor.clean(verdict.code)[:80],
            http_status=answer.status,
            request_id=self._request_id(answer),
            retry_after=max(0.0, (verdict.wait.until - now).total_seconds()) if verdict.wait else None,
            latency=latency,
        )
        settled = await self._services.store.insist(
            settle_failure,
            self._services.vault,
            self._provider,
            attempt,
            failure,
            wait=verdict.wait,
            chosen=chosen.step,
            onward=self._progress.step_out(error_class),
            refused=frozenset(self._visit.refused),
            now=now,
        )
        self._last = Left(self._target, error_class, message or verdict.rule)
        self._tell(attempt, Verdict(error_class, verdict.rule, failure.code), answer, latency)
        self._tell_mark(attempt, settled)
        return Next(settled.step, chosen.delay, chosen.reason)

    async def _unsent(self, readable: Readable, error_class: ErrorClass, message: str) -> Next:
        self._visit.refused.add(readable.credential.label)
        settled = await self._services.store.insist(
            record_unsent,
            self._services.vault,
            self._provider,
            self._target,
            self._place,
            readable,
            Failure(error_class, "*/unanswerable", message),
            onward=self._progress.step_out(error_class),
            refused=frozenset(self._visit.refused),
            now=clock.utcnow(),
        )
        self._last = Left(self._target, error_class, message)
        self._tell_mark(settled.attempt, settled)
        return Next(settled.step)

    async def _wait(self, step: Next) -> None:
        if step.delay > timedelta(0):
            seconds = min(step.delay, self._progress.time_left).total_seconds()
            await asyncio.sleep(seconds)
            self._progress.wait = Wait(seconds, step.reason)

    def _tell(
        self,
        attempt: Attempt,
        verdict: Verdict,
        answer: Answer,
        latency: float,
        completion: Completion | None = None,
    ) -> None:
        usage = completion.usage if completion else None
        self._services.events.emit(
            AttemptSettled(
                attempt_id=attempt.id,
                run_id=self._place.run_id,
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

    def _tell_refresh(self, label: str, outcome: str) -> None:
        self._services.events.emit(RefreshSettled(self._target.provider, label, outcome))

    def _tell_mark(self, attempt: Attempt, settled: Settled) -> None:
        if settled.refused_attribution is not None:
            self._services.events.emit(AttributionWasRefused(attempt.id, settled.refused_attribution))
        if settled.mark is not None:
            self._services.events.emit(
                CredentialMarked(
                    attempt.target.provider,
                    attempt.credential.label,
                    settled.mark.scope,
                    settled.mark.error_class,
                    settled.mark.code,
                    settled.mark.until,
                    attempt.id,
                )
            )

    def _request_id(self, answer: Answer) -> str | None:
        found = next((answer.headers[name] for name in _REQUEST_ID if name in answer.headers), None)
        return self._services.redactor.clean(found)[:100] if found else None
