"""The unit under a real systemd: it starts, reloads, drains and comes back as an operator expects it to."""

import json
from collections.abc import Iterator

import pytest
from support.boot.configured import BY_HAND, CONFIG, PULSE, WITH_A_KEY, configure
from support.boot.machine import Machine
from support.boot.network import network_of
from support.boot.sandboxed import ALL_THAT_A_COMMAND_MAY, DELIVERY, receiving
from support.boot.service import PACKAGED, Service, machine_with_promptd
from support.boot.troubled import FED, Troubled, troubled
from support.debian import NotThere
from support.workplace import PATIENCE, eventually

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

EXPOSURE = 1.5
GO = "/etc/promptd/go"
KEY = "sk-of-the-service-0123456789abcdef"


@pytest.fixture(scope="module", autouse=True)
def troubles(machine: Machine) -> Iterator[Troubled]:
    """Daemons in trouble: what becomes of them is seen at the end; until then there are other tests."""
    server = ThreadedLoopback()
    server.script(Endpoint.CHAT, Reply.text("good again"))
    with network_of(machine.leader):
        server.start()
    with troubled(machine, server.base_url) as found:
        yield found
    server.stop()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    try:
        with machine_with_promptd(tmp_path_factory.mktemp("systemd")) as booted:
            yield booted
    except NotThere as why:
        pytest.skip(str(why))


@pytest.fixture
def provider(machine: Machine) -> Iterator[ThreadedLoopback]:
    """A provider on the machine's own loopback."""
    server = ThreadedLoopback()
    with network_of(machine.leader):
        server.start()
    server.script(Endpoint.CHAT, Reply.text("said to a service"))
    yield server
    server.stop()


@pytest.fixture
def service(machine: Machine) -> Iterator[Service]:
    service = Service(machine)
    service.install()
    yield service
    service.remove()


def test_the_service_is_started_only_once_the_first_plan_is_made(
    service: Service, provider: ThreadedLoopback
) -> None:
    """The first plan writes down what fell due meanwhile; it cannot, while somebody holds the database."""
    configure(service, provider)
    service.start()
    service.ended(1)
    service.systemctl("stop")
    before = len(service.rows("SELECT id FROM runs"))

    with service.locked():
        service.systemctl("start", "--no-block")
        eventually(lambda: service.database in service.open_files())
        waiting = service.shown("ActiveState"), len(service.rows("SELECT id FROM runs"))
    service.start()
    planned = service.rows("SELECT trigger FROM runs WHERE id > ?", before)

    assert waiting == ("activating", before)
    assert {"trigger": "catch_up"} in planned


def test_a_scheduled_run_is_done_and_the_journal_finds_it_by_its_id(
    service: Service, provider: ThreadedLoopback
) -> None:
    configure(service, provider)

    service.start()
    run = service.ended(2)[1]
    lines = service.story(run["id"])

    assert (run["trigger"], run["state"], run["output"]) == ("schedule", "succeeded", "said to a service")
    assert {line["PROMPTD_JOB"] for line in lines} == {"pulse"}
    told = [" ".join(line["MESSAGE"].split()[:2]) for line in lines]
    assert told == ["run started", "attempt settled", "run finished"]


def test_a_reload_tells_systemd_what_came_of_it_and_a_bad_file_changes_nothing(
    service: Service, provider: ThreadedLoopback
) -> None:
    configure(service, provider)
    service.start()
    pid = service.pid

    configure(service, provider, PULSE, '{name: second, schedule: every 1s, prompt: "And this."}')
    good = service.systemctl("reload")
    service.ended(1, job="second")
    configure(service, provider, PULSE, "{name: second, schedule: never ever, prompt: Hi.}")
    bad = service.systemctl("reload")
    newest = service.rows("SELECT max(id) AS id FROM runs WHERE job = 'second'")[0]["id"]
    eventually(lambda: service.rows("SELECT id FROM runs WHERE job = 'second' AND id > ?", newest) or None)

    assert good.code == 0, good
    assert bad.code != 0
    eventually(lambda: "jobs[1].schedule" in service.journal())
    assert (service.shown("ActiveState"), service.pid) == ("active", pid)


