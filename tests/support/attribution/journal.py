"""A journal that the database itself keeps: triggers that note every mark and every choice as it is written.

They run inside the transaction that they tell of, so they note what stood at that moment, whatever was under
way beside it. The rules in them are the specification's, in SQL; no code of the product is asked.
"""

import sqlite3
from collections.abc import Iterable
from pathlib import Path

OPEN, PERHAPS, FOR_A_TIME, LASTINGLY = 0, 1, 2, 3

# How a credential `c` stands for a request to NEW.base_url and NEW.model at NEW.started_at. A default
# time of these classes may have been cut to a minute where a provider has one credential only (hard rule 4).
_STATE = """
COALESCE((
  SELECT max(CASE
    WHEN m.until IS NULL THEN 3
    WHEN m.until_source = 'default' AND m.error_class IN ('rate_limit', 'auth', 'permission', 'unknown')
      AND c.provider IN (SELECT provider FROM lonely)
      AND strftime('%Y-%m-%d %H:%M:%f', m.made_at, '+59 seconds') <= NEW.started_at THEN 1
    ELSE 2 END)
  FROM marks m
  WHERE m.provider = c.provider
    AND (m.credential IS NULL OR m.credential = c.label)
    AND (m.quota_group IS NULL OR m.quota_group = c.quota_group)
    AND (m.base_url IS NULL OR m.base_url = NEW.base_url)
    AND (m.model IS NULL OR m.model = NEW.model)
    AND (m.until IS NULL OR m.until > NEW.started_at)
    AND (m.fingerprint IS NULL OR c.fingerprint IS NULL OR m.fingerprint = c.fingerprint)
), 0)
"""
# Whether a reset of what the mark closes came after its attempt had started (hard rule 3).
_TOO_LATE = """
EXISTS (
  SELECT 1 FROM credentials c JOIN attempts a ON a.id = NEW.attempt_id
  WHERE c.provider = NEW.provider
    AND (NEW.credential IS NULL OR c.label = NEW.credential)
    AND (NEW.quota_group IS NULL OR c.quota_group = NEW.quota_group)
    AND c.reset_at >= a.started_at
)
"""
_MARK = """
CREATE TRIGGER journal_mark_{event} AFTER {event} ON marks BEGIN
  INSERT INTO journal_marks
    (scope, provider, credential, quota_group, base_url, model, error_class, attempt_id, too_late)
  VALUES
    (NEW.scope, NEW.provider, NEW.credential, NEW.quota_group, NEW.base_url, NEW.model, NEW.error_class,
     NEW.attempt_id, {too_late});
END
"""
_CHOICE = """
CREATE TRIGGER journal_choice AFTER INSERT ON attempts
WHEN NEW.purpose <> 'refresh' BEGIN
  INSERT INTO journal_choices (attempt_id, states)
  SELECT NEW.id, json_group_object(c.label, {state}) FROM credentials c WHERE c.provider = NEW.provider;
END
"""
_BLAME = """
CREATE TRIGGER journal_blame AFTER UPDATE OF outcome ON attempts
WHEN NEW.outcome = 'failed' AND NEW.recovery IN ('next_credential', 'next_target', 'stop') BEGIN
  INSERT INTO journal_blames (attempt_id, stands)
  SELECT NEW.id, EXISTS (
    SELECT 1 FROM marks m
    WHERE m.provider = NEW.provider AND m.error_class = NEW.error_class
      AND (m.credential IS NULL OR m.credential = NEW.credential)
      AND (m.quota_group IS NULL OR m.quota_group = NEW.quota_group)
      AND (m.base_url IS NULL OR m.base_url = NEW.base_url)
      AND (m.model IS NULL OR m.model = NEW.model)
  ) OR EXISTS (
    SELECT 1 FROM credentials c WHERE c.provider = NEW.provider AND c.reset_at >= NEW.started_at
  ) OR {renewed};
END
"""
# Whether no refresh could be asked for, and a token or another login came just before that was told.
_RENEWED = """
(NEW.rule = '*/unanswerable' AND EXISTS (
  SELECT 1 FROM journal_logins l
  WHERE l.provider = NEW.provider AND l.label = NEW.credential
    AND l.at >= strftime('%Y-%m-%d %H:%M:%f', NEW.started_at, '-10 seconds')
))
"""
_LOGIN = """
CREATE TRIGGER journal_login_{event} AFTER {event} ON tokens {when} BEGIN
  INSERT INTO journal_logins VALUES (NEW.provider, NEW.label, strftime('%Y-%m-%d %H:%M:%f', 'now'));
END
"""
_TABLES = """
CREATE TABLE lonely (provider TEXT PRIMARY KEY);
CREATE TABLE journal_marks (
  id INTEGER PRIMARY KEY, scope TEXT, provider TEXT, credential TEXT, quota_group TEXT, base_url TEXT,
  model TEXT, error_class TEXT, attempt_id INTEGER, too_late INTEGER
);
CREATE TABLE journal_choices (attempt_id INTEGER PRIMARY KEY, states TEXT);
CREATE TABLE journal_blames (attempt_id INTEGER PRIMARY KEY, stands INTEGER);
CREATE TABLE journal_logins (provider TEXT, label TEXT, at TEXT);
CREATE INDEX journal_logins_of ON journal_logins (provider, label, at);
"""

_RUN = """
INSERT INTO runs (id, job, scheduled_for, trigger, state, tries, created_at, started_at)
VALUES (?, 's17', '2026-09-04 08:00:00.000000', 'manual', 'running', 1, '2026-09-04 08:00:00.000000',
        '2026-09-04 08:00:00.000000')
"""


def keep_journal(path: Path, lonely: Iterable[str], *, runs: int) -> None:
    """Put the journal's tables and triggers into a database, and so many runs, numbered from 1.

    `lonely` accounts may have one credential only.
    """
    connection = sqlite3.connect(path)
    connection.executescript(_TABLES)
    connection.executemany("INSERT INTO lonely VALUES (?)", [(name,) for name in lonely])
    for event in ("INSERT", "UPDATE"):
        connection.execute(_MARK.format(event=event, too_late=_TOO_LATE))
    connection.execute(_CHOICE.format(state=_STATE))
    connection.execute(_BLAME.format(renewed=_RENEWED))
    connection.execute(_LOGIN.format(event="INSERT", when=""))
    connection.execute(_LOGIN.format(event="UPDATE", when="WHEN NEW.generation <> OLD.generation"))
    connection.executemany(_RUN, ((number,) for number in range(1, runs + 1)))
    connection.commit()
    connection.close()
