"""`promptd run export`: any number of runs, as CSV or JSON lines."""

import csv
import io
import json
from pathlib import Path

import pytest
from sqlalchemy import insert, update
from support.ledger import NOW
from test_cli_ground import World
from test_db_care import fill

from jobs.store.tables import runs


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A digest that has run every hour."""
    made = World(tmp_path)
    with made.ledger() as connection:
        fill(connection)
    return made


def test_runs_are_exported_as_csv_that_reads_back_as_it_was(world: World) -> None:
    """Line breaks, quotes and a leading = stand as they are."""
    odd = '="a"\r\nb, "c"\n'
    with world.ledger() as connection:
        connection.execute(update(runs).where(runs.c.id == 8).values(output=odd))

    said = world.run("run", "export")

    rows = list(csv.DictReader(io.StringIO(said.out, newline="")))
    assert (said.code, said.err) == (0, "")
    assert [row["id"] for row in rows] == [str(number) for number in range(8, 0, -1)]
    assert rows[0]["output"] == odd
    assert (rows[1]["scheduled_for"], rows[1]["fallback"]) == ("2026-09-04T15:00:00Z", "false")


def test_runs_are_exported_as_json_lines_of_the_shape_of_run_list(world: World, tmp_path: Path) -> None:
    target = tmp_path / "runs.jsonl"

    written = world.run("run", "export", "--format", "jsonl", "--output", str(target))
    again = world.run("run", "export", "--format", "jsonl", "--output", str(target))

    assert (written.code, written.out, again.code) == (0, "", 2)
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert lines == world.json("run-list", "run", "list")


@pytest.mark.parametrize(
    ("options", "ids"),
    [(["--limit", "2"], [8, 7]), (["--since", "2026-09-04T15:00"], [8, 7]), (["--job", "tick"], [])],
)
def test_an_export_takes_the_filters_of_run_list(world: World, options: list[str], ids: list[int]) -> None:
    said = world.run("run", "export", "--format", "jsonl", *options)

    assert [json.loads(line)["id"] for line in said.out.splitlines()] == ids


def test_an_export_reads_many_runs_in_portions_and_each_once(world: World) -> None:
    with world.ledger() as connection:
        row = {"job": "tick", "scheduled_for": NOW, "trigger": "manual", "state": "cancelled",
               "created_at": NOW, "finished_at": NOW}  # fmt: skip
        connection.execute(insert(runs), [row] * 450)

    said = world.run("run", "export", "--format", "jsonl")

    assert [json.loads(line)["id"] for line in said.out.splitlines()] == list(range(458, 0, -1))
