"""The oracle of S17: who was to blame for what, judged from what left the process and from the journal.

It reads the database with plain SQL and asks no code of the product. What it finds wrong it says in words.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from support.attribution.accounts import Account, Holder, World
from support.attribution.journal import FOR_A_TIME, LASTINGLY, OPEN, PERHAPS
from support.attribution.letter import (
    AFTER_THREE,
    COLUMNS,
    OF_A_SECRET,
    SCOPES,
    TOO_LONG,
    UNSENT_RULES,
    Row,
    allowed,
    budget,
    stays_of,
    wrong_end,
)
from support.attribution.record import Asked, Record


class Oracle:
    """Looks again and again while the world runs, and once more, thoroughly, when it has come to rest."""

    def __init__(self, path: Path, world: World, record: Record) -> None:
        self._world, self._record = world, record
        self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        self._db.row_factory = sqlite3.Row
        self._seen = 0
        self._urls = _urls_of_secrets(world)

    def close(self) -> None:
        """Let go of the database."""
        self._db.close()

    def glance(self) -> list[str]:
        """Return what is wrong with the marks written since the last look."""
        marks = self._rows("SELECT * FROM journal_marks WHERE id > ? ORDER BY id", self._seen)
        attempts = self._attempts_of("SELECT attempt_id FROM journal_marks WHERE id > ?", self._seen)
        self._seen = marks[-1]["id"] if marks else self._seen
        drills = self._record.drills
        return [wrong for mark in marks for wrong in self._wrong_mark(mark, attempts, drills)]

    def judge(self) -> list[str]:
        """Return everything that is wrong, once nothing is under way any more."""
        rows = {row["id"]: row for row in self._rows("SELECT * FROM attempts ORDER BY id")}
        by_place = stays_of(self._record.calls)
        return [
            *self._record.wrong,
            *self.glance(),
            *self._requests_and_rows(rows),
            *self._refreshes(rows.values()),
            *(wrong for asked in self._record.requests for wrong in self._what_was_sent(asked)),
            *(wrong for heard in self._record.calls for wrong in budget(heard)),
            *(wrong for stay in by_place.values() for wrong in self._refused_once(stay, rows)),
            *self._choices(rows, by_place),
            *self._blames(rows),
            *self._foreign_marks(),
        ]

    def _rows(self, query: str, *values: object) -> list[Row]:
        return self._db.execute(query, values).fetchall()

    def _attempts_of(self, ids: str, *values: object) -> dict[int, Row]:
        return {row["id"]: row for row in self._rows(f"SELECT * FROM attempts WHERE id IN ({ids})", *values)}

    def _wrong_mark(self, mark: Row, attempts: Mapping[int, Row], drills: set[int | None]) -> Iterator[str]:
        """A mark names what its attempt really used, in the scope of its class, and nothing else."""
        row, asked = attempts.get(mark["attempt_id"]), self._record.by_attempt.get(mark["attempt_id"])
        what = f"the mark {_told(mark)} of attempt {mark['attempt_id']}"
        if row is None:
            yield f"{what} has no attempt"
            return
        used = self._used(asked) if asked is not None else _used_by_refresh(row, self._world)
        if used is None:
            yield f"{what} was earned by nobody: no such request has left"
            return
        scope = SCOPES.get(mark["error_class"])
        named = {name: used[name] if name in COLUMNS.get(scope or "", ()) else None for name in _NAMES}
        said = {name: mark[name] for name in _NAMES}
        if mark["scope"] != scope or mark["provider"] != used["provider"] or said != named:
            yield f"{what} is not what was used: {used}"
        if row["error_class"] not in (None, mark["error_class"]):
            yield f"{what} has another class than the attempt, which ended {row['error_class']}"
        if row["outcome"] not in ("failed", "sent") or row["run_id"] in drills:
            yield f"{what} was made by an attempt that {row['outcome']} ({row['rule']})"
        if mark["too_late"]:
            yield f"{what} was made after a reset that the attempt had not seen"

    def _used(self, asked: Asked) -> dict[str, str | None]:
        assert asked.attempt is not None
        holder = self._world.accounts[asked.provider].holder(asked.label)
        return {
            "provider": asked.provider,
            "credential": asked.label,
            "quota_group": holder.quota_group,
            "base_url": asked.base_url,
            "model": asked.attempt.target.model,
        }

    def _requests_and_rows(self, rows: Mapping[int, Row]) -> Iterator[str]:
        """Every request has its row, every row its request, and the row says what became of exactly it."""
        for attempt_id, asked in self._record.by_attempt.items():
            row = rows.get(attempt_id)
            if row is None:
                yield f"attempt {attempt_id} has left and has no row"
                continue
            said = {name: row[name] for name in ("provider", *_NAMES)}
            if said != self._used(asked):
                yield f"attempt {attempt_id} is written as {said}, but used {self._used(asked)}"
            if row["run_id"] != asked.heard.call.run_id:
                yield f"attempt {attempt_id} stands in run {row['run_id']}, not {asked.heard.call.run_id}"
            yield from wrong_end(row, asked)
        for row in rows.values():
            unsent = row["outcome"] == "passed_over" or row["rule"] in UNSENT_RULES
            if not unsent and row["purpose"] != "refresh" and row["id"] not in self._record.by_attempt:
                yield f"attempt {row['id']} never left"

    def _refreshes(self, rows: Iterable[Row]) -> Iterator[str]:
        """The refreshes of each login are its own, at its own address, and no token is replayed blindly."""
        written: dict[tuple[str, str], list[Row]] = defaultdict(list)
        sent: dict[tuple[str, str], list[Asked]] = defaultdict(list)
        for row in rows:
            if row["purpose"] == "refresh" and row["rule"] not in UNSENT_RULES:
                written[row["provider"], row["credential"]].append(row)
        spent: set[str] = set()
        for asked in self._record.requests:
            if asked.refresh_token is not None:
                sent[asked.provider, asked.label].append(asked)
                if asked.refresh_token in spent:
                    yield f"a refresh token of {asked.provider} was sent again, though it may have been taken"
                if not asked.surely_not_taken:
                    spent.add(asked.refresh_token)
        for login in written.keys() | sent.keys():
            pairs = list(zip(written[login], sent[login], strict=False))
            if len(written[login]) != len(sent[login]):
                yield f"{login} was refreshed {len(sent[login])} times, written {len(written[login])} times"
            elif wrong := [row["id"] for row, asked in pairs if row["base_url"] != asked.base_url]:
                yield f"the refreshes {wrong} of {login} are written at another address"
            for row, asked in pairs:
                yield from wrong_end(row, asked)

    def _what_was_sent(self, asked: Asked) -> Iterator[str]:
        """A secret is its credential's own, goes to its own provider's addresses, and for its own target."""
        account, what = self._world.accounts[asked.provider], f"request {asked.number} to {asked.provider}"
        if asked.refresh_token is not None:
            if asked.base_url != account.token_url:
                yield f"{what}: a refresh token went to {asked.base_url}"
            return
        assert asked.attempt is not None
        target = asked.heard.call.targets[asked.attempt.target_index]
        meant = (target.provider, target.model, account.base_url)
        if (asked.provider, asked.attempt.target.model, asked.base_url) != meant:
            yield f"{what}: {meant} was meant, {asked.attempt.target} was asked at {asked.base_url}"
        holder = account.holder(asked.label)
        if not self._is_own(account, holder, asked.secret):
            yield f"{what}: the secret is not that of {asked.label}"
        if asked.secret in self._urls and asked.base_url not in self._urls[asked.secret]:
            yield f"{what}: the secret was given to {asked.base_url}"

    def _is_own(self, account: Account, holder: Holder, secret: str | None) -> bool:
        if holder.login:
            return self._record.owners.get(secret or "") == (account.name, holder.label)
        if holder.variable is None:
            return secret is None
        return secret in self._world.secrets_of(account, holder)

    def _refused_once(self, stay: list[Asked], rows: Mapping[int, Row]) -> Iterator[str]:
        """What was refused is not asked again at this target, but as the table has it; a login once more."""
        failures: dict[tuple[str, str], int] = defaultdict(int)
        refused: set[str] = set()
        groups: set[str] = set()
        for asked in stay:
            if asked.attempt is None:
                continue
            account = self._world.accounts[asked.provider]
            holder = account.holder(asked.label)
            if asked.label in refused or holder.quota_group in groups:
                yield f"attempt {asked.attempt.id}: {asked.label} of {account.name} had been refused before"
            error_class = rows[asked.attempt.id]["error_class"]
            if error_class is None:
                continue
            kind = OF_A_SECRET[0] if error_class in OF_A_SECRET else error_class
            failures[asked.label, kind] += 1
            times = failures[asked.label, kind]
            if times > allowed(error_class, holder, asked):
                refused.add(asked.label)
                if "group" in SCOPES.get(error_class, ""):
                    groups.add(holder.quota_group)

    def _choices(
        self, rows: Mapping[int, Row], stays: Mapping[tuple[int, int], list[Asked]]
    ) -> Iterator[str]:
        """Nothing closed is asked, nothing open is passed over: a mark closes what it names, and only it."""
        for noted in self._rows("SELECT * FROM journal_choices"):
            row, states = rows[noted["attempt_id"]], json.loads(noted["states"])
            if row["error_class"] in TOO_LONG and row["outcome"] == "passed_over":
                continue
            closed = (LASTINGLY,) if row["purpose"] == "probe" else (FOR_A_TIME, LASTINGLY)
            account = self._world.accounts[row["provider"]]
            if row["outcome"] == "passed_over":
                usable = [
                    each.label
                    for each in account.holders
                    if not each.unsure and states.get(each.label, OPEN) not in (*closed, PERHAPS)
                ]
                if usable:
                    yield f"attempt {row['id']} passed {account.name} over, though {usable} were open"
                continue
            if states[row["credential"]] in closed:
                yield f"attempt {row['id']} used {row['credential']} of {account.name} through a mark"
            asked = self._record.by_attempt.get(row["id"])
            if asked is not None and account.strategy == "fill_first":
                yield from self._first_open(asked, stays, states)

    def _first_open(
        self, asked: Asked, stays: Mapping[tuple[int, int], list[Asked]], states: Mapping[str, int]
    ) -> Iterator[str]:
        """Where credentials are taken in order, an earlier one is closed, or was refused here before.

        The same request again goes to the same one, also when another's login was refreshed in between.
        """
        assert asked.attempt is not None
        account = self._world.accounts[asked.provider]
        stay = stays[asked.heard.number, asked.attempt.target_index]
        before = [each for each in stay[: stay.index(asked)] if each.provider == asked.provider]
        answered = [each.label for each in before if each.attempt is not None]
        if answered and answered[-1] == asked.label:
            return
        asked_before = {each.label for each in before}
        groups = {account.holder(label).quota_group for label in asked_before}
        for holder in account.holders:
            if holder.label == asked.label:
                return
            spared = holder.unsure or holder.label in asked_before or holder.quota_group in groups
            if not spared and states.get(holder.label, OPEN) == OPEN:
                yield f"attempt {asked.attempt.id} left out {holder.label} of {account.name}, which was open"

    def _blames(self, rows: Mapping[int, Row]) -> Iterator[str]:
        """A failure that closes something has closed what it used: its mark stands as the row is settled.

        Unless somebody has reset it meanwhile, or brought the token that it lacked.
        """
        drills = self._record.drills
        for noted in self._rows("SELECT * FROM journal_blames WHERE NOT stands"):
            row = rows[noted["attempt_id"]]
            closes = row["error_class"] in SCOPES and row["error_class"] not in AFTER_THREE
            if closes and row["run_id"] not in drills:
                yield f"attempt {row['id']} failed with {row['error_class']}, and nothing of it is closed"

    def _foreign_marks(self) -> Iterator[str]:
        """No mark that stands is another provider's than its attempt."""
        earner = "SELECT 1 FROM attempts a WHERE a.id = m.attempt_id AND a.provider = m.provider"
        for mark in self._rows(f"SELECT * FROM marks m WHERE NOT EXISTS ({earner})"):
            yield f"the mark {_told(mark)} is not of its attempt's provider"


_NAMES = ("credential", "quota_group", "base_url", "model")


def _told(mark: Row) -> str:
    names = (mark[name] for name in ("provider", *_NAMES))
    return f"{mark['scope']} {mark['error_class']} on {', '.join(name for name in names if name)}"


def _urls_of_secrets(world: World) -> dict[str, set[str]]:
    """Return the addresses that each key may go to: those of the accounts that hold it."""
    urls: dict[str, set[str]] = defaultdict(set)
    for account in world.accounts.values():
        for holder in account.holders:
            for secret in world.secrets_of(account, holder):
                urls[secret].add(account.base_url)
    return urls


def _used_by_refresh(row: Row, world: World) -> dict[str, str | None] | None:
    """Return what a refresh used, of which no attempt was seen: its login, at its token endpoint."""
    account = world.accounts[row["provider"]]
    if row["purpose"] != "refresh" or row["base_url"] != account.token_url:
        return None
    holder = account.holder(row["credential"])
    if not holder.login:
        return None
    return {
        "provider": account.name,
        "credential": holder.label,
        "quota_group": holder.quota_group,
        "base_url": account.token_url,
        "model": row["model"],
    }