def test_a_configuration_that_is_wrong_is_not_started_again_and_again(
    service: Service, provider: ThreadedLoopback
) -> None:
    configure(service, provider, "{name: pulse}")

    started = service.systemctl("start")
    stands = service.machine.properties("promptd", "ActiveState", "Result", "ExecMainStatus", "NRestarts")
    configure(service, provider)
    service.start()

    assert started.code != 0
    assert stands == {
        "ActiveState": "failed",
        "Result": "exit-code",
        "ExecMainStatus": "78",
        "NRestarts": "0",
    }


def test_after_a_kill_it_comes_back_and_the_interrupted_run_is_abandoned_once(
    service: Service, provider: ThreadedLoopback
) -> None:
    provider.script(Endpoint.CHAT, Reply.text("never said").silent(), Reply.text("good again"))
    configure(service, provider)
    service.start()
    provider.wait_received(1, within=PATIENCE)

    service.systemctl("kill", "--signal=KILL", "--kill-whom=main")
    following = service.ended(2)[1]
    states = service.rows("SELECT state, reason FROM runs WHERE started_at IS NOT NULL ORDER BY id")

    assert states[0] == {"state": "abandoned", "reason": "process_gone"}
    assert [each["state"] for each in states].count("abandoned") == 1
    assert following["state"] == "succeeded"
    assert service.shown("NRestarts") == "1"
    assert service.promptd("audit").code == 0


def test_a_key_comes_as_a_credential_and_stands_in_no_environment_and_in_nothing_that_systemd_shows(
    service: Service, provider: ThreadedLoopback
) -> None:
    service.give("house", KEY)
    configure(service, provider, text=WITH_A_KEY)

    service.start()
    run = service.ended(1)[0]
    environment = service.machine.path(f"/proc/{service.shown('MainPID')}/environ").read_text()

    assert run["state"] == "succeeded"
    assert provider.received(key=KEY)
    assert "CREDENTIALS_DIRECTORY=" in environment
    seen = (
        environment,
        service.systemctl("show").out,
        service.systemctl("status").out,
        service.machine.do("ps", "axeww"),
        service.journal("--output=export"),
        json.dumps(service.rows("SELECT * FROM runs") + service.rows("SELECT * FROM attempts")),
    )
    assert [KEY in each for each in seen] == [False] * len(seen)


def test_it_stops_in_time_and_what_can_end_by_then_does(service: Service, provider: ThreadedLoopback) -> None:
    """Its commands are not ended with it: systemd sends SIGTERM to the daemon alone.

    It would be killed before the 30 s were over for which a daemon drains that is not told otherwise.
    """
    service.drop_in("stop", "[Service]\nTimeoutStopSec=28\n")
    provider.script(Endpoint.CHAT, Reply.text("never said").silent(), model="hangs")
    gather = f"gather: {{command: 'until test -e {GO}; do sleep 0.1; done', shell: true}}"
    waits = f"{{name: waits, schedule: null, prompt: Hi., {gather}}}"
    other = f'{{provider: custom, model: hangs, base_url: "{provider.base_url}", api_key: no-key-required}}'
    configure(service, provider, waits, f"{{name: hangs, schedule: null, prompt: Hi., model: {other}}}")
    service.start()
    for job in ("waits", "hangs"):
        assert service.promptd("job", "run", "--detach", job).code == 0
    eventually(lambda: service.rows("SELECT count(*) AS n FROM runs WHERE state = 'running'")[0]["n"] == 2)
    provider.wait_received(1, within=PATIENCE)

    service.systemctl("stop", "--no-block")
    eventually(lambda: service.shown("ActiveState") == "deactivating")
    service.machine.put(GO, "")
    stopped = service.systemctl("stop")
    ended = {each["job"]: each["state"] for each in service.rows("SELECT job, state FROM runs")}

    assert stopped.code == 0
    assert ended == {"waits": "succeeded", "hangs": "cancelled"}
    assert service.shown("Result") == "success"
    assert "Killing process" not in service.journal()


