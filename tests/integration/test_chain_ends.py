"""Whatever providers answer, the chain ends within its budget and leaves a row for everything it did."""

import asyncio
import contextlib
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.hang_guard import wait_ends
from support.house import House, keyed, logged_in, open_house
from support.ledger import SECOND

from jobs.attempt import AttemptOutcome
from jobs.errors import ErrorClass
from jobs.mark import Mark
from jobs.providers.call import ChainExhausted
from jobs.providers.loopback import Loopback
from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.recovery import MOST_REQUESTS, MOST_TARGETS

WITHIN = 0.6
REPLIES = {
    "good": Reply.text("fine"),
    "empty": Reply.text(""),
    "no json": Reply.raw(200, {"content-type": "text/html"}, b"<html>"),
    "cut": Reply.text("fine").cut(),
    "cut late": Reply.text("fine").cut(20),
    "never": Reply.text("fine").silent(),
    "400": Reply.error(400, message="bad"),
    "401": Reply.error(401, code="invalid_api_key"),
    "401 dead": Reply.error(401, code="token_invalidated"),
    "402": Reply.error(402),
    "403": Reply.error(403),
    "404": Reply.error(404, code="model_not_found"),
    "418": Reply.error(418),
    "429": Reply.error(429),
    "429 soon": Reply.error(429, headers={"retry-after-ms": "20"}),
    "500": Reply.error(500),
    "503": Reply.error(503, headers={"retry-after-ms": "20"}),
    "too long": Reply.error(400, code="context_length_exceeded"),
    "filter": Reply.error(400, code="content_filter"),
}
GRANTS = {
    "granted": Reply.tokens(access_token="access-{number}", refresh_token="refresh-{number}"),
    "dead": Reply.token_error(400, "invalid_grant"),
    "busy": Reply.error(503),
    "lost": Reply.text("").cut(),
}
PROVIDERS = ("one", "two", "three", "login")
TARGETS = st.tuples(st.sampled_from(PROVIDERS), st.sampled_from(["m", "n"]))
SCRIPTS = st.lists(st.sampled_from(sorted(REPLIES)), min_size=1, max_size=5)
KEYS = ("A", "B", "C", "D", None)  # None: whatever token the login has


def house_of(server: Loopback) -> dict[str, Any]:
    """Return four providers: of one key, of two, of two that share a group, and of a login."""
    return {
        "one": keyed(server.base_url, "A"),
        "two": keyed(server.base_url, "B", "C"),
        "three": keyed(server.base_url, "D", "E", group="team"),
        "login": logged_in(server.base_url, server.token_url),
    }


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
@given(
    chain=st.lists(TARGETS, min_size=1, max_size=7),
    answers=st.lists(
        st.lists(st.sampled_from(sorted(REPLIES)), min_size=1, max_size=5), min_size=5, max_size=5
    ),
    grants=st.lists(st.sampled_from(sorted(GRANTS)), min_size=1, max_size=3),
    repeat_safe=st.booleans(),
    stale=st.booleans(),
)
def test_the_chain_ends_and_accounts_for_everything(
    chain: list[tuple[str, str]], answers: list[list[str]], grants: list[str], repeat_safe: bool, stale: bool
) -> None:
    """Invariants 3, 4, 5 and 9, and hard rule 7."""

    async def example(directory: Path) -> None:
        async with Loopback() as server, open_house(directory, house_of(server)) as house:
            await house.log_in("login", left=-SECOND if stale else None)
            for key, script in zip(KEYS, answers, strict=True):
                replies = [REPLIES[name] for name in script]
                server.script(Endpoint.CHAT, *replies, key=f"secret-of-{key}" if key else None)
            server.script(Endpoint.TOKEN, *(GRANTS[name] for name in grants))
            targets = [house.target(provider, model) for provider, model in chain]
            await complete(house, targets, repeat_safe=repeat_safe)
            await house.services.refresher.close()
            rows, marks = await house.attempts(), await house.marks()
            every_request_has_a_row(server, rows)
            every_target_has_a_row(rows, len(chain))
            every_mark_is_its_attempts(rows, marks)
            no_refused_credential_is_used_again(rows)

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(example(Path(directory)))


async def complete(house: House, targets: list[Any], *, repeat_safe: bool) -> None:
    """Ask the chain; an answer and the end of the chain are both good."""
    async with wait_ends():
        with contextlib.suppress(ChainExhausted):
            await house.complete(*targets, within=WITHIN, repeat_safe=repeat_safe)


def every_request_has_a_row(server: Loopback, rows: list[Any]) -> None:
    """No more requests than the budget; each one's row was committed before it left.

    What the deadline has cut off may have arrived, or not.
    """
    sent = [row for row in rows if row.outcome != AttemptOutcome.PASSED_OVER and row.rule != "*/unanswerable"]
    received = Counter("refresh" if one.endpoint is Endpoint.TOKEN else "main" for one in server.requests)
    arrived = [row for row in sent if row.error_class != ErrorClass.TIMEOUT]

    assert len(sent) <= MOST_REQUESTS
    assert Counter(row.purpose for row in arrived) <= received <= Counter(row.purpose for row in sent)
    assert AttemptOutcome.SENT not in {row.outcome for row in rows}


def every_target_has_a_row(rows: list[Any], length: int) -> None:
    """Targets are visited in order, none without a row; at most five are asked."""
    visited = [row.target_index for row in rows]

    assert visited == sorted(visited)
    assert set(visited) == set(range(max(visited) + 1))
    assert max(visited) < length
    assert (
        len({row.target_index for row in rows if row.outcome != AttemptOutcome.PASSED_OVER}) <= MOST_TARGETS
    )


def every_mark_is_its_attempts(rows: list[Any], marks: list[Mark]) -> None:
    """A mark names provider, credential, group, endpoint and model of the attempt that earned it."""
    by_id = {row.id: row for row in rows}
    for mark in marks:
        row = by_id[mark.attempt_id]
        assert (mark.provider, mark.error_class) == (row.provider, row.error_class)
        for name in ("credential", "quota_group", "base_url", "model"):
            assert getattr(mark, name) in (None, getattr(row, name))


def no_refused_credential_is_used_again(rows: list[Any]) -> None:
    """Not in this run: a refresh is the one second chance that a login has."""
    refused: set[tuple[str, str]] = set()
    for row in (each for each in rows if each.credential is not None):
        used = (row.provider, row.credential)
        assert used not in refused
        gone = row.recovery in ("next_credential", "next_target", "stop")
        if row.error_class in (ErrorClass.AUTH, ErrorClass.AUTH_DEAD, ErrorClass.AUTH_UNAVAILABLE) and gone:
            refused.add(used)
