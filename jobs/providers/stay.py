"""One target's turn: resolve, refresh, send, classify, settle, until it answers or is left."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from functools import partial

from jobs import clock
from jobs.attempt import Attempt, Purpose, Step, Wait
from jobs.credential import Readable
from jobs.errors import ErrorClass
from jobs.events import ChainWaits
from jobs.providers.answer import Answer, Verdict
from jobs.providers.blame import Blame
from jobs.providers.call import Left, Progress
from jobs.providers.classify import classify, completion_of
from jobs.providers.oauth import Adopted, Refresh, Refreshed, Refused, Unanswerable
from jobs.providers.recovery import Next
from jobs.providers.resolve import PassedOver
from jobs.providers.services import Services
from jobs.providers.settle import (
    NeedsRefresh,
    Opened,
    open_attempt,
    pass_over_closed,
    settle_success,
)
from jobs.redaction import redacted
from jobs.request import Completion
from jobs.run import PaidAnswer, Served
from jobs.store.attempts import DRILL_RULE
from jobs.store.tokens import together
from jobs.text import without_nul

LARGE_BODY = 128 * 1024

Ended = tuple[Completion, Attempt] | Left


class Stay:
    """The chain's time at one target: a fresh retry budget, and nothing carried over from another."""

    def __init__(self, services: Services, progress: Progress) -> None:
        self._services, self._progress = services, progress
        blame = self._blame = Blame(services, progress)
        self._target, self._provider, self._place = blame.target, blame.provider, blame.place
        self._tell, self._visit = blame.tell, blame.visit
        self._drilled, self._marks = blame.drilled, blame.marks
        self._gave_up: set[str] = set()
        self._refreshing: asyncio.Timeout | None = None
        self._looked_at = clock.utcnow()

    async def run(self) -> Ended:
        """Ask until there is an answer or a reason to leave."""
        while not self._progress.spent:
            step = await self._turn()
            if not isinstance(step, Next):
                return step
            if step.step in (Step.NEXT_TARGET, Step.STOP):
                assert self._blame.last is not None
                return self._blame.last
            await self._wait(step)
        return self._blame.last or Left(self._target, ErrorClass.UNKNOWN, "no request or no time is left")

    async def _turn(self) -> Ended | Next:
        """Send one request, at most; then do what must be done before the next one."""
        if self._services.gates.full(self._provider) and (left := await self._left_at_the_gate()):
            return left
        async with self._services.gates.through(self._provider) as waited:
            self._progress.wait += waited
            opened = await self._open()
            match opened:
                case PassedOver():
                    return self._blame.last or self._pass_over(opened)
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

    async def _left_at_the_gate(self) -> Left | None:
        """Pass over a target that is closed without waiting for a place that it does not need."""
        self._looked_at = clock.utcnow()
        passed = await self._services.store.insist(
            pass_over_closed,
            self._services.vault,
            self._provider,
            self._target,
            self._place,
            habits=self._blame.habits(),
            wait=self._progress.wait,
            recovery=self._progress.step_out if self._blame.last is None else None,
            now=self._looked_at,
        )
        if passed is not None:
            return self._blame.last or self._pass_over(passed)
        left, why = self._progress.time_left, f"max_concurrency of {self._provider.name} is reached"
        self._services.events.emit(ChainWaits(self._place.run_id, left.total_seconds(), why))
        return None

    async def _open(self) -> Opened | NeedsRefresh | PassedOver:
        self._looked_at = clock.utcnow()
        return await self._services.store.insist(
            open_attempt,
            self._services.vault,
            self._provider,
            self._target,
            self._place,
            habits=self._blame.habits(),
            refreshes=self._refreshes,
            wait=self._progress.wait,
            recovery=self._progress.step_out if self._blame.last is None else None,
            now=self._looked_at,
        )

    def _refreshes(self, label: str) -> bool:
        return self._drilled is None and label not in self._visit.refreshed

    def _pass_over(self, passed: PassedOver) -> Left:
        self._tell.passed_over(self._target, passed)
        self._progress.wait = Wait()
        return Left(self._target, passed.error_class, passed.message, self._looked_at)

    async def _shrink(self) -> None:
        progress = self._progress
        assert progress.call.shrink is not None
        assert self._blame.last is not None
        progress.shrunk = True
        progress.request = await progress.call.shrink(progress.request, self._blame.last.error_class)

    async def _send(self, attempt: Attempt) -> Completion | Next:
        self._tell.opened(attempt)
        self._progress.spend()
        self._progress.wait = Wait()
        started = clock.monotonic()
        answer, verdict, completion = await self._asked(attempt)
        latency = clock.monotonic() - started
        if completion is None:
            error_class = verdict.error_class or ErrorClass.INVALID_RESPONSE
            return await self._blame.failed(attempt, answer, verdict, error_class, latency)
        own = partial(self._services.redactor.own, is_cut=completion.truncated)
        completion = replace(completion, text=await redacted(own, without_nul(completion.text)))
        await self._services.store.insist(
            settle_success,
            attempt,
            usage=completion.usage,
            http_status=answer.status or 0,
            request_id=self._tell.request_id(answer),
            latency=latency,
            marks=self._marks,
            paid=self._paid(attempt, completion),
        )
        self._tell.settled(attempt, verdict, answer, latency, completion)
        return completion

    def _paid(self, attempt: Attempt, completion: Completion) -> PaidAnswer | None:
        """Return what a run's own answer leaves in its row; a helper's goes nowhere."""
        call = self._progress.call
        if call.run_id is None or attempt.purpose not in (Purpose.MAIN, Purpose.REPAIR):
            return None
        served = Served(attempt.target.provider, attempt.target.model, attempt.credential.label)
        return PaidAnswer(
            call.run_id,
            call.tries,
            completion.text,
            completion.truncated,
            served,
            fallback=attempt.target_index > 0,
        )

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
        """Bring a login up to date; a retry when there is a token to try, else what its failure leads to.

        At most half of the time that is left is spent on it: then the chain goes on. A request that is under
        way goes on too, and its row stands; who has waited for another's in vain leaves a row that says so.
        """
        self._visit.refreshed.add(readable.credential.label)
        patience = self._progress.time_left / 2
        until = asyncio.get_running_loop().time() + patience.total_seconds()
        try:
            async with asyncio.timeout(None) as self._refreshing:
                return await self._services.refresher.refresh(
                    readable,
                    self._place,
                    self._target,
                    patience=patience,
                    opened=partial(self._refresh_opened, until),
                    settle=partial(self._settle_refresh, readable),
                )
        except TimeoutError:
            return self._give_up_refresh(readable, patience)
        finally:
            self._refreshing = None

    def _refresh_opened(self, until: float, attempt: Attempt) -> None:
        self._tell.opened(attempt)
        if self._refreshing is not None:
            self._refreshing.reschedule(until)

    def _give_up_refresh(self, readable: Readable, patience: timedelta) -> Next:
        """Go on without the answer to a refresh: with the old token while it is valid, else without it."""
        self._progress.spend()
        self._gave_up.add(readable.credential.label)
        if readable.stale and readable.valid:
            return Next(Step.RETRY)
        self._visit.refused.add(readable.credential.label)
        said = f"the login was not refreshed within {patience.total_seconds():.1f} s"
        self._blame.last = Left(self._target, ErrorClass.AUTH_UNAVAILABLE, said)
        return Next(Step.NEXT_CREDENTIAL)

    def _spend_refresh(self, attempt: Attempt) -> None:
        if attempt.credential.label not in self._gave_up:  # else it was counted then
            self._progress.spend()

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
                return await self._blame.unsent(readable, error_class, message)

    async def _refreshed(self, done: Refreshed) -> Next:
        """Commit the new tokens and that their attempt succeeded, together."""
        self._spend_refresh(done.attempt)
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
        self._spend_refresh(done.attempt)
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
            return await self._blame.settle(
                attempt, answer, verdict, error_class, retry, seconds, done.store_tokens
            )
        return await self._blame.failed(attempt, answer, verdict, error_class, seconds, done.store_tokens)

    async def _wait(self, step: Next) -> None:
        if step.delay > timedelta(0):
            seconds = min(step.delay, self._progress.time_left).total_seconds()
            await asyncio.sleep(seconds)
            self._progress.wait += Wait(seconds, step.reason)
