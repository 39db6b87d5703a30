"""YAML as it comes: what is refused before anything of it is understood, and how clearly."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import ConfigError, Fault
from scheduler.config.gather import Faults
from scheduler.config.paths import find
from scheduler.config.sources import LARGEST, Document, read
from scheduler.config.yaml_tree import DEEPEST, Unreadable, parse

LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
)


def fault_of(file: Path, content: bytes) -> Fault:
    """Read a file that cannot be read, and return the only fault."""
    file.write_bytes(content)
    document_faults = Faults()
    try:
        document, mistakes = read(file)
        document_faults.take(document, mistakes)
    except ConfigError as exc:
        document_faults.extend(exc.faults)
    (fault,) = document_faults.found
    assert "\n" not in str(fault)
    return fault


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"a: 1\n\tb: 2\n", 2, "use spaces"),
        (b"jobs:\n\t- name: x\n", 2, "use spaces"),
        (b"a: 1\nb: 2\na: 3\n", 3, "written twice, first in line 1"),
        (b"a: \xff\xfe\n", 1, "not UTF-8"),
        (b"x: 1\ny: \x00\n", 2, "no text"),
        (bytes(range(128, 256)), 1, "not UTF-8"),
        (b"a: 1\n---\nb: 2\n", 2, "second document"),
        (b"", 1, "is empty"),
        (b"# only a comment\n", 1, "is empty"),
        (b"a: 1\n<<: {b: 1}\n", 2, "merge keys"),
        (b"a: &a {b: 1}\nc: {<<: *a}\n", 2, "merge keys"),
        (b"a: 1\n5: 6\n", 2, "key is not text"),
        (b"? [a, b]\n: 1\n", 1, "key is not text"),
        (b"a: !!python/object/apply:os.system [ls]\n", 1, "YAML tag"),
        (b"a: !secret x\n", 1, "YAML tag"),
        (b"a: !!int abc\n", 1, "not a number"),
        (b"a: .inf\n", 1, "not a number"),
        (b'a: "x\\0y"\n', 1, "NUL"),
        (b"a: *nothing\n", 1, "no anchor"),
        (b"a: &a [*a]\n", 1, "contains itself"),
        (b"a: [1, 2\n", 2, "not YAML"),
        (b"a: b: c\n", 1, "not YAML"),
        (b"[" * 100_000, 1, f"more than {DEEPEST} deep"),
        (b"- " * 100_000, 1, f"more than {DEEPEST} deep"),
        (b"{a: " * 1_000_000, 1, f"more than {DEEPEST} deep"),
        (LAUGHS.encode(), 1, "aliases repeat too much"),
        (b"[" + b"a," * 2_000_000 + b"]", 1, "more than 500,000 values"),
        (b"a: x\n" * (LARGEST // 5 + 1), 0, "larger than 4 MiB"),
    ],
)
def test_one_mistake_is_one_clear_line(tmp_path: Path, content: bytes, line: int, words: str) -> None:
    """Each way in which a file can be rubbish gives one line with its place."""
    fault = fault_of(tmp_path / "promptd.yaml", content)
    assert words in str(fault)
    assert fault.line == line


@pytest.mark.parametrize(("make", "words"), [("directory", "is a directory"), ("missing", "does not exist")])
def test_what_is_no_file_is_said_so(tmp_path: Path, make: str, words: str) -> None:
    """A directory and a missing file are told apart."""
    file = tmp_path / "promptd.yaml"
    if make == "directory":
        file.mkdir()
    with pytest.raises(ConfigError, match=words):
        read(file)


def test_scalars_are_what_they_look_like() -> None:
    """The traps of YAML 1.1 are not here: country codes, times and dates stay texts."""
    data, _, mistakes = parse(
        "a: no\nb: 12:30\nc: 2026-12-01\nd: 0o17\ne: true\nf: 1e3\ng: 010\nh: ~\non: 1\n"
    )
    assert mistakes == []
    assert data == {
        **{"a": "no", "b": "12:30", "c": "2026-12-01", "d": 15, "e": True},
        **{"f": 1000.0, "g": "010", "h": None, "on": 1},
    }


def test_ordinary_aliases_are_read() -> None:
    """An anchor may be used again, as a whole value."""
    data, _, mistakes = parse("a: &a {x: [1, 2]}\nb: *a\nc: [*a, *a]\n")
    assert mistakes == []
    assert data["b"] == {"x": [1, 2]}
    assert data["c"] == [data["a"], data["a"]]


def test_everything_has_its_place(tmp_path: Path) -> None:
    """Values are told by themselves, mappings and lists by their key, what is missing by its holder."""
    file = tmp_path / "a.yaml"
    file.write_text("one: 1\ntwo:\n  - three:  x\n    four: {five: 5}\n")
    document, _ = read(file)
    assert document.place(("one",)) == (1, 6)
    assert document.place(("one",), key=True) == (1, 1)
    assert document.place(("two",)) == (2, 1)
    assert document.place(("two", 0, "three")) == (3, 13)
    assert document.place(("two", 0, "four", "five")) == (4, 18)
    assert document.place(("two", 0, "six")) == (3, 5)
    assert not document.holds(("two", 0, "six"))
    assert Document(file, None).place(("x",)) == (0, 0)


def test_a_named_file_is_taken_at_its_word(tmp_path: Path) -> None:
    """`--config` wins over `$PROMPTD_CONFIG`, and neither is looked for elsewhere."""
    environ = {"PROMPTD_CONFIG": str(tmp_path / "b.yaml")}
    assert find(tmp_path / "a.yaml", environ) == tmp_path / "a.yaml"
    assert find(None, environ) == tmp_path / "b.yaml"


def test_the_search_goes_from_here_to_home_and_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working directory comes first, then the user's configuration directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    with pytest.raises(ConfigError, match=r"\$PROMPTD_CONFIG, .*xdg/promptd/promptd.yaml, /etc/promptd"):
        find(None, environ)
    home = tmp_path / "xdg" / "promptd" / "promptd.yaml"
    home.parent.mkdir(parents=True)
    home.touch()
    assert find(None, environ) == home
    Path("promptd.yaml").touch()
    assert find(None, environ) == Path("promptd.yaml")


@given(st.text() | st.text(alphabet="ab:-[]{}&*!|>'\"#%@`,? \n\t0.~<"))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text raises anything but a refusal."""
    try:
        _, _, mistakes = parse(text)
    except Unreadable as exc:
        mistakes = [exc.mistake]
    assert all(mistake.wrong and mistake.mend for mistake in mistakes)


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ('a: 1\nb: "hello\nc: 2\nd: 3\n', 2, 4, "a quote that begins here is not closed"),
        ("a: 1\nb: 'hello\nc:\n\t- 2\n", 2, 4, "a quote that begins here is not closed"),
        ("jobs:\n  - name: a\n    prompt: |\nhello there\n    schedule: x\n", 4, 1, "indent it"),
        ("jobs:\n  - prompt: |\n    hello you\n    and me\n    schedule: x\n", 3, 5, "indent it"),
        ("a:\n  b: 1\n c: 2\n", 3, 2, "did not find expected key"),
        ("a: [1, 2\nb: 3\nc: 4\n", 2, 2, "expected ',' or ']'"),
    ],
)
def test_what_is_no_yaml_is_told_where_it_is_wrong_and_not_where_it_is_noticed(
    tmp_path: Path, text: str, line: int, column: int, words: str
) -> None:
    fault = fault_of(tmp_path / "promptd.yaml", text.encode())
    assert (fault.line, fault.column) == (line, column)
    assert words in f"{fault.wrong}; {fault.mend}"
