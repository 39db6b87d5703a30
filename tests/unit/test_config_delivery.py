"""Delivery targets, alerts and heartbeats in the configuration: what they settle to, and what is wrong."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from jobs.alert import AlertPolicy
from jobs.credential import SecretReference
from jobs.definition import Command
from jobs.delivery.target import AppriseTarget, CommandTarget, FileTarget, WebhookTarget
from jobs.delivery_state import Deliver, DeliverOn
from jobs.errors import ConfigError, Fault
from scheduler.config.effective import effective
from scheduler.config.explained import in_effect, matching, named
from scheduler.config.in_force import handed_over
from scheduler.config.json_schema import json_schema
from scheduler.config.loader import Loaded, load_in_force, load_with_origins
from scheduler.config.settings import Settings
from scheduler.reload import applicable, difference

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
HEAD = "timezone: UTC\nstate_dir: state\nmodel: openai/gpt-5.5\n"
TARGETS = """\
delivery:
  ops: {apprise: "env:OPS_URL"}
  hook:
    webhook: "https://example.org:8443/in?token=Zx81Qq0aBc93"
    headers: {X-Team: ops, Authorization: "file:hook-token"}
    secret: systemd:hook
    timeout: 5s
  inbox: {file: "out/{job}/{scheduled_for:%Y-%m-%d}.md"}
  print: {command: [/bin/cat, "-"]}
