"""S7, S8: a good answer gets a title where the job wants one, and is no worse off without."""

import signal
import subprocess

from support.helped import CHAT_OVERFLOW, GATHERED, NOT_YOU, Place, steps
from support.workplace import PATIENCE, PROMPTD, eventually

from jobs.providers.loopback_replies import Endpoint, Reply

TITLE = "auxiliary: {title: {provider: house, model: small, fallback_to_main: false, timeout: 1m}}"


TITLED = "SELECT id FROM runs WHERE title IS NOT NULL ORDER BY id LIMIT 1"


def test_a_good_answer_gets_a_title_in_one_clean_line(place: Place) -> None:
    place.configure(TITLE)
    place.main.script(Endpoint.CHAT, Reply.text("The disks are full."))
    place.helper.script(
        Endpoint.CHAT, Reply.text('<think>hm</think>\n\n## "Title: Full\tdisks"\nIn words: …')
    )

    with place.workplace.daemon():
        (titled,) = eventually(lambda: place.workplace.rows(TITLED) or None)
        run = place.workplace.shown(titled["id"])

    assert (run["state"], run["output"], run["title"]) == ("succeeded", "The disks are full.", "Full disks")
    assert steps(run) == [("main", "custom:main", None, None), ("title", "house", None, None)]
    assert "The disks are full." in place.helper.requests[0].prompt
    assert GATHERED[:40] not in place.helper.requests[0].prompt
    assert "Full disks" in place.workplace.run("run", "show", str(run["id"])).out


def test_a_title_that_nobody_gives_is_no_failure(place: Place) -> None:
    """S8 too: the refusal is the helper's own."""
    place.configure(TITLE)
    place.main.script(Endpoint.CHAT, Reply.text("all quiet"))
    place.helper.script(Endpoint.CHAT, NOT_YOU)

    run = place.run()

    assert (run["state"], run["output"], run["title"]) == ("succeeded", "all quiet", None)
    assert (run["error"], run["fallback"]) == (None, False)
    assert steps(run)[1:] == [("title", "house", "auth", "stop")]
    assert (place.status("house"), place.status("custom:main")) == ("exhausted", "ok")


def test_a_title_is_waited_for_no_longer_than_its_timeout(place: Place) -> None:
    place.configure(TITLE.replace("1m", "3s"))
    place.main.script(Endpoint.CHAT, Reply.text("all quiet"))
    place.helper.script(Endpoint.CHAT, Reply.text("never sent").silent())

    run = place.run()

    assert (run["state"], run["output"], run["title"]) == ("succeeded", "all quiet", None)
    assert steps(run)[1:] == [("title", "house", "timeout", "stop")]
    assert float(run["attempts"][1]["message"].removeprefix("no answer within ").partition(" ")[0]) <= 3


def test_a_secret_that_a_model_quotes_stands_in_no_title(place: Place) -> None:
    place.configure(TITLE)
    place.helper.script(Endpoint.CHAT, Reply.text("The key is house-key"))

    run = place.run()

    assert run["title"] == "The key is [secret]"


def test_an_answer_is_not_lost_when_its_title_is_cut_off(place: Place) -> None:
    """The daemon is stopped while it waits for the title; the answer was there, and is paid."""
    place.configure(TITLE)
    place.main.script(Endpoint.CHAT, Reply.text("all quiet"))
    place.helper.script(Endpoint.CHAT, Reply.text("never sent").silent())

    with place.workplace.daemon() as daemon:
        place.helper.wait_received(1)
        assert daemon.stop() == 0

    (run,) = (
        place.workplace.shown(row["id"]) for row in place.workplace.json("run", "list") if row["output"]
    )
    assert (run["state"], run["output"], run["title"]) == ("succeeded", "all quiet", None)
    assert [a["outcome"] for a in run["attempts"]] == ["succeeded", "unknown"]


def test_an_answer_is_not_lost_when_the_daemon_is_killed_while_its_title_is_made(place: Place) -> None:
    """It was written before; of the title's request nobody knows what became of it."""
    place.configure(TITLE)
    place.main.script(Endpoint.CHAT, Reply.text("all quiet"))
    place.helper.script(Endpoint.CHAT, Reply.text("never sent").silent())

    with place.workplace.daemon() as daemon:
        place.helper.wait_received(1)
        daemon.process.kill()
        daemon.process.wait(PATIENCE)
    left = place.workplace.shown(1)
    with place.workplace.daemon():
        later = place.workplace.shown(1)

    assert (left["state"], left["output"], left["title"]) == ("succeeded", "all quiet", None)
    assert [a["outcome"] for a in left["attempts"]] == ["succeeded", "sent"]
    assert later == {**left, "attempts": [left["attempts"][0], {**left["attempts"][1], "outcome": "unknown"}]}


def test_a_title_as_long_as_it_is_hostile_keeps_nobody_waiting(place: Place) -> None:
    place.configure(TITLE)
    place.main.script(Endpoint.CHAT, Reply.text("all quiet"))
    place.helper.script(Endpoint.CHAT, Reply.text("All is quiet\n" + "-eyJ" * 100_000))

    assert place.run()["title"] == "All is quiet"


def test_ctrl_c_while_a_title_is_made_gives_up_the_title_only(place: Place) -> None:
    place.configure(TITLE)
    place.main.script(Endpoint.CHAT, Reply.text("all quiet"))
    place.helper.script(Endpoint.CHAT, Reply.text("never sent").silent())
    words = [str(PROMPTD), "--config", str(place.workplace.config), "job", "run", "digest"]
    asking = subprocess.Popen(
        words,
        cwd=place.workplace.directory,
        env=place.workplace.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    place.helper.wait_received(1)

    asking.send_signal(signal.SIGINT)
    printed, _ = asking.communicate(timeout=PATIENCE)

    assert (asking.returncode, printed) == (0, "all quiet\n")
    run = place.workplace.shown(1)
    assert (run["state"], run["title"]) == ("succeeded", None)
    assert [a["outcome"] for a in run["attempts"]] == ["succeeded", "unknown"]


def test_neither_a_failed_run_nor_a_prompt_asked_by_hand_gets_a_title(place: Place) -> None:
    place.configure(TITLE)
    asked = place.workplace.ran("ask", "What is new?")
    place.main.script(Endpoint.CHAT, CHAT_OVERFLOW)
    failed = place.run()

    assert [(run["state"], run["title"]) for run in (asked, failed)] == [
        ("succeeded", None),
        ("failed", None),
    ]
    assert place.helper.requests == []
