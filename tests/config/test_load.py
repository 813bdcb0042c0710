"""The configuration file: every mistake at once, each where it stands and with a hint; and never anything else."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter import documents
from authmilter.config import load as config_load
from authmilter.config.load import Loaded, load, parse, read_text, warnings
from authmilter.config.model import SHIPPED_POLICIES, Config
from authmilter.errors import Complaint, ConfigError
from authmilter.policy import shipped


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.yaml")
    return [str(c) for c in caught.value.complaints]


def mistake(text: str) -> str:
    found = mistakes(text)
    assert len(found) == 1, found
    return found[0]


# -- one mistake each: what is wrong, exactly where, and what would be right ----------------------------------------

MISTAKES = [
    ("milterr: {}", "f.yaml:1:1: unknown setting `milterr` (did you mean `milter`?)"),
    ("Milter: {}", "f.yaml:1:1: unknown setting `Milter` (did you mean `milter`?)"),
    ("milter:\n  lisen: x", "f.yaml:2:3: unknown setting `milter.lisen` (did you mean `listen`?)"),
    (
        "milter: {listen: [a], enginee: native}",
        "f.yaml:1:19: `milter.listen[0]`: `a` is no listening address",
    ),
    ("workers: 2", "f.yaml:1:1: unknown setting `workers` (write `workers:` in the section `milter:`)"),
    ("dns.timeout: 5s", "f.yaml:1:1: unknown setting `dns.timeout` (write `timeout:` in the section `dns:`)"),
    (
        "log: {colour: red}",
        "f.yaml:1:7: unknown setting `log.colour` (known: format, level, redact_local_parts)",
    ),
    (
        "trusted_hops:\n  - networks: [10.0.0.1]\n    deamon_names: [x]",
        "f.yaml:3:5: unknown setting `trusted_hops[0].deamon_names` (did you mean `daemon_names`?)",
    ),
    (
        "trusted_hops:\n  - daemon_names: [x]",
        "f.yaml:2:5: `trusted_hops[0]`: the setting `networks` is missing",
    ),
    (
        "trusted_hops:\n  - networks: []",
        "f.yaml:2:15: `trusted_hops[0].networks`: expected at least one entry, not an empty list",
    ),
    ("trusted_relays: [12]", "f.yaml:1:18: `trusted_relays[0]`: expected settings (`name: value`), not `12`"),
    ("- a", "f.yaml:1:1: expected settings (`name: value`), not a list"),
    ("hello", "f.yaml:1:1: expected settings (`name: value`), not `hello`"),
    ("log: json", "f.yaml:1:6: `log`: expected settings (`name: value`), not `json`"),
    ("milter: {listen: unix:/a}", "f.yaml:1:18: `milter.listen`: expected a list, not `unix:/a`"),
    ("milter: {listen: []}", "f.yaml:1:18: `milter.listen`: expected at least one entry, not an empty list"),
    (
        'milter:\n  listen:\n    - "inet:1@127.0.0.1"\n    - "inet:127.0.0.1:1"',
        "f.yaml:4:7: `milter.listen[1]`: stands twice in the list: `inet:127.0.0.1:1`",
    ),
    (
        "milter: {engine: nativ}",
        "f.yaml:1:18: `milter.engine`: expected native or libmilter, not `nativ` (did you mean `native`?)",
    ),
    ("milter: {engine: 7}", "f.yaml:1:18: `milter.engine`: expected native or libmilter, not `7`"),
    ("milter: {workers: 0}", "f.yaml:1:19: `milter.workers`: expected at least 1, not `0`"),
    ("milter: {workers: 257}", "f.yaml:1:19: `milter.workers`: expected at most 256, not `257`"),
    ("milter: {workers: two}", "f.yaml:1:19: `milter.workers`: expected a whole number, not `two`"),
    ("milter: {workers: 1.5}", "f.yaml:1:19: `milter.workers`: expected a whole number, not `1.5`"),
    (
        "milter: {max_sessions: true}",
        "f.yaml:1:24: `milter.max_sessions`: expected a whole number, not `true`",
    ),
    (
        "milter: {drain: soon}",
        "f.yaml:1:17: `milter.drain`: expected a duration such as 5s, 300ms or 2m, not `soon`",
    ),
    (
        "milter: {drain: -1}",
        "f.yaml:1:17: `milter.drain`: expected a duration such as 5s, 300ms or 2m, not `-1`",
    ),
    (
        "milter: {drain: 9999d}",
        "f.yaml:1:17: `milter.drain`: expected a duration of at most 366 days, not `9999d`",
    ),
    (
        "milter: {drain:}",
        "f.yaml:1:16: `milter.drain`: expected a duration such as 5s, 300ms or 2m, not nothing",
    ),
    (
        "milter: {drain: [5s]}",
        "f.yaml:1:17: `milter.drain`: expected a duration such as 5s, 300ms or 2m, not a list",
    ),
    (
        "limits: {message: 5m}",
        "f.yaml:1:19: `limits.message`: expected a duration from 100ms to 280s, not `5m`",
    ),
    ("dns: {timeout: 0}", "f.yaml:1:16: `dns.timeout`: expected a duration from 10ms to 1m, not `0`"),
    ("dns: {failure_ttl: 6s}", "f.yaml:1:20: `dns.failure_ttl`: expected a duration from 1s to 5s, not `6s`"),
    (
        "dns: {cache_size: huge}",
        "f.yaml:1:19: `dns.cache_size`: expected a size such as 65536, 64K or 50M, not `huge`",
    ),
    (
        "dns: {cache_size: 1.5M}",
        "f.yaml:1:19: `dns.cache_size`: expected a size such as 65536, 64K or 50M, not `1.5M`",
    ),
    (
        "dns: {cache_size: 9999G}",
        "f.yaml:1:19: `dns.cache_size`: expected a size of at most 1024G, not `9999G`",
    ),
    ("dns: {min_ttl: 2d}", "f.yaml:1:16: `dns.min_ttl`: max_ttl (1d) is shorter than min_ttl (2d)"),
    ("dns: {max_ttl: 1s}", "f.yaml:1:16: `dns.max_ttl`: max_ttl (1s) is shorter than min_ttl (5s)"),
    (
        "dns: {nameservers: [127.0.0.1, ns.example]}",
        "f.yaml:1:32: `dns.nameservers[1]`: `ns.example` is not a name server: expected IP, IP:port or [IPv6]:port",
    ),
    (
        'milter: {socket_mode: "0999"}',
        'f.yaml:1:23: `milter.socket_mode`: expected a file mode such as "0660", not `0999`',
    ),
    (
        "milter: {socket_mode: 1777}",
        'f.yaml:1:23: `milter.socket_mode`: expected a file mode such as "0660", not `1777`',
    ),
    (
        "internal: {networks: [10.0.0.0/33]}",
        "f.yaml:1:23: `internal.networks[0]`: expected an IP address or network such as 192.0.2.0/24, not `10.0.0.0/33`",
    ),
    (
        "authserv_id: a b",
        "f.yaml:1:14: `authserv_id`: empty, over-long or ill-formed label in domain name: `a b`",
    ),
    ("authserv_id: [a]", "f.yaml:1:14: `authserv_id`: expected a text, not a list"),
    (
        'authserv_siblings: [a.example, "*.b c"]',
        "f.yaml:1:32: `authserv_siblings[1]`: empty, over-long or ill-formed label in domain name: `*.b c`",
    ),
    (
        "headers: {strip: [From]}",
        "f.yaml:1:19: `headers.strip[0]`: this field is part of every message or signature and is never removed: `From`",
    ),
    (
        "headers: {strip: [X Y]}",
        "f.yaml:1:19: `headers.strip[0]`: 'X Y' is no field name, with or without a * at its end",
    ),
    ("headers: {comments: maybe}", "f.yaml:1:21: `headers.comments`: expected true or false, not `maybe`"),
    ("log: {format: xml}", "f.yaml:1:15: `log.format`: expected json or console, not `xml`"),
    (
        "log: {level: warn}",
        "f.yaml:1:14: `log.level`: expected debug, info, warning or error, not `warn` (did you mean `warning`?)",
    ),
    (
        "policy: enforec",
        "f.yaml:1:9: `policy`: expected monitor, enforce or strict, or a path (with a `/` or ending in `.yaml`), not `enforec` (did you mean `enforce`?)",
    ),
    ("policy: 5", "f.yaml:1:9: `policy`: expected a text, not `5`"),
    (
        "control: {socket: run/c.sock}",
        "f.yaml:1:19: `control.socket`: `unix:run/c.sock` needs the absolute path of a socket, as in unix:/run/authmilter/milter.sock",
    ),
    ("user: 0", "f.yaml:1:7: `user`: expected a text, not `0`"),
    ("user: a\nuser: b", "f.yaml:2:1: duplicate key `user` (it stands already at line 1)"),
    ("milter: {engine: native", "f.yaml:1:24: is not YAML: expected ',' or '}', but got '<stream end>'"),
    (
        "milter:\n\tengine: native",
        "f.yaml:2:1: is not YAML: found character '\\t' that cannot start any token",
    ),
]


@pytest.mark.parametrize(("text", "wanted"), MISTAKES, ids=[m[0][:40].replace("\n", " ") for m in MISTAKES])
def test_a_mistake_is_told_where_it_stands(text: str, wanted: str) -> None:
    assert mistakes(text)[0].startswith(wanted)


def test_every_mistake_is_told_at_once_in_the_order_of_the_file() -> None:
    text = """\
