"""One target's turn: resolve, refresh, send, classify, settle, until it answers or is left."""

import asyncio
import random
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from jobs import clock
from jobs.attempt import Attempt, Purpose, Step, Wait
from jobs.credential import CredentialKind, Readable
from jobs.errors import ErrorClass
from jobs.events import Events
from jobs.providers.answer import Answer, Verdict
from jobs.providers.call import Left, Progress
from jobs.providers.classify import classify, completion_of
from jobs.providers.client import Client
from jobs.providers.gates import Gates
from jobs.providers.oauth import Adopted, Refresh, Refreshed, Refresher, Refused, Unanswerable
from jobs.providers.pool import Habits
from jobs.providers.recovery import Next, Situation, Visit, next_at_target
from jobs.providers.registry import Registry
from jobs.providers.resolve import PassedOver
from jobs.providers.rules import Rules
from jobs.providers.settle import (
    NeedsRefresh,
    Opened,
    open_attempt,
    record_unsent,
    settle_failure,
    settle_success,
)
from jobs.providers.tell import Teller
from jobs.providers.vault import Vault
from jobs.request import Completion
from jobs.secret import Redactor
from jobs.store.attempts import DRILL_RULE, Failure, Place
from jobs.store.store import Store
from jobs.store.tokens import TokenVerb, leave_tokens, together

LARGE_BODY = 128 * 1024

Ended = tuple[Completion, Attempt] | Left


@dataclass(frozen=True, slots=True)
class Services:
    """What the chain works with; made once by the composition root."""

    registry: Registry
    rules: Rules
    store: Store
    vault: Vault
    client: Client
    refresher: Refresher
    gates: Gates
    events: Events
    redactor: Redactor