"""
TOKEN = "Zx81Qq0aBc93Kk"
SECOND = timedelta(seconds=1)


def loaded(tmp_path: Path, text: str = "", *, mode: int = 0o600) -> Loaded:
    """Load a file with these sections, which others may not read unless the mode says so."""
    file = tmp_path / "promptd.yaml"
    file.write_text(HEAD + text)
    file.chmod(mode)
    return load_with_origins(file, environ={"HOME": str(tmp_path), "PATH": os.defpath}, now=NOW)


def settings(tmp_path: Path, text: str) -> Settings:
    return loaded(tmp_path, text).settings


def job(keys: str, name: str = "a") -> str:
    return f"  - {{name: {name}, schedule: null, prompt: hi, {keys}}}\n"


def faults(tmp_path: Path, text: str) -> list[Fault]:
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, text)
    assert not any(TOKEN in str(fault) for fault in refused.value.faults)
    return list(refused.value.faults)


def test_every_kind_of_target_is_settled(tmp_path: Path) -> None:
    found = settings(tmp_path, TARGETS).delivery

    assert found["ops"] == AppriseTarget("ops", SecretReference("env", "OPS_URL"))
    assert found["hook"] == WebhookTarget(
        "hook",
        SecretReference("literal", "https://example.org:8443/in?token=Zx81Qq0aBc93"),
        headers={
            "X-Team": SecretReference("literal", "ops"),
            "Authorization": SecretReference("file", str(tmp_path / "hook-token")),
        },
        secret=SecretReference("systemd", "hook"),
        timeout=5 * SECOND,
    )
    template = "out/{job}/{scheduled_for:%Y-%m-%d}.md"
    assert found["inbox"] == FileTarget("inbox", template, tmp_path / "state")
    assert found["print"] == CommandTarget("print", Command(("/bin/cat", "-"), timeout=30 * SECOND))


def test_a_line_for_the_shell_and_a_time_limit_belong_to_a_command(tmp_path: Path) -> None:
    found = settings(tmp_path, "delivery: {mail: {shell: true, command: 'cat > x', timeout: 1m}}\n")

    assert found.delivery["mail"] == CommandTarget("mail", Command(("cat > x",), True, timeout=60 * SECOND))
    assert found.warnings == ()


def test_the_users_home_is_meant_by_a_tilde(tmp_path: Path) -> None:
    home = tmp_path / "{home}"
    home.mkdir()
    (home / "promptd.yaml").write_text(HEAD + "delivery: {a: {file: '~/out/{job}.md'}}\n")
    environ = {"HOME": str(home)}
    (target,) = load_with_origins(home / "promptd.yaml", environ=environ, now=NOW).settings.delivery.values()

    assert isinstance(target, FileTarget)
    assert target.template == f"{tmp_path}/{{{{home}}}}/out/{{job}}.md"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("ops", (Deliver("ops"),)),
        ("[ops]", (Deliver("ops", DeliverOn.SUCCESS),)),
        ("{to: ops, on: failure}", (Deliver("ops", DeliverOn.FAILURE),)),
        ("[{to: hook, on: changed}, ops]", (Deliver("hook", DeliverOn.CHANGED), Deliver("ops"))),
        ("[{to: hook}, {to: ops, on: always}]", (Deliver("hook"), Deliver("ops", DeliverOn.ALWAYS))),
        ("[]", ()),
    ],
)
def test_a_job_names_its_targets_in_several_ways(
    tmp_path: Path, written: str, meant: tuple[Deliver, ...]
) -> None:
    text = f"{TARGETS}jobs:\n{job(f'deliver: {written}')}"

    assert settings(tmp_path, text).jobs["a"].job.deliver == meant


def test_what_defaults_deliver_holds_for_jobs_that_do_not_say_it(tmp_path: Path) -> None:
    jobs = job("tags: []", "a") + job("deliver: []", "b") + job("deliver: hook", "c")

    found = settings(tmp_path, f"{TARGETS}defaults: {{deliver: {{to: ops, on: always}}}}\njobs:\n{jobs}").jobs

    assert [each.job.deliver for each in found.values()] == [
        (Deliver("ops", DeliverOn.ALWAYS),),
        (),
        (Deliver("hook"),),
    ]


def test_alerts_say_whom_and_when(tmp_path: Path) -> None:
    alerts = "alerts: {to: [ops, hook], after_failures: 5, remind_every: 12h}\n"

    assert settings(tmp_path, "").alerts == AlertPolicy((), 3, timedelta(hours=24))
    assert settings(tmp_path, TARGETS + alerts).alerts == AlertPolicy(("ops", "hook"), 5, timedelta(hours=12))
    assert settings(tmp_path, TARGETS + "alerts: {to: ops}\n").alerts == AlertPolicy(("ops",))


def test_every_secret_of_deliveries_is_known_to_the_settings(tmp_path: Path) -> None:
    beat = "https://hc.example/ping/b9f1d0aa"
    text = f"{TARGETS}secret_key: env:OWN\njobs:\n{job(f'heartbeat: {beat!r}')}"

    withheld = settings(tmp_path, text).withheld()

    assert sorted(map(str, withheld)) == sorted(
        [
            "env:OWN",
            "env:OPS_URL",
            "literal",
            "literal",
            f"file:{tmp_path}/hook-token",
            "systemd:hook",
            "literal",
        ]
    )
    assert SecretReference("literal", beat) in withheld


@pytest.mark.parametrize(
    ("target", "key", "words"),
    [
        ("{}", "", "does not say where to; add one of apprise, webhook, file and command"),
        ("{timeout: 5s}", "", "does not say where to"),
        ("{file: a.md, command: [cat]}", ".command", "is a second way beside file"),
        ("{file: a.md, headers: {X-A: b}}", ".headers", "belongs to a target with `webhook`"),
        ("{command: [cat], secret: env:A}", ".secret", "belongs to a target with `webhook`"),
        ("{file: a.md, shell: true}", ".shell", "belongs to a target with `command`"),
        ("{file: a.md, timeout: 5}", ".timeout", "90s"),
        ("{file: a.md, timeout: 61m}", ".timeout", "write 1h or less"),
        ("{fil: a.md}", ".fil", "did you mean file"),
        ("5", "", "is not a mapping"),
        (f"{{webhook: {TOKEN}}}", ".webhook", "is not a URL"),
        (f"{{webhook: 'ftp://example.org/{TOKEN}'}}", ".webhook", "is not a URL"),
        (f"{{webhook: 'http://exa mple.org/{TOKEN}'}}", ".webhook", "is not a URL"),
        (f"{{webhook: 'http://example.org:99999/{TOKEN}'}}", ".webhook", "is not a URL"),
        (f"{{webhook: 'https://me:{TOKEN}@example.org/'}}", ".webhook", "carries a login"),
        (f"{{webhook: 'https://example.org/#{TOKEN}'}}", ".webhook", "has a fragment"),
        (f"{{webhook: 'https://example.org/ü{TOKEN}'}}", ".webhook", "percent-encoded"),
        (f"{{webhook: 'https://example.org/', secret: {TOKEN}}}", ".secret", "not a reference to a secret"),
        ("{webhook: 'http://h/', headers: {Host: x}}", ".headers.Host", "promptd writes itself"),
        ("{webhook: 'http://h/', headers: {webhook-id: x}}", ".headers.webhook-id", "promptd writes itself"),
        ("{webhook: 'http://h/', headers: {'a b': x}}", ".headers.a b", "is not the name of a header"),
        ('{webhook: "http://h/", headers: {A: "x\\ny"}}', ".headers.A", "no HTTP header can carry"),
        ("{webhook: 'http://h/', headers: {A: b, a: c}}", ".headers.a", "is listed twice"),
        (f"{{apprise: {TOKEN}}}", ".apprise", "is not an Apprise URL"),
        ("{apprise: 'json://169.254.169.254/x'}", ".apprise", "not asked, link-local; write another URL"),
        ("{apprise: 'mailto://me:pw@example.org?smtp=0xa9fea9fe'}", ".apprise", "not asked, link-local"),
        ("{apprise: 'jsons://[fd00:ec2::254]/'}", ".apprise", "not asked, metadata"),
        (f"{{apprise: 'mailto://ü:{TOKEN}@example.org'}}", ".apprise", "percent-encoded"),
        ("{file: 'out/{nobody}.md'}", ".file", "nobody fills"),
        ("{file: 'out/{job'}", ".file", "braces"),
        ("{file: ../out.md}", ".file", "leads out"),
        ("{file: out/}", ".file", "names no file"),
        ("{file: /dev/null}", ".file", "where no file stays"),
        ("{file: '/proc/x/{job}'}", ".file", "where no file stays"),
        ("{file: promptd.db}", ".file", "a file of promptd's own"),
        ("{file: promptd.db-wal}", ".file", "a file of promptd's own"),
        ("{file: ./secret.key}", ".file", "a file of promptd's own"),
        ("{file: 'control.sock'}", ".file", "a file of promptd's own"),
        ("{file: '.hidden/{job}'}", ".file", "a file of promptd's own"),
        ("{file: '~/state/promptd.{run_id}'}", ".file", "a file of promptd's own"),
        ("{file: '~/promptd.yaml'}", ".file", "a file of promptd's own"),
        ("{command: cat}", ".command", "write its words as a list"),
        ("{command: []}", ".command", "names no program"),
    ],
)
def test_one_mistake_in_a_target_is_one_fault(tmp_path: Path, target: str, key: str, words: str) -> None:
    """Who delivers there is not told that it is not there."""
    text = f"delivery:\n  ops: {target}\njobs:\n{job('deliver: ops')}"

    (fault,) = faults(tmp_path, text)

    assert (fault.line, fault.key) == (5, f"delivery.ops{key}")
    assert words in str(fault)


def test_the_database_and_files_with_secrets_are_no_place_for_results_wherever_they_lie(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    kept = "database: sqlite:///../link/runs.db\nsecret_key: file:data/own.key\n"
    kept += "providers: {zai: {credentials: [{label: a, key: 'file:data/zai'}]}}\n"
    targets = "".join(
        f"  t{number}: {{file: '~/{name}'}}\n"
        for number, name in enumerate(("data/runs.db-shm", "link/runs.db", "data/own.key", "link/zai"))
    )

    found = faults(tmp_path, f"{kept}delivery:\n{targets}")

    assert [each.key for each in found] == [f"delivery.t{number}.file" for number in range(4)]


def test_job_files_and_prompts_are_no_place_for_results(tmp_path: Path) -> None:
    """A model could write itself a job, with commands. What lies beside their directory is free."""
    for name in ("jobs.d", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "jobs.d")
    (tmp_path / "elsewhere/a.yaml").write_text("[]")
    (tmp_path / "jobs.d/a.yaml").symlink_to(tmp_path / "elsewhere/a.yaml")
    for name in ("prompt.md", "system.md"):
        (tmp_path / name).write_text("say it")
    names = ["jobs.d/new.yaml", "jobs.d/{job}.yaml", "link/{run_id}/x.yaml", "elsewhere/a.yaml"]
    names += ["prompt.md", "system.md", "jobs.d.old/{job}.yaml", "prompt.md.out"]
    targets = "".join(f"  t{number}: {{file: '~/{name}'}}\n" for number, name in enumerate(names))
    jobs = "jobs: [{name: a, schedule: null, prompt_file: prompt.md, system_file: system.md}]\n"

    found = faults(tmp_path, f"{jobs}delivery:\n{targets}")

    assert [each.key for each in found] == [f"delivery.t{number}.file" for number in range(6)]
    assert "outside of it, such as out/{job}/{run_id}.md" in str(found[0])
    assert "is a prompt_file or system_file of a job; name another" in str(found[-1])


def test_a_named_directory_of_jobs_is_safe_and_one_that_is_no_name_is_one_fault(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    target = "delivery: {t: {file: '~/mine/x.yaml'}}\n"

    (among,) = faults(tmp_path, f"jobs_dir: mine\n{target}")
    nowhere = faults(tmp_path, f'jobs_dir: "a\\0b"\n{target}')

    assert among.key == "delivery.t.file"
    assert {each.key for each in nowhere} == {"jobs_dir"}


def test_files_of_several_jobs_that_bear_their_names_are_nothing_to_warn_of(tmp_path: Path) -> None:
    files = "  a: {file: '{job}.md'}\n  b: {file: 'out/{run_id}.md'}\n"
    jobs = job("deliver: [a, b]") + job("deliver: [a, b]", "b")

    assert settings(tmp_path, f"delivery:\n{files}alerts: {{to: b}}\njobs:\n{jobs}").warnings == ()


@pytest.mark.parametrize(
    ("host", "what"),
    [
        ("169.254.169.254", "link-local"),
        ("2852039166", "link-local"),
        ("0xa9.0xfe.0xa9.0xfe", "link-local"),
        ("[fe80::1]", "link-local"),
        ("[::ffff:169.254.1.1]", "link-local"),
        ("[fd00:ec2::254]", "metadata"),
        ("0.0.0.0", "no address of a host"),
    ],
)
def test_an_address_that_is_never_asked_is_refused_unless_it_is_allowed(
    tmp_path: Path, host: str, what: str
) -> None:
    hook, beat = f"webhook: 'http://{host}/in'", f"heartbeat: 'http://{host}/ping'"
    (of_hook, of_beat) = faults(tmp_path, f"delivery: {{ops: {{{hook}}}}}\njobs:\n{job(beat)}")

    assert (of_hook.key, of_beat.key) == ("delivery.ops.webhook", "jobs[0].heartbeat")
    assert f"not asked, {what}; or add `allow_link_local: true`" in str(of_hook)
    assert f"not asked, {what}; write another URL" in str(of_beat)
    allowed = settings(tmp_path, f"delivery: {{ops: {{{hook}, allow_link_local: true}}}}\n").delivery["ops"]
    assert isinstance(allowed, WebhookTarget)
    assert allowed.allow_link_local


@pytest.mark.parametrize(
    "url", ["json://127.0.0.1/", "bulksms://me:pw@3761234567", "wxpusher://AT_x@123/?to=5", "json://x:y"]
)
def test_numbers_of_telephones_and_chats_are_no_addresses(tmp_path: Path, url: str) -> None:
    assert "ops" in settings(tmp_path, f"delivery: {{ops: {{apprise: '{url}'}}}}\n").delivery


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.7", "[::1]", "localhost", "metadata.example"])
def test_ones_own_servers_and_names_may_be_asked(tmp_path: Path, host: str) -> None:
    """Where a name leads to is judged whenever it is asked, not here."""
    assert "ops" in settings(tmp_path, f"delivery: {{ops: {{webhook: 'http://{host}:8080/in'}}}}\n").delivery


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        (f"{TARGETS}jobs:\n{job('deliver: hok')}", "jobs[0].deliver", "not there; did you mean hook?"),
        (f"{TARGETS}jobs:\n{job('deliver: [ops, nowhere]')}", "jobs[0].deliver[1]", "there are hook, inbox"),
        (f"{TARGETS}jobs:\n{job('deliver: [{to: opss}]')}", "jobs[0].deliver[0].to", "did you mean ops?"),
        (
            f"{TARGETS}jobs:\n{job('deliver: [ops, {to: ops, on: failure}]')}",
            "jobs[0].deliver[1].to",
            "twice",
        ),
        (f"{TARGETS}jobs:\n{job('deliver: {to: ops, on: error}')}", "jobs[0].deliver.on", "'failure'"),
        (f"{TARGETS}jobs:\n{job('deliver: [{on: failure}]')}", "jobs[0].deliver[0].to", "is missing"),
        (f"{TARGETS}jobs:\n{job('deliver: [5]')}", "jobs[0].deliver[0]", "is not a delivery target"),
        (f"{TARGETS}jobs:\n{job('deliver: 5')}", "jobs[0].deliver", "is not a list"),
        (f"{TARGETS}defaults: {{deliver: nowhere}}\n", "defaults.deliver", "is not there"),
        (f"{TARGETS}alerts: {{to: [ops, hok]}}\n", "alerts.to[1]", "did you mean hook?"),
        (f"{TARGETS}alerts: {{to: [ops, ops]}}\n", "alerts.to[1]", "is listed twice"),
        (f"{TARGETS}alerts: {{to: ops, after_failures: 0}}\n", "alerts.after_failures", "1 or more"),
        (f"{TARGETS}alerts: {{to: ops, remind_every: daily}}\n", "alerts.remind_every", "90s"),
        (f"{TARGETS}alerts: {{to: ops, remind_every: 59s}}\n", "alerts.remind_every", "write 1m or more"),
        ("alerts: {to: ops}\n", "alerts.to", "there is none; add one under `delivery:`"),
        ("delivery: {Ops: {file: a.md}}\n", "delivery.Ops", "is not a delivery target's name"),
        ("delivery: [{file: a.md}]\n", "delivery", "is not a mapping"),
        ("delivery:\n  ops: {file: a.md}\n  ops: {file: b.md}\n", "delivery.ops", "twice"),
        (f"jobs:\n{job(f'heartbeat: {TOKEN}')}", "jobs[0].heartbeat", "is not a URL"),
        (f"jobs:\n{job('heartbeat: [env:A]')}", "jobs[0].heartbeat", "is not text"),
    ],
)
def test_one_mistake_about_targets_is_one_fault(tmp_path: Path, text: str, key: str, words: str) -> None:
    (fault,) = faults(tmp_path, text)

    assert fault.key == key
    assert words in str(fault)


LITERAL = f"""\
delivery:
  hook: {{webhook: "https://example.org/in/{TOKEN}", headers: {{X-Key: {TOKEN}}}}}
  mail: {{apprise: "mailtos://me:{TOKEN}@example.org"}}
  plain: {{webhook: "http://localhost:8080/services/in", headers: {{X-Team: platform}}}}
  kept: {{webhook: "env:HOOK", headers: {{X-Key: "env:KEY"}}}}