log: {format: xml, level: loud}
milter:
  workers: none
  engine: other
  colour: red
policy: hard
internal:
  networks: [a, 10.0.0.1, b]
"""
    places = [found.split(": ")[0] for found in mistakes(text)]
    assert places == [
        "f.yaml:1:15",
        "f.yaml:1:27",
        "f.yaml:3:12",
        "f.yaml:4:11",
        "f.yaml:5:3",
        "f.yaml:6:9",
        "f.yaml:8:14",
        "f.yaml:8:27",
    ]


def test_a_file_full_of_mistakes_lists_a_hundred() -> None:
    text = "internal:\n  networks:\n" + "    - x\n" * 5000
    assert len(mistakes(text)) == 100


def test_a_long_or_unprintable_value_is_shown_short_and_in_one_line() -> None:
    found = mistake('user: ok\npolicy: "a\\n\\x1b[31m' + "b" * 5000 + '"')
    assert "\n" not in found
    assert "\x1b" not in found
    assert len(found) < 300


# -- what is taken, and as what -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}", "null", "milter:\ndns:\nlog:\nlimits:\n"])
def test_an_empty_file_and_empty_sections_are_the_defaults(text: str) -> None:
    assert parse(text, "f.yaml") == Config()


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("5", 5.0), ("5s", 5.0), ("5 s", 5.0), ("300ms", 0.3), ("0.5", 0.5), ("1.5s", 1.5), ("2m", 120.0), ("1h", 3600.0),
        ("1d", 86400.0), ("0", 0.0), ("0s", 0.0), ('"7"', 7.0), ("366d", 31622400.0),
    ],
)  # fmt: skip
def test_durations(written: str, seconds: float) -> None:
    assert parse(f"milter: {{drain: {written}}}", "f").milter.drain == seconds


@pytest.mark.parametrize(
    ("written", "octets"),
    [
        ("0", 0), ("65536", 65536), ("64K", 65536), ("64k", 65536), ("64 KB", 65536), ("50M", 52428800), ("1G", 1 << 30),
        ("1024G", 1 << 40),
    ],
)  # fmt: skip
def test_sizes(written: str, octets: int) -> None:
    assert parse(f"dns: {{cache_size: {written}}}", "f").dns.cache_size == octets


@pytest.mark.parametrize("written", ["0660", '"0660"', '"660"', "660", "0o660", '"0o660"'])
def test_a_mode_is_octal_however_it_is_written(written: str) -> None:
    assert parse(f"milter: {{socket_mode: {written}}}", "f").milter.socket_mode == 0o660


def test_a_mode_of_three_small_digits_is_not_taken_for_a_decimal_number() -> None:
    assert parse("milter: {socket_mode: 440}", "f").milter.socket_mode == 0o440


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("10.1.2.3", "10.1.2.3/32"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ('"2001:db8::1"', "2001:db8::1/128"),
        ('"::ffff:127.0.0.0/104"', "127.0.0.0/8"),
        ('"::ffff:0:0/96"', "0.0.0.0/0"),
        ('"::/0"', "::/0"),
    ],
)
def test_networks(written: str, kept: str) -> None:
    assert parse(f"internal: {{networks: [{written}]}}", "f").internal.networks == (kept,)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("inet:8891@127.0.0.1", "inet:8891@127.0.0.1"),
        ("inet:127.0.0.1:8891", "inet:8891@127.0.0.1"),
        ("inet6:8891@[::1]", "inet6:8891@[::1]"),
        ("local:/run/x.sock", "unix:/run/x.sock"),
        ("unix:/run/x.sock", "unix:/run/x.sock"),
        ("/run/x.sock", "unix:/run/x.sock"),
    ],
)
def test_every_form_of_a_listening_address(written: str, kept: str) -> None:
    assert parse(f'milter: {{listen: ["{written}"]}}', "f").milter.listen == (kept,)


def test_names_are_kept_in_the_form_that_is_compared() -> None:
    config = parse('authserv_id: MX.Example.COM\nauthserv_siblings: ["*.Bücher.example"]', "f")
    assert config.authserv_id == "mx.example.com"
    assert config.authserv_siblings == ("*.xn--bcher-kva.example",)


@pytest.mark.parametrize("word", ["yes", "on", "true", "True"])
def test_yes_and_on_are_taken_where_only_true_or_false_can_be_meant(word: str) -> None:
    assert parse(f"log: {{redact_local_parts: {word}}}", "f").log.redact_local_parts is True


@pytest.mark.parametrize(
    "policy", ["monitor", "enforce", "strict", "./x", "policies/a.yaml", "a.yaml", "a.yml", "/a/b"]
)
def test_a_policy_is_a_shipped_word_or_a_path(policy: str) -> None:
    assert parse(f"policy: {policy}", "f").policy == policy


def test_the_words_for_shipped_policies_are_those_that_are_shipped() -> None:
    assert SHIPPED_POLICIES == shipped.NAMES


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "grpc: {listen: ['127.0.0.1:1'], identities: [{name: x, peers: [loopback], permissions: [sign]}]}",
            "everybody on this machine may sign as `x`",
        ),
        ('grpc: {listen: ["unix:/a"], socket_mode: "0666"}', "grpc.socket_mode lets everybody"),
        (
            "grpc: {listen: ['0.0.0.0:1'], plaintext_on_public_addresses: i-know-that-mail-and-tokens-can-be-read-on-the-way}",
            "mail and tokens can be read",
        ),
        ("milter: {engine: libmilter, body_cap: 1M}", "milter.body_cap is ignored"),
        ("milter: {engine: libmilter, workers: 2}", "milter.workers is ignored"),
        ('milter: {listen: ["/a"], socket_mode: "0666"}', "lets everybody on this machine"),
        ('milter: {listen: ["inet:1@0.0.0.0"]}', "takes connections from other machines"),
        ('milter: {listen: ["inet6:1@[2001:4860:4860::8888]"]}', "takes connections from other machines"),
        ('internal: {networks: ["0.0.0.0/0"]}', "no mail will be judged"),
        ("limits: {message: 5s}", "limits.checks is longer"),
    ],
)
def test_what_works_but_surprises_is_warned_about(text: str, wanted: str) -> None:
    found = warnings(parse(text, "f"))
    assert len(found) == 1
    assert wanted in found[0]


@pytest.mark.parametrize("text", ["", 'milter: {listen: ["inet:1@localhost", "inet:2@10.0.0.1", "/a"]}'])
def test_usual_settings_are_not_warned_about(text: str) -> None:
    assert warnings(parse(text, "f")) == ()


# -- the file -------------------------------------------------------------------------------------------------------


def test_paths_in_the_file_start_at_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("policy: policies/x.yaml")
    loaded = load(file)
    assert loaded.path == file
    assert loaded.resolve(loaded.config.policy) == tmp_path / "policies" / "x.yaml"
    assert loaded.resolve("/etc/x") == Path("/etc/x")


def test_without_a_file_the_defaults_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(config_load, "DEFAULT_PATH", tmp_path / "absent" / "authmilter.yaml")
    assert load() == Loaded(config=Config(), path=None, base=Path.cwd())
    present = tmp_path / "authmilter.yaml"
    present.write_text("policy: strict")
    monkeypatch.setattr(config_load, "DEFAULT_PATH", present)
    assert load().config.policy == "strict"


def test_a_default_file_that_cannot_be_read_is_not_taken_for_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "authmilter.yaml"
    folder.mkdir()
    monkeypatch.setattr(config_load, "DEFAULT_PATH", folder)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load()


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        load(tmp_path / "absent.yaml")


def test_a_file_that_is_not_ours_to_read(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("")
    file.chmod(0)
    if os.access(file, os.R_OK):
        assert stat.S_IMODE(file.stat().st_mode) == 0, "root reads it anyway"
        return
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        load(file)


def test_what_is_not_utf8_is_told_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes("user: ä\ngroup: ü".encode() + b"\xff\n")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(caught.value) == f"{file}:2:9: is not UTF-8 text"


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match="is larger than 1 MiB"):
        read_text(Path("/dev/zero"))


def test_a_name_that_no_file_can_have_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="this is no file name"):
        read_text(Path("a\0b"))


# -- whatever the text ----------------------------------------------------------------------------------------------

_KEYS = sorted(set(Config.model_fields) | {n for n, _ in config_load._settings()} | {"x", "listen.x", "0"})
_VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        [
            "5s",
            "1e9d",
            "64K",
            "0660",
            "native",
            "libmilter",
            "inet:1@127.0.0.1",
            "/a",
            "10.0.0.0/8",
            "::1",
            "a.example",
            "enforce",
            "./x.yaml",
            "X-*",
            "9" * 400,
            "-1",
            "\0",
            "*.",
            "*.*",
            "[::1]:",
            "inet:@",
            "unix:",
            "٣s",
            "1" * 5000,
        ]
    )
)
_DOCUMENT = st.recursive(
    _VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4),
    max_leaves=20,
)


def _config_or_mistakes(text: str) -> None:
    config: Config | None = None
    complaints: tuple[Complaint, ...] = ()
    try:
        config = parse(text, "f.yaml")
    except ConfigError as e:
        complaints = e.complaints
    assert (config is None) == bool(complaints)
    assert all(c.message and "\n" not in str(c) for c in complaints)
    if config is not None:
        assert isinstance(warnings(config), tuple)
        assert parse(documents.dump(config.as_document()), "again") == config


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_a_configuration_or_a_list_of_mistakes(text: str) -> None:
    _config_or_mistakes(text)


@settings(max_examples=600, deadline=None)
@given(st.dictionaries(st.sampled_from(_KEYS), _DOCUMENT, max_size=5))
def test_any_document_of_known_keys_is_a_configuration_or_a_list_of_mistakes(data: dict[str, object]) -> None:
    _config_or_mistakes(json.dumps(data))


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(list(config_load._settings())), _VALUES | _VALUES.map(lambda value: [value]))
def test_any_value_of_any_setting_is_taken_or_refused(place: tuple[str, str], value: object) -> None:
    section, _, name = place[1].partition(".")
    _config_or_mistakes(json.dumps({section: {name: value}}))


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 366 * 86400))
def test_a_duration_is_written_as_it_is_read(seconds: float) -> None:
    config = parse(f"milter: {{drain: {seconds:.6f}s}}", "f")
    again = parse(documents.dump(config.as_document()), "f")
    assert again.milter.drain == pytest.approx(config.milter.drain, abs=1e-6)


def test_a_duplicate_key_hides_no_other_mistake() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("log: {format: xml}\nlog: {format: json}\nusr: x\n", "f.yaml")
    places = [(c.span.line, c.span.column) for c in caught.value.complaints]
    assert places == [(1, 15), (2, 1), (3, 1)]
