"""An answer that has to fit a JSON Schema: held against it, and asked for once more where it does not."""

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from jobs.answer_schema import Fitting, Unfit, judge
from jobs.attempt import Purpose
from jobs.definition import OnTruncated
from jobs.errors import PromptdError
from jobs.providers.call import Answered, Call, ChainExhausted
from jobs.providers.chain import Chain
from jobs.request import Correction, Request
from jobs.secret import Redactor
from jobs.text import well_formed

LONGEST_QUOTED = 100_000
_JUDGES = ThreadPoolExecutor(2, thread_name_prefix="answer-schema")
"""Their own threads: a judgement that nobody waits for any more takes none of those that others need."""

_REMARK = (
    "This answer cannot be used: {faults}. Answer again with one JSON document that fits the schema below, "
    "and nothing before or after it.\n\n{schema}"
)


class AnswerUnfit(PromptdError):
    """No answer fits the schema, a repair included; `answered` is the last one there was."""

    def __init__(self, message: str, answered: Answered) -> None:
        super().__init__(message)
        self.answered = answered


async def conforming(
    answered: Answered, call: Call, chain: Chain, *, on_truncated: OnTruncated, redactor: Redactor
) -> Answered:
    """Return an answer that is JSON and fits the job's schema, that alone as its text; raises AnswerUnfit.

    What does not fit is asked for once more, by a call of its own: it begins at the target that answered,
    and shows the model its answer and what is wrong with it. Without a schema every answer fits. A cut
    answer of a job that does not keep cut answers is handed back as it is.
    """
    schema = answered.request.parameters.response_format
    if schema is None or _settled(answered, on_truncated):
        return answered
    judged = await _judged(answered, schema)
    if isinstance(judged, Fitting):
        return _with_text(answered, judged)
    repaired = await _repaired(answered, judged, schema, call, chain, redactor)
    if _settled(repaired, on_truncated):
        return repaired
    again = await _judged(repaired, schema)
    if isinstance(again, Unfit):
        raise AnswerUnfit(f"the answer does not fit its schema, nor does its repair: {again}", repaired)
    return _with_text(repaired, again)


async def _judged(answered: Answered, schema: Mapping[str, Any]) -> Fitting | Unfit:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_JUDGES, judge, answered.completion.text, schema)


def _settled(answered: Answered, on_truncated: OnTruncated) -> bool:
    return answered.completion.truncated and on_truncated is OnTruncated.FAIL


def _with_text(answered: Answered, fitting: Fitting) -> Answered:
    return replace(answered, completion=replace(answered.completion, text=fitting.text))


async def _repaired(
    answered: Answered, unfit: Unfit, schema: Mapping[str, Any], call: Call, chain: Chain, redactor: Redactor
) -> Answered:
    request = _correcting(answered, unfit, schema, redactor)
    first = answered.attempt.target_index
    repair = replace(call, purpose=Purpose.REPAIR, first=first, shrink=None, through_closed=False)
    try:
        repaired = await chain.complete(request, repair)
    except ChainExhausted as exc:
        message = f"the answer does not fit its schema: {unfit}; nobody could repair it: {exc}"
        raise AnswerUnfit(message, answered) from exc
    return replace(repaired, fallback_reason=answered.fallback_reason or repaired.fallback_reason)


def _correcting(answered: Answered, unfit: Unfit, schema: Mapping[str, Any], redactor: Redactor) -> Request:
    """Return the request with the model's own answer; it may go to another provider, so no key goes along."""
    text = redactor.own(answered.completion.text)
    shown = text if len(text) <= LONGEST_QUOTED else f"{text[:LONGEST_QUOTED]}…"
    remark = _REMARK.format(
        faults="; ".join(unfit.faults), schema=json.dumps(dict(schema), ensure_ascii=False)
    )
    correction = Correction(well_formed(shown), well_formed(redactor.own(remark)))
    return replace(answered.request, correction=correction)