class Stay:
    """The chain's time at one target: a fresh retry budget, and nothing carried over from another."""

    def __init__(self, services: Services, progress: Progress) -> None:
        self._services, self._progress = services, progress
        self._target = progress.target
        self._provider = services.registry.provider(self._target.provider)
        call = progress.call
        probes = call.through_closed and call.purpose is Purpose.MAIN
        self._place = Place(
            call.run_id, call.tries, Purpose.PROBE if probes else call.purpose, progress.index
        )
        self._drilled = call.drill.failures.get(self._target.provider) if call.drill else None
        self._marks = call.drill is None
        self._tell = Teller(services.events, services.redactor, call.run_id)
        self._visit = Visit()
        self._last: Left | None = None

    async def run(self) -> Ended:
        """Ask until there is an answer or a reason to leave."""
        while not self._progress.spent:
            step = await self._turn()
            if not isinstance(step, Next):
                return step
            if step.step in (Step.NEXT_TARGET, Step.STOP):
                assert self._last is not None
                return self._last
            await self._wait(step)
        return self._last or Left(self._target, ErrorClass.UNKNOWN, "no request or no time is left")

    async def _turn(self) -> Ended | Next:
        """Send one request, at most; then do what must be done before the next one."""
        async with self._services.gates.through(self._provider) as waited:
            self._progress.wait += waited
            opened = await self._open()
            match opened:
                case PassedOver():
                    return self._last or self._pass_over(opened)
                case NeedsRefresh():
                    step = Next(Step.REFRESH)
                case Opened(attempt):
                    answered = await self._send(attempt)
                    if isinstance(answered, Completion):
                        return answered, attempt
                    step = answered
        if step.step is Step.REFRESH:
            return await self.refresh(opened.readable)
        if step.step is Step.COMPRESS:
            await self._shrink()
        return step

    async def _open(self) -> Opened | NeedsRefresh | PassedOver:
        return await self._services.store.insist(
            open_attempt,
            self._services.vault,
            self._provider,
            self._target,
            self._place,
            habits=self._habits(),
            refreshes=self._refreshes,
            wait=self._progress.wait,
            recovery=self._progress.step_out if self._last is None else None,
            now=clock.utcnow(),
        )

    def _habits(self) -> Habits:
        return Habits(
            refused=frozenset(self._visit.refused),
            refused_groups=frozenset(self._visit.refused_groups),
            same=self._visit.same,
            through_closed=self._progress.call.through_closed,
            only=self._progress.call.only,
        )

    def _refreshes(self, label: str) -> bool:
        return self._drilled is None and label not in self._visit.refreshed

    def _pass_over(self, passed: PassedOver) -> Left:
        self._tell.passed_over(self._target, passed)
        return Left(self._target, passed.error_class, passed.message)

    async def _shrink(self) -> None:
        progress = self._progress
        assert progress.call.shrink is not None
        assert self._last is not None
        progress.shrunk = True
        progress.request = await progress.call.shrink(progress.request, self._last.error_class)

    async def _send(self, attempt: Attempt) -> Completion | Next:
        self._progress.spend()
        self._progress.reached = self._progress.index
        self._progress.wait = Wait()
        started = clock.monotonic()
        answer, verdict, completion = await self._asked(attempt)
        latency = clock.monotonic() - started
        if completion is None:
            error_class = verdict.error_class or ErrorClass.INVALID_RESPONSE
            return await self._failed(attempt, answer, verdict, error_class, latency)
        await self._services.store.insist(
            settle_success,
            attempt,
            usage=completion.usage,
            http_status=answer.status or 0,
            request_id=self._tell.request_id(answer),
            latency=latency,
            marks=self._marks,
        )
        self._tell.settled(attempt, verdict, answer, latency, completion)
        return completion

    async def _asked(self, attempt: Attempt) -> tuple[Answer, Verdict, Completion | None]:
        if self._drilled is not None:
            rehearsed = Verdict(
                self._drilled, DRILL_RULE, message="made to fail by the drill; nothing was sent"
            )
            return Answer(None, left=False), rehearsed, None
        call, provider = self._progress.call, self._provider
        timeout = min(call.timeout or provider.timeout, provider.timeout, self._progress.time_left)
        request = self._progress.request
        answer = await self._services.client.ask(attempt, self._provider, request, timeout=timeout)
        return answer, *await self._judged(answer)

    async def _judged(self, answer: Answer) -> tuple[Verdict, Completion | None]:
        """Classify an answer and read it if it is one; a large body is parsed off the loop."""

        def judge() -> tuple[Verdict, Completion | None]:
            verdict = classify(answer, self._target.provider, self._services.rules, now=clock.utcnow())
            return verdict, completion_of(answer) if verdict.error_class is None else None

        return await asyncio.to_thread(judge) if len(answer.body) > LARGE_BODY else judge()

    async def refresh(self, readable: Readable) -> Next:
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
                self._tell.refreshed(self._target, label, "adopted")
                return Next(Step.RETRY)
            case Refreshed():
                return await self._refreshed(done)
            case Refused():
                return await self._refresh_refused(readable, done)
            case Unanswerable(error_class, message):
                self._tell.refreshed(self._target, label, error_class)
                if readable.stale and readable.valid:
                    return Next(Step.RETRY)
                return await self._unsent(readable, error_class, message)

    async def _refreshed(self, done: Refreshed) -> Next:
        """Commit the new tokens and that their attempt succeeded, together."""
        self._progress.spend()
        await self._services.store.insist(
            together,
            done.store_tokens,
            settle_success,
            done.attempt,
            http_status=done.answer.status or 0,
            request_id=self._tell.request_id(done.answer),
            latency=done.seconds,
            marks=self._marks,
        )
        self._tell.settled(done.attempt, Verdict(None, "*/refreshed"), done.answer, done.seconds)
        self._tell.refreshed(self._target, done.attempt.credential.label, "succeeded")
        return Next(Step.RETRY)

    async def _refresh_refused(self, readable: Readable, done: Refused) -> Next:
        """Settle a refresh that gave no token; one that is still valid, or that came meanwhile, is used."""
        self._progress.spend()
        attempt, answer, seconds = done.attempt, done.answer, done.seconds
        verdict = classify(answer, self._target.provider, self._services.rules, now=clock.utcnow())
        error_class = verdict.error_class or ErrorClass.AUTH_UNAVAILABLE
        self._tell.refreshed(self._target, attempt.credential.label, error_class)
        if error_class is ErrorClass.AUTH_UNAVAILABLE:
            usable = readable.stale and readable.valid
        else:
            usable = await self._services.refresher.was_replaced(readable)
        if usable:
            retry = Next(Step.RETRY)
            return await self._settle(
                attempt, answer, verdict, error_class, retry, seconds, done.store_tokens
            )
        return await self._failed(attempt, answer, verdict, error_class, seconds, done.store_tokens)

    async def _failed(
        self,
        attempt: Attempt,
        answer: Answer,
        verdict: Verdict,
        error_class: ErrorClass,
        latency: float,
        store_tokens: TokenVerb = leave_tokens,
    ) -> Next:
        hint = verdict.wait.until - clock.utcnow() if verdict.wait else None
        situation = Situation(
            label=attempt.credential.label,
            quota_group=attempt.credential.quota_group,
            left=self._progress.time_left,
            requests_left=self._progress.requests_left,
            can_refresh=attempt.credential.kind is CredentialKind.OAUTH
            and attempt.purpose is not Purpose.REFRESH
            and self._drilled is None,
            repeat_safe=self._progress.call.repeat_safe,
            verifiable=not verdict.rule.endswith("/tls"),
            may_retry=self._progress.call.only is None and verdict.should_retry is not False,
            may_shrink=self._progress.may_shrink(error_class),
            hint=max(hint, timedelta(0)) if hint is not None else None,
        )
        chosen = next_at_target(error_class, self._visit, situation, jitter=random.random())  # noqa: S311 - no secret
        return await self._settle(attempt, answer, verdict, error_class, chosen, latency, store_tokens)

    async def _settle(
        self,
        attempt: Attempt,
        answer: Answer,
        verdict: Verdict,
        error_class: ErrorClass,
        chosen: Next,
        latency: float,
        store_tokens: TokenVerb,
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
            request_id=self._tell.request_id(answer),
            retry_after=max(0.0, (verdict.wait.until - now).total_seconds()) if verdict.wait else None,
            latency=latency,
        )
        settled = await self._services.store.insist(
            together,
            store_tokens,
            settle_failure,
            self._services.vault,
            self._provider,
            attempt,
            failure,
            wait=verdict.wait,
            chosen=chosen.step,
            onward=self._progress.step_out(error_class),
            habits=self._habits(),
            now=now,
            marks=self._marks,
        )
        self._last = Left(self._target, error_class, message or verdict.rule)
        self._tell.settled(attempt, Verdict(error_class, verdict.rule, failure.code), answer, latency)
        self._tell.marked(settled)
        return replace(chosen, step=settled.step)

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
            habits=self._habits(),
            now=clock.utcnow(),
            marks=self._marks,
        )
        self._last = Left(self._target, error_class, message)
        self._tell.marked(settled)
        return Next(settled.step)

    async def _wait(self, step: Next) -> None:
        if step.delay > timedelta(0):
            seconds = min(step.delay, self._progress.time_left).total_seconds()
            await asyncio.sleep(seconds)
            self._progress.wait += Wait(seconds, step.reason)