def test_a_root_shell_acts_on_the_service_s_own_database_and_credentials(
    service: Service, provider: ThreadedLoopback
) -> None:
    """The key is the service's alone: whoever asks the provider with it, and closes it, is the daemon."""
    service.give("house", KEY)
    configure(service, provider, BY_HAND, text=WITH_A_KEY)
    service.start()

    ran = service.promptd("job", "run", "by-hand", "--json")
    provider.script(Endpoint.CHAT, Reply.error(401, code="invalid_api_key"))
    refused = service.promptd("ask", "Are you there?")
    closed = service.promptd("auth", "list", "--json").json()
    reset = service.promptd("auth", "reset", "house")
    opened = service.promptd("auth", "list", "--json").json()
    provider.script(Endpoint.CHAT, Reply.text("open again"))
    asked = service.promptd("ask", "And now?")
    configure(service, provider, BY_HAND, PULSE, text=WITH_A_KEY)
    reloaded = service.promptd("reload", "--json")
    out_of_sight = service.promptd("db", "backup", "/tmp/copy.db")
    triggers = [each["trigger"] for each in service.rows("SELECT trigger FROM runs ORDER BY id LIMIT 3")]

    assert (ran.code, ran.json()["output"]) == (0, "said to a service")
    assert refused.code == 1
    assert [each["status"] for each in closed] == ["exhausted"]
    assert reset.code == 0, reset
    assert [each["status"] for each in opened] == ["ok"]
    assert (asked.code, asked.out) == (0, "open again\n")
    assert reloaded.json()["added"] == ["pulse"]
    assert triggers == ["manual", "ask", "ask"]
    assert (out_of_sight.code, "a /tmp of its own" in out_of_sight.err) == (2, True)
    assert {each.by_name["authorization"] for each in provider.requests} == {f"Bearer {KEY}"}
    assert service.machine.run("find", "/root", "-name", "promptd*").out == ""


def test_the_unit_is_exposed_no_more_than_it_must_be(service: Service, provider: ThreadedLoopback) -> None:
    configure(service, provider)
    service.start()

    judged = service.machine.do("systemd-analyze", "security", "--json=short", "promptd.service")
    threshold = ("--threshold=15", "--offline=true", f"{PACKAGED}/promptd.service")
    offline = service.machine.run("systemd-analyze", "security", *threshold)
    verified = service.machine.run("systemd-analyze", "verify", f"{PACKAGED}/promptd.service")

    assert sum(float(each["exposure"] or 0) for each in json.loads(judged)) / 10 <= EXPOSURE
    assert (offline.code, verified.code, verified.err) == (0, 0, "")
    assert service.machine.properties("promptd", "WatchdogUSec", "NotifyAccess", "LimitCORE") == {
        "WatchdogUSec": "2min",
        "NotifyAccess": "main",
        "LimitCORE": "0",
    }