"""


def test_a_secret_in_a_file_that_everybody_may_read_is_warned_of(tmp_path: Path) -> None:
    text = f"{LITERAL}jobs:\n{job(f'heartbeat: https://hc.example/{TOKEN}')}"

    assert loaded(tmp_path, text, mode=0o640).settings.warnings == ()
    found = loaded(tmp_path, text, mode=0o644).settings.warnings
    assert [each.split(": ")[1] for each in found] == [
        "delivery.hook.headers.X-Key",
        "delivery.hook.webhook",
        "delivery.mail.apprise",
        "jobs[0].heartbeat",
    ]
    assert all("everybody may read promptd.yaml" in each and TOKEN not in each for each in found)


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("delivery: {p: {command: [promptd-no-such-program]}}\n", "delivery.p.command", "is not found here"),
        ("alerts: {after_failures: 2}\n", "alerts", "tell nobody without `to: [TARGET]`"),
        (f"delivery: {{p: {{file: out/latest.md}}}}\njobs:\n{job('deliver: p')}{job('deliver: p', 'b')}",
         "delivery.p.file", "is one file for several jobs (a, b); add {job}"),
        ("delivery: {p: {file: 'out/{job}.md'}}\nalerts: {to: p}\n", "delivery.p.file", "add {run_id}"),
        (f"jobs:\n{job('heartbeat: env:B')}{job('heartbeat: env:B', 'b')}", "jobs[1].heartbeat", "job a too"),
        (f"defaults: {{heartbeat: env:B}}\njobs:\n{job('tags: []')}{job('tags: []', 'b')}"
         f"{job('tags: []', 'c')}", "defaults.heartbeat", "job a too"),
    ],
)  # fmt: skip
def test_what_works_and_is_not_wise_is_told_once(tmp_path: Path, text: str, key: str, words: str) -> None:
    (warning,) = settings(tmp_path, text).warnings

    assert f": {key}: " in warning
    assert words in warning


def test_what_is_in_effect_is_shown_without_secrets(tmp_path: Path) -> None:
    beat = f"heartbeat: https://hc.example/{TOKEN}, deliver: [hook, {{to: kept, on: failure}}]"
    shown = effective(loaded(tmp_path, f"{LITERAL}alerts: {{to: hook}}\njobs:\n{job(beat)}"))

    assert TOKEN not in str(shown)
    hook, kept = shown["delivery"]["hook"], shown["delivery"]["kept"]
    file = tmp_path / "promptd.yaml"
    assert hook["webhook"] == {"value": "https://example.org/[secret]", "from": f"{file}:5"}
    assert hook["headers"]["value"] == {"X-Key": "[secret]"}
    assert hook["timeout"] == {"value": 30.0, "from": "default"}
    assert (kept["webhook"]["value"], kept["headers"]["value"]) == ("env:HOOK", {"X-Key": "env:KEY"})
    assert shown["delivery"]["mail"]["apprise"]["value"] == "mailtos://[secret]"
    assert shown["delivery"]["plain"]["webhook"]["value"] == "http://localhost:8080/[secret]"
    assert shown["alerts"]["to"] == {"value": ["hook"], "from": f"{file}:9"}
    a = shown["jobs"]["a"]
    assert a["deliver"]["value"] == [{"to": "hook", "on": "success"}, {"to": "kept", "on": "failure"}]
    assert a["heartbeat"]["value"] == "https://hc.example/[secret]"


def test_files_are_shown_where_they_lie(tmp_path: Path) -> None:
    inbox = effective(loaded(tmp_path, TARGETS))["delivery"]["inbox"]

    assert inbox["file"]["value"] == f"{tmp_path}/state/out/{{job}}/{{scheduled_for:%Y-%m-%d}}.md"


def test_keys_of_targets_and_providers_are_explained_by_name(tmp_path: Path) -> None:
    shown = effective(loaded(tmp_path, f"{TARGETS}providers: {{zai: {{timeout: 9s}}, groq: {{}}}}\n"))

    (timeout,) = matching("delivery.hook.timeout")
    assert (timeout.key, timeout.default) == ("delivery.timeout", "30s")
    only = list(in_effect("delivery.timeout", shown, only=named("delivery.hook.timeout")))
    assert [(each.at, each.value) for each in only] == [("delivery.hook.timeout", 5.0)]
    assert len(list(in_effect("delivery.timeout", shown))) == 4
    (of_zai,) = in_effect("providers.timeout", shown, only=named("providers.zai.timeout"))
    assert (of_zai.at, of_zai.value) == ("providers.zai.timeout", 9.0)
    (key,) = matching("providers.zai.credentials.key")
    assert key.key == "providers.credentials.key"
    assert list(in_effect(key.key, shown)) == []
    assert named("jobs.deliver.to") is None


def test_a_list_of_deliveries_has_no_single_on(tmp_path: Path) -> None:
    shown = effective(loaded(tmp_path, f"{TARGETS}jobs:\n{job('deliver: ops')}"))

    assert list(in_effect("jobs.deliver.on", shown)) == []
    assert [each.value for each in in_effect("jobs.deliver", shown)] == [[{"to": "ops", "on": "success"}]]


def test_the_schema_takes_what_the_specification_shows() -> None:
    checked = Draft202012Validator(json_schema())
    whole = {
        "delivery": {
            "ops": {"apprise": "env:OPS_SLACK_URL"},
            "hook": {"webhook": "https://example.org/in", "headers": {"A": "b"}, "secret": "env:HOOK_SECRET"},
            "inbox": {"file": "out/{job}/{scheduled_for:%Y-%m-%d}.md"},
            "print": {"command": ["/usr/bin/lp", "-"], "timeout": "5s"},
        },
        "alerts": {"to": ["ops"], "after_failures": 3, "remind_every": "24h"},
        "jobs": [
            {"name": "a", "schedule": None, "prompt": "x", "deliver": "ops"},
            {
                "name": "b",
                "schedule": None,
                "prompt": "x",
                "deliver": ["ops", {"to": "hook", "on": "changed"}],
            },
        ],
    }

    assert list(checked.iter_errors(whole)) == []
    assert list(checked.iter_errors({"delivery": {"ops": {}}})) != []
    assert list(checked.iter_errors({"delivery": {"ops": {"file": "a", "command": ["b"]}}})) != []
    assert list(checked.iter_errors({"defaults": {"deliver": [{"to": "a", "on": "error"}]}})) != []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (TARGETS.replace("5s", "6s"), ("delivery",)),
        (TARGETS + "alerts: {to: ops}\n", ("alerts",)),
        (TARGETS, ()),
    ],
)
def test_a_reload_applies_them_at_once_and_says_so(tmp_path: Path, text: str, told: tuple[str, ...]) -> None:
    old, new = settings(tmp_path, TARGETS), settings(tmp_path, text)

    in_force, waits = applicable(old, new)

    assert (difference(old, in_force, waits).settings, waits) == (told, ())
    assert (in_force.delivery, in_force.alerts) == (new.delivery, new.alerts)


def test_files_stay_in_the_state_directory_that_is_in_force(tmp_path: Path) -> None:
    """It changes with a restart only, and its files with it: in the daemon and in what that carries out."""
    old = settings(tmp_path, TARGETS)
    new = settings(tmp_path, TARGETS.replace("delivery:", "\ndelivery:"))
    moved = new.in_state_dir(tmp_path / "elsewhere")

    in_force, waits = applicable(old, moved)
    environ = {"HOME": str(tmp_path)}
    taken = load_in_force(tmp_path / "promptd.yaml", handed_over(moved), environ=environ, now=NOW).settings

    assert (waits, in_force.delivery) == (("state_dir",), old.delivery)
    assert difference(old, in_force, waits).settings == ()
    inbox = taken.delivery["inbox"]
    assert isinstance(inbox, FileTarget)
    assert inbox.base == taken.state_dir == tmp_path / "elsewhere"
