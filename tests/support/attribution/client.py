"""The way out of the randomised world: it has the methods of the HTTP client, and answers by a script."""

import asyncio
import random
from collections.abc import Mapping
from datetime import timedelta

from jobs.attempt import Attempt
from jobs.providers.answer import Answer, Origin
from jobs.providers.registry import Provider
from jobs.request import Request
from support.attribution import answers
from support.attribution.record import Asked, Record

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_LIFETIMES = (7200, 7200, 7200, 200, 1)  # seconds; the shorter ones are stale at once


class ScriptedClient:
    """Notes each request before it answers; `outages` says how many more requests to a provider are lost.

    Tokens are five characters long: the redactor takes so short a text for a word, and stays quick.
    """

    def __init__(self, record: Record, seed: int) -> None:
        self._record = record
        self._rng = random.Random(f"answers {seed}")
        self._tokens = 0
        self.outages: dict[str, int] = {}

    async def ask(
        self, attempt: Attempt, provider: Provider, request: Request, *, timeout: timedelta
    ) -> Answer:
        """Answer one request to a model."""
        asked = self._record.asked(
            provider=str(provider.name),
            label=attempt.credential.label,
            base_url=attempt.base_url,
            secret=attempt.secret.reveal() if attempt.secret else None,
            attempt=attempt,
        )
        await self._linger()
        line = self._line(asked, attempt)
        return self._given(asked, line, line.answer(f"r{asked.number}"))

    async def post_form(self, url: str, form: Mapping[str, str], *, timeout: timedelta) -> Answer:
        """Answer one refresh."""
        token = form["refresh_token"]
        provider, label = self._record.owners[token]
        asked = self._record.asked(
            provider=provider, label=label, base_url=url, secret=None, refresh_token=token
        )
        await self._linger()
        line, left = self._token_line(provider, label), self._rng.random() < 0.5
        answer = line.answer(f"r{asked.number}", Origin.TOKEN, left=left)
        asked.surely_not_taken = not left if answer.status is None else answer.status in (400, 401, 429, 500)
        return self._given(asked, line, answer)

    def new_token(self, provider: str, label: str) -> str:
        """Return a token that only this login has."""
        self._tokens += 1
        text, left = "", self._tokens
        for _ in range(4):
            left, digit = divmod(left, len(_ALPHABET))
            text = _ALPHABET[digit] + text
        token = f"t{text}"
        self._record.owners[token] = provider, label
        return token

    def _line(self, asked: Asked, attempt: Attempt) -> answers.Line:
        if self.outages.get(asked.provider, 0) > 0:
            self.outages[asked.provider] -= 1
            return self._rng.choice(answers.OUTAGE)
        if self._rng.randrange(100) < answers.GOOD_IN_100:
            asked.said = f"answer {asked.number}"
            return answers.good(asked.said, attempt.api_mode)
        return answers.failure_of(self._rng, asked.provider)

    def _token_line(self, provider: str, label: str) -> answers.Line:
        if self._rng.randrange(100) < answers.GRANTED_IN_100:
            access, refresh = self.new_token(provider, label), self.new_token(provider, label)
            return answers.grant(access, refresh, expires_in=self._rng.choice(_LIFETIMES))
        weights = [weight for weight, _ in answers.TOKEN_REFUSALS]
        return self._rng.choices([line for _, line in answers.TOKEN_REFUSALS], weights)[0]

    def _given(self, asked: Asked, line: answers.Line, answer: Answer) -> Answer:
        asked.answered, asked.status = True, line.status
        asked.expected, asked.short_hint = line.expected, line.short_hint
        self._record.answered += 1
        return answer

    async def _linger(self) -> None:
        """Let others overtake: mostly for a turn of the loop or two, seldom for long."""
        if self._rng.random() < 0.05:
            await asyncio.sleep(self._rng.uniform(0.001, 0.1))
        else:
            for _ in range(self._rng.randrange(3)):
                await asyncio.sleep(0)