def test_whoever_is_in_the_service_s_group_may_ask_it_and_nobody_else(
    service: Service, provider: ThreadedLoopback
) -> None:
    service.drop_in("group", "[Service]\nGroup=games\n")
    configure(service, provider)
    service.start()
    words = ("/opt/promptd/bin/promptd", "auth", "list", "--json")

    member = service.machine.run("setpriv", "--reuid=nobody", "--regid=games", "--clear-groups", *words)
    other = service.machine.run("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *words)

    assert [each["status"] for each in member.json()] == ["ok"]
    assert other.code == 69, other


def test_what_jobs_need_works_in_the_sandbox(service: Service, provider: ThreadedLoopback) -> None:
    """Compiled modules, limits, sessions, files in memory; with the packaged drop-in, the journal."""
    drop_in = service.machine.path(f"{PACKAGED}/promptd.service.d/journal.conf.example").read_text()
    service.drop_in("journal", drop_in)
    service.machine.put("/etc/promptd/all.py", ALL_THAT_A_COMMAND_MAY)
    words = f'["/opt/promptd/bin/python", "/etc/promptd/all.py", "{provider.port}"]'
    reads = '["journalctl", "--quiet", "--no-pager", "--unit=init.scope", "--lines=1", "--output=cat"]'
    gather = '{name: %s, schedule: null, prompt: "{{ gathered }}", gather: {command: %s}}'
    configure(service, provider, gather % ("may", words), gather % ("reads", reads))
    service.start()

    may, reads = (service.promptd("job", "run", job, "--json") for job in ("may", "reads"))
    prompts = [each["prompt"] for each in service.rows("SELECT prompt FROM runs ORDER BY id")]

    assert (may.code, reads.code) == (0, 0), (may.json()["error"], reads)
    assert prompts[0].strip() == "all of it 60 []"
    assert "promptd" in prompts[1]


def test_every_kind_of_delivery_leaves_the_sandbox(service: Service, provider: ThreadedLoopback) -> None:
    service.give("hook", "what signs the webhook")
    job = "{name: by-hand, schedule: null, prompt: Hi., deliver: [service, hook, file, command]}"
    with receiving(service.machine) as receiver:
        targets = DELIVERY.format(port=receiver.port)
        configure(service, provider, job, text=f"{CONFIG}delivery: {{targets}}", targets=targets)
        service.start()
        assert service.promptd("job", "run", "--detach", "by-hand").code == 0
        tried = "SELECT state, last_error FROM deliveries WHERE state = 'delivered' OR failures > 0"
        eventually(lambda: len(service.rows(tried)) == 4)

    assert [(each["state"], each["last_error"]) for each in service.rows(tried)] == [("delivered", None)] * 4
    assert sorted(receiver.paths) == ["/by-apprise", "/by-webhook"]
    for name in ("by-file-by-hand.md", "by-command"):
        assert (
            service.machine.path(f"/var/lib/private/promptd/{name}").read_text().strip()
            == "said to a service"
        )


@pytest.mark.parametrize(
    ("how", "where"), [("stopped", "(most recent call first)"), ("alone", "asyncio/base_events.py")]
)
def test_a_daemon_that_hangs_whole_or_but_for_its_loop_is_restarted_and_says_where_it_stood(
    troubles: Troubled, how: str, where: str
) -> None:
    """The threads of a stopped one go on as one of them writes the dump, which may cut the others' short."""
    hung: Service = getattr(troubles, how)

    eventually(lambda: int(hung.shown("NRestarts")) >= 1)
    hung.ended(len(hung.rows("SELECT id FROM runs")) + 1)

    wanted = (f"Watchdog timeout (limit {FED:g}s)", "Fatal Python error: Aborted", where)
    eventually(lambda: all(each in hung.journal() for each in wanted))
    assert troubles.spoke in (200, 503)


def test_a_daemon_that_waits_for_its_database_is_not_restarted(troubles: Troubled) -> None:
    troubles.relieve()
    waited = troubles.locked
    waited.ended(len(waited.rows("SELECT id FROM runs")) + 1)

    eventually(lambda: "database is locked" in waited.journal())
    assert (waited.shown("NRestarts"), waited.pid) == ("0", troubles.locked_pid)


def test_a_daemon_that_drains_for_longer_than_its_watchdog_waits_may_end_by_itself(
    troubles: Troubled,
) -> None:
    draining = troubles.draining

    troubles.relieve()
    eventually(lambda: draining.shown("ActiveState") == "inactive")

    assert draining.shown("Result") == "success"
    assert [run["state"] for run in draining.rows("SELECT state FROM runs WHERE job = 'long'")] == [
        "succeeded"
    ]
