"""Whether an answer is worth telling: `silent_when`, judged when it is there, and never at its cost."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from jobs.prompt import expression_asks_for, holds
from jobs.run import Outcome, RunState
from jobs.store.outputs import newest_outputs
from jobs.workshop import Work

LONGEST_JUDGED = 5.0  # seconds
_JUDGES = ThreadPoolExecutor(2, thread_name_prefix="silent-when")
"""Their own threads: an expression that nobody waits for any more takes none of those that others need."""

logger = logging.getLogger(__name__)


async def is_silent(work: Work, outcome: Outcome) -> bool:
    """Say whether a good answer is to be kept quiet; whatever goes wrong here is logged, and means no."""
    expression = work.job.silent_when
    if expression is None or outcome.state is not RunState.SUCCEEDED or outcome.output is None:
        return False
    try:
        async with asyncio.timeout(LONGEST_JUDGED):
            names = {"output": outcome.output, "last_output": await _last_output(work, expression)}
            judged = partial(holds, expression, names)
            return await asyncio.get_running_loop().run_in_executor(_JUDGES, judged)
    except TimeoutError:
        why = f"it was not decided within {LONGEST_JUDGED:g} s"
    except Exception as exc:  # the answer is there and paid: no expression and no database takes it away
        why = work.told(f"{type(exc).__name__}: {exc}")
    logger.error("run %d of %s: silent_when: %s; it counts as not silent", work.run.id, work.run.job, why)
    return False


async def _last_output(work: Work, expression: str) -> str:
    """Return the job's last answer before this one, as it was kept; empty where nobody asks for it."""
    if not expression_asks_for("last_output", expression):
        return ""
    name = work.job.name
    return (await work.workshop.store.read(newest_outputs, (name,)))[name]
