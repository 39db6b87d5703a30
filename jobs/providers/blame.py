"""What a failure at a target comes to: its row, the mark that it earns, and what is done next."""

import random
from dataclasses import replace
from datetime import datetime, timedelta

from jobs import clock
from jobs.attempt import Attempt, Purpose
from jobs.credential import CredentialKind, Readable
from jobs.errors import ErrorClass
from jobs.providers.answer import Answer, Verdict
from jobs.providers.call import Left, Progress
from jobs.providers.pool import Habits
from jobs.providers.recovery import Next, Situation, Visit, next_at_target
from jobs.providers.services import Services
from jobs.providers.settle import record_unsent, settle_failure
from jobs.providers.tell import Teller
from jobs.store.attempts import Failure, Place
from jobs.store.tokens import TokenVerb, leave_tokens, together


class Blame:
    """One visit's memory of what failed, and the one way in which a failure of it is written.

    `last` is the newest failure. In a drill, `drilled` is the class with which the target is made to fail,
    and nobody is marked.
    """

    def __init__(self, services: Services, progress: Progress) -> None:
        self._services, self._progress = services, progress
        self.target = progress.target
        self.provider = services.registry.provider(self.target.provider)
        call = progress.call
        probes = call.through_closed and call.purpose is Purpose.MAIN
        purpose = Purpose.PROBE if probes else call.purpose
        self.place = Place(call.run_id, call.tries, purpose, progress.index)
        self.drilled = call.drill.failures.get(self.target.provider) if call.drill else None
        self.marks = call.drill is None
        self.tell = Teller(services.events, services.redactor, call.run_id)
        self.visit = Visit()
        self.last: Left | None = None

    async def failed(
        self,
        attempt: Attempt,
        answer: Answer,
        verdict: Verdict,
        error_class: ErrorClass,
        latency: float,
        store_tokens: TokenVerb = leave_tokens,
    ) -> Next:
        """Settle a failure; return what follows by the table, and by what is open."""
        hint = verdict.wait.until - clock.utcnow() if verdict.wait else None
        situation = Situation(
            label=attempt.credential.label,
            quota_group=attempt.credential.quota_group,
            left=self._progress.time_left,
            requests_left=self._progress.requests_left,
            can_refresh=attempt.credential.kind is CredentialKind.OAUTH
            and attempt.purpose is not Purpose.REFRESH
            and self.drilled is None,
            repeat_safe=self._progress.call.repeat_safe,
            verifiable=not verdict.rule.endswith("/tls"),
            may_retry=self._progress.call.only is None and verdict.should_retry is not False,
            may_shrink=self._progress.may_shrink(error_class),
            hint=max(hint, timedelta(0)) if hint is not None else None,
        )
        chosen = next_at_target(error_class, self.visit, situation, jitter=random.random())  # noqa: S311 - no secret
        return await self.settle(attempt, answer, verdict, error_class, chosen, latency, store_tokens)

    async def settle(
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
        failure = self._failure(answer, verdict, error_class, latency, now)
        settled = await self._services.store.insist(
            together,
            store_tokens,
            settle_failure,
            self._services.vault,
            self.provider,
            attempt,
            failure,
            wait=verdict.wait,
            chosen=chosen.step,
            onward=self._progress.step_out(error_class),
            habits=self.habits(),
            now=now,
            marks=self.marks,
        )
        self.last = Left(self.target, error_class, failure.message or verdict.rule, now)
        self.tell.settled(attempt, Verdict(error_class, verdict.rule, failure.code), answer, latency)
        self.tell.marked(settled)
        return replace(chosen, step=settled.step)

    def _failure(
        self, answer: Answer, verdict: Verdict, error_class: ErrorClass, latency: float, now: datetime
    ) -> Failure:
        """Return what is written down of a failure, without secrets."""
        clean = self._services.redactor.clean
        return Failure(
            error_class=error_class,
            rule=verdict.rule,
            message=clean(verdict.message),
            code=verdict.code and clean(verdict.code)[:80],
            http_status=answer.status,
            request_id=self.tell.request_id(answer),
            retry_after=max(0.0, (verdict.wait.until - now).total_seconds()) if verdict.wait else None,
            latency=latency,
        )

    async def unsent(self, readable: Readable, error_class: ErrorClass, message: str) -> Next:
        """Settle a refresh that could not be asked for, as the failure that its credential has earned."""
        self.visit.refused.add(readable.credential.label)
        now = clock.utcnow()
        settled = await self._services.store.insist(
            record_unsent,
            self._services.vault,
            self.provider,
            self.target,
            self.place,
            readable,
            Failure(error_class, "*/unanswerable", message),
            onward=self._progress.step_out(error_class),
            habits=self.habits(),
            now=now,
            marks=self.marks,
        )
        self.last = Left(self.target, error_class, message, now)
        self.tell.marked(settled)
        return Next(settled.step)

    def habits(self) -> Habits:
        """Return what the next choice of a credential depends on, besides marks."""
        return Habits(
            refused=frozenset(self.visit.refused),
            refused_groups=frozenset(self.visit.refused_groups),
            same=self.visit.same,
            through_closed=self._progress.call.through_closed,
            only=self._progress.call.only,
        )
