"""Many at once: a bound that holds, a thousand runs in one process, and timeouts that are kept."""

from support import crowd
from support.workplace import Workplace, eventually

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

MEGABYTE = 1024 * 1024


def test_200_jobs_due_in_the_same_second_all_run_once_and_never_more_than_32_at_a_time(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    primary.script(Endpoint.CHAT, Reply.text("here").after(0.2))
    crowd.configure(workplace, primary.base_url, jobs=200, at_once=32)

    with workplace.daemon():
        runs = crowd.first_runs(workplace, 200)

    assert [run["state"] for run in runs] == ["succeeded"] * 200
    assert len({run["job"] for run in runs}) == 200
    of_first = f"SELECT count(*) AS number FROM attempts JOIN runs ON run_id = runs.id WHERE {crowd.FIRST}"
    sent = workplace.rows(of_first)
    assert sent == [{"number": 200}]
    assert crowd.most_in_flight(primary.requests, taking=0.2) <= 32


def test_1000_runs_wait_for_a_slow_provider_at_once_in_under_200_megabytes(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    """The first answer is given when all have asked, so that all are in flight together on any machine."""
    primary.script(Endpoint.CHAT, Reply.text("at last").held())
    crowd.configure(workplace, primary.base_url, jobs=1000, at_once=1000, timeout="1h")

    with workplace.daemon() as daemon:
        eventually(lambda: primary.in_flight == 1000, within=600)
        primary.let_go()
        runs = crowd.first_runs(workplace, 1000)
        memory = crowd.peak_memory(daemon)

    assert [(run["state"], run["output"]) for run in runs] == [("succeeded", "at last")] * 1000
    assert memory < 200 * MEGABYTE, f"{memory / MEGABYTE:.0f} MB"
    print(f"1,000 runs in flight: {memory / MEGABYTE:.0f} MB at most")


def test_runs_end_at_their_timeout_however_many_there_are(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    """None before it; how late, `make bench` says: 100 ms when idle."""
    primary.script(Endpoint.CHAT, Reply.text("never said").silent())
    crowd.configure(workplace, primary.base_url, jobs=500, at_once=500, timeout="3s")

    with workplace.daemon():
        runs = crowd.first_runs(workplace, 500)

    late = crowd.past_the_timeout(runs, 3)
    print(f"500 timeouts: {crowd.distribution(late)}")
    assert len(late) == 500
    assert late[0] >= 0
