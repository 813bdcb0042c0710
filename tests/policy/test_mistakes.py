"""Every kind of mistake in a policy is found at load, with its place and a hint."""

from __future__ import annotations

import pytest

from authmilter.errors import Complaint, ConfigError, PolicyError, Span
from authmilter.policy import loader


def mistakes(text: str, **files: str) -> list[str]:
    def read_list(name: str) -> str:
        if name not in files:
            raise FileNotFoundError(2, "No such file or directory")
        return files[name]

    with pytest.raises(PolicyError) as caught:
        loader.load(text, "p.yaml", read_list=read_list)
    return [str(c) for c in caught.value.complaints]


def rule(body: str) -> str:
    """A policy whose only rule has `body` from line 4, column 5."""
    indented = "\n".join("    " + line for line in body.strip().split("\n"))
    return f"default: accept\nrules:\n  - id: r\n{indented}\n"


def when(condition: str) -> str:
    """A policy whose only condition stands at line 4, column 11."""
    return rule(f"when: {condition}\nthen: reject")


def then(action: str) -> str:
    """A policy whose only action stands at line 5, column 11."""
    return rule(f"when: always\nthen: {action}")


@pytest.mark.parametrize(
    ("condition", "complaint"),
    [
        # facts
        ("{dmarc.statsu: fail}", "4:12: unknown fact `dmarc.statsu` (did you mean `dmarc.status`?)"),
        ("{DMARC.status: fail}", "4:12: unknown fact `DMARC.status` (did you mean `dmarc.status`?)"),
        ("{zzz: 1}", "4:12: unknown fact `zzz`"),
        # impossible values
        ("{spf.status: passs}", "4:24: `spf.status` cannot be `passs` (did you mean `pass`?)"),
        ("{spf.status: [pass, soft_fail]}", "4:31: `spf.status` cannot be `soft_fail` (did you mean `softfail`?)"),
        ("{dmarc.policy: drop}", "4:26: `dmarc.policy` cannot be `drop` (known: none, quarantine, reject)"),
        ("{dkim.statuses: good}", "4:27: `dkim.statuses` cannot be `good` (known: pass, fail, policy, neutral, temperror, permerror, internal_error)"),
        ("{spf.status: {not: passs}}", "4:30: `spf.status` cannot be `passs` (did you mean `pass`?)"),
        # wrong types
        ("{dmarc.policy: ~}", "4:26: `dmarc.policy` wants one of none, quarantine, reject, not nothing (did you mean `none`?)"),
        ("{dmarc.policy: true}", "4:26: `dmarc.policy` wants one of none, quarantine, reject, not `true`"),
        ("{spf.broad: yes}", "4:23: `spf.broad` wants true or false, not `yes` (did you mean `true`?)"),
        ("{spf.broad: [true]}", "4:23: `spf.broad` wants true or false, not a list"),
        ("{rcpt.count: many}", "4:24: `rcpt.count` wants a number, not `many`"),
        ("{rcpt.count: true}", "4:24: `rcpt.count` wants a number, not `true`"),
        ("{rcpt.count: {above: '3'}}", "4:32: `above` wants a number, not `3`"),
        ("{daemon_name: 25}", "4:25: `daemon_name` wants a text, not `25` (put it in quotes)"),
        ("{mail_from.domain: 25}", "4:30: `mail_from.domain` wants a domain, not `25`"),
        ("{client.ip: {present: 1}}", "4:33: `present` wants true or false, not `1`"),
        # domains, globs, networks
        ("{mail_from.domain: 'a b.example'}", "4:30: `a b.example` is not a domain: empty, over-long or ill-formed label in domain name"),
        ("{mail_from.domain: ['*..x']}", "4:31: `*..x` is not a pattern of domains: empty, over-long or ill-formed label in domain name"),
        ("{mail_from.domain: {at_or_below: '*.x'}}", "4:44: `at_or_below` wants a domain, not the pattern `*.x`"),
        ("{mail_from.domain: {at_or_below: [a.example, 1]}}", "4:56: `at_or_below` wants a domain, not `1`"),
        ("{mail_from.domain: {at_or_below: []}}", "4:44: `at_or_below` wants a domain, not an empty list"),
        ("{mail_from.domain: {at_or_below: 'a b'}}", "4:44: `a b` is not a domain: empty, over-long or ill-formed label in domain name"),
        ("{message.subject: '*a*b*c*d*e*f*g*h*'}", "4:29: a pattern has at most 8 stars"),
        ("{client.ip: 192.0.2.1/24}", "4:23: `192.0.2.1/24` has bits set outside its mask (did you mean `192.0.2.0/24`?)"),
        ("{client.ip: 300.0.0.1}", "4:23: `300.0.0.1` is not an IP address or network"),
        # operators
        ("{spf.status: {nott: pass}}", "4:25: unknown operator `nott` (did you mean `not`?)"),
        ("{spf.status: {above: 3}}", "4:25: `above` does not go with `spf.status`, a word (known: not, present)"),
        ("{spf.status: {any: pass}}", "4:25: `any` does not go with `spf.status`, a word (known: not, present)"),
        ("{dkim.pass_domains: {not: a.example}}", "4:32: `not` does not go with a list of domains (known: any, all, none, in_list, at_or_below, count, present)"),
        ("{dkim.pass_domains: {some: a.example}}", "4:32: unknown operator `some` (known: any, all, none, in_list, at_or_below, count, present)"),
        ("{dkim.statuses: {in_list: x}}", "4:28: `in_list` does not go with a list of words (known: any, all, none, count, present)"),
        ("{spf.status: {}}", "4:24: nothing is wanted of the fact"),
        ("{spf.status: []}", "4:24: an empty list: the condition could never hold"),
        ("{client.ip: {in_list: partners}}", "4:33: there is no list `partners` (lists stand under `lists`)"),
        ("{client.ip: {in_list: 7}}", "4:33: there is no list `7` (lists stand under `lists`)"),
        # the tree
        ("{}", "4:11: there is no condition (for every message: `when: always`)"),
        ("~", "4:11: conditions are a mapping of facts, not nothing (for every message: `when: always`)"),
        ("allways", "4:11: conditions are a mapping of facts, not `allways` (did you mean `always`?)"),
        ("[]", "4:11: conditions are a mapping of facts, not an empty list (for every message: `when: always`)"),
        ("{any: {tls: true}}", "4:17: `any` wants a list of conditions, not a mapping"),
        ("{all: []}", "4:17: `all` wants a list of conditions, not an empty list"),
        ("{any: [{tls: true}, {tsl: true}]}", "4:32: unknown fact `tsl` (did you mean `tls`?)"),
        ("{not: [{tls: true}]}", "4:17: conditions are a mapping of facts, not a list (for every message: `when: always`)"),
        ("{tls: true, tls: false}", "4:23: duplicate key `tls` (it stands already at line 4)"),
    ],
)  # fmt: skip
def test_mistakes_in_conditions(condition: str, complaint: str) -> None:
    assert mistakes(when(condition)) == [f"p.yaml:{complaint}"]


@pytest.mark.parametrize(
    ("action", "complaint"),
    [
        ("rejct", "5:11: unknown action `rejct` (did you mean `reject`?)"),
        ("~", "5:11: unknown action nothing (known: accept, reject, tempfail, quarantine, discard, continue)"),
        ("{rejct: {}}", "5:12: unknown action `rejct` (did you mean `reject`?)"),
        ("{reject: ~, discard: ~}", "5:11: one action is wanted, not 2 (tags stand beside `then`, under `tag`)"),
        ("{}", "5:11: one action is wanted, not 0 (tags stand beside `then`, under `tag`)"),
        ("{reject: 550}", "5:20: `reject` wants a mapping, not `550`"),
        ("{reject: {cod: 550}}", "5:21: unknown key of `reject` `cod` (did you mean `code`?)"),
        ("{accept: {text: x}}", "5:21: unknown key of `accept` `text`"),
        # codes
        ("{reject: {code: 451}}", "5:27: `reject` wants a code from 500 to 559, not `451` (for that code the action is `tempfail`)"),
        ("{tempfail: {code: 550}}", "5:29: `tempfail` wants a code from 400 to 459, not `550` (for that code the action is `reject`)"),
        ("{reject: {code: 250}}", "5:27: `reject` wants a code from 500 to 559, not `250`"),
        ("{reject: {code: 599}}", "5:27: `reject` wants a code from 500 to 559, not `599`"),
        ("{reject: {code: '550'}}", "5:27: `code` wants a number, not `550`"),
        ("{reject: {enhanced: 4.7.1}}", "5:31: the enhanced code `4.7.1` does not go with the code 550 (did you mean `5.7.1`?)"),
        ("{tempfail: {code: 450, enhanced: 5.7.25}}", "5:44: the enhanced code `5.7.25` does not go with the code 450 (did you mean `4.7.25`?)"),
        ("{reject: {enhanced: 5.7}}", "5:31: `5.7` is not an enhanced code (three numbers, such as `5.7.1`)"),
        ("{reject: {enhanced: 5.7.1000}}", "5:31: `5.7.1000` is not an enhanced code (three numbers, such as `5.7.1`)"),
        ("{reject: {enhanced: 5.07.1}}", "5:31: `5.07.1` is not an enhanced code (three numbers, such as `5.7.1`)"),
        # texts
        ("{reject: {text: 'Grüße'}}", "5:27: `text` may hold printable US-ASCII only, in one line"),
        ('{reject: {text: "a\\r\\nb"}}', "5:27: `text` may hold printable US-ASCII only, in one line"),
        ("{reject: {text: ' '}}", "5:27: `text` is empty"),
        ("{reject: {text: 550}}", "5:27: `text` wants text, not `550` (put it in quotes)"),
        ("{reject: {text: '" + "x" * 401 + "'}}", "5:27: `text` is 401 characters long, at most 400 are allowed"),
        ("{reject: {text: 'no {spf.domian}'}}", "5:27: `text`: unknown placeholder `{spf.domian}` (did you mean `spf.domain`?)"),
        ("{reject: {text: '{message.subject}'}}", "5:27: `text`: `{message.subject}` is a stranger's text: rules may ask about it, not repeat it"),
        ("{reject: {text: '50 } off'}}", "5:27: `text`: a brace stands alone; write it twice if a brace is meant"),
        # quarantine
        ("{quarantine: {by: hodl}}", "5:29: `by` cannot be `hodl` (did you mean `hold`?)"),
        ("{quarantine: {by: hold, header: X-A}}", "5:35: `header` goes with `by: header` only"),
        ("{quarantine: {header: 'a b'}}", "5:33: `a b` cannot be the name of a header field"),
        ("{quarantine: {header: From}}", "5:33: `header` may not add the field `From` (choose a name of your own, such as `X-Spam-Auth`)"),
    ],
)  # fmt: skip
def test_mistakes_in_actions(action: str, complaint: str) -> None:
    assert mistakes(then(action)) == [f"p.yaml:{complaint}"]


@pytest.mark.parametrize(
    ("body", "complaints"),
    [
        ("then: reject", ["3:5: the rule has no `when` (for every message: `when: always`)"]),
        ("when: always", ["3:5: there is no `then` (known: accept, reject, tempfail, quarantine, discard, continue)"]),
        ("when: always\nthan: reject", ["3:5: there is no `then` (known: accept, reject, tempfail, quarantine, discard, continue)", "5:5: unknown key of a rule `than` (did you mean `then`?)"]),
        ("when: always\nthen: accept\nmode: monitr", ["6:11: `mode` cannot be `monitr` (did you mean `monitor`?)"]),
        ("when: always\nthen: accept\noverride: mailinglist", ["6:15: `override` cannot be `mailinglist` (did you mean `mailing_list`?)"]),
        ("when: always\nthen: reject\noverride: other", ["6:5: `override` says why mail is spared, and this rule does `reject`"]),
        ("when: always\nthen: accept\nbecause: 7", ["6:14: `because` wants text, not `7`"]),
        ('when: always\nthen: accept\nbecause: "a\\nb"', ["6:14: `because` wants one line of printable text"]),
        (f"when: always\nthen: accept\nbecause: {'x' * 301}", ["6:14: `because` is 301 characters long, at most 300 are allowed"]),
        ("when: always\nthen: accept\ntag: X-A", ["6:10: a tag is a mapping with `header` or `subject_prefix`, not `X-A` (such as `header: {name: X-Note, value: text}`)"]),
        ("when: always\nthen: accept\ntag: {heder: 1}", ["6:11: unknown tag `heder` (did you mean `header`?)"]),
        ("when: always\nthen: accept\ntag: {header: X-A}", ["6:19: `header` wants a mapping with `name` and `value`, not `X-A`"]),
        ("when: always\nthen: accept\ntag: {header: {name: X-A}}", ["6:19: the header tag has no `value`"]),
        ("when: always\nthen: accept\ntag: [{header: {name: Authentication-Results, value: x}}]", ["6:27: `name` may not add the field `Authentication-Results` (choose a name of your own, such as `X-Spam-Auth`)"]),
        ("when: always\nthen: accept\ntag: {header: {name: ARC-Seal, value: x}}", ["6:26: `name` may not add the field `ARC-Seal` (choose a name of your own, such as `X-Spam-Auth`)"]),
        ("when: always\nthen: accept\ntag: {header: {name: X-A, value: '{nothing.here}'}}", ["6:38: `value`: unknown placeholder `{nothing.here}`"]),
        (f"when: always\nthen: accept\ntag: {{subject_prefix: '{'x' * 61}'}}", ["6:27: `subject_prefix` is 61 characters long, at most 60 are allowed"]),
        ("when: always\nthen: accept\ntag:\n" + "- {subject_prefix: x}\n" * 11, ["7:5: a rule has at most 10 tags"]),
    ],
)  # fmt: skip
def test_mistakes_in_rules(body: str, complaints: list[str]) -> None:
    assert mistakes(rule(body)) == [f"p.yaml:{c}" for c in complaints]


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        ("", ["1:1: a policy is a mapping with `rules` and `default`, not nothing"]),
        ("- a", ["1:1: a policy is a mapping with `rules` and `default`, not a list"]),
        ("rules: []", ["1:1: the policy has no `default` (say what becomes of all other mail: `default: accept`)"]),
        ("rulse: []\ndefault: accept", ["1:1: unknown key `rulse` (did you mean `rules`?)"]),
        ("default: continue", ["1:10: `continue` leads nowhere: nothing comes after the default"]),
        ("default: {then: continue}", ["1:17: `continue` leads nowhere: nothing comes after the default"]),
        ("default: {}", ["1:10: one action is wanted, not 0 (tags stand beside `then`, under `tag`)"]),
        ("default: {because: x}", ["1:10: there is no `then` (known: accept, reject, tempfail, quarantine, discard, continue)"]),
        ("default: {then: accept, when: always}", ["1:25: unknown key of the default `when` (did you mean `then`?)"]),
        ("version: 2\ndefault: accept", ["1:10: version `2` is not known (this is version 1)"]),
        ("version: true\ndefault: accept", ["1:10: version `true` is not known (this is version 1)"]),
        ("name: A b\ndefault: accept", ["1:7: `name` cannot be `A b` (small letters, digits, `-`, `_` and `.`)"]),
        ("description: 1\ndefault: accept", ["1:14: `description` wants text, not `1`"]),
        ("mode: on\ndefault: accept", ["1:7: `mode` cannot be `on` (known: enforce, monitor)"]),
        ("on_mixed: lenient\ndefault: accept", ["1:11: `on_mixed` cannot be `lenient` (known: least-severe, most-severe)"]),
        ("quarantine_by: 1\ndefault: accept", ["1:16: `quarantine_by` cannot be `1` (known: hold, header)"]),
        ("would_have_header: Subject\ndefault: accept", ["1:20: `would_have_header` may not add the field `Subject` (choose a name of your own, such as `X-Spam-Auth`)"]),
        ("rules: {}\ndefault: accept", ["1:8: `rules` wants a list, not a mapping"]),
        ("rules: [reject]\ndefault: accept", ["1:9: a rule is a mapping, not `reject`"]),
        ("rules:\n- {when: always, then: accept}\ndefault: accept", ["2:3: the rule has no `id` (the decision names the rule by it)"]),
        ("rules:\n- {id: A b, when: always, then: accept}\ndefault: accept", ["2:8: `id` cannot be `A b` (small letters, digits, `-`, `_` and `.`, at most 64)"]),
        ("rules:\n- {id: default, when: always, then: accept}\ndefault: accept", ["2:8: `id` cannot be `default`, which is a name of ours"]),
        ("rules:\n- {id: a, when: {tls: true}, then: accept}\n- {id: a, when: {tls: false}, then: accept}\ndefault: accept", ["3:8: duplicate id `a` (it stands already at line 2)"]),
        ("default: accept\ndefault: reject", ["2:1: duplicate key `default` (it stands already at line 1)"]),
        ("default: [accept", ["1:17: is not YAML: expected ',' or ']', but got '<stream end>' (while parsing a flow sequence)"]),
        ("rules: [" + "x, " * 1001 + "]\ndefault: accept", ["1:3009: a policy has at most 1000 rules"]),
    ],
)  # fmt: skip
def test_mistakes_in_the_policy(text: str, complaints: list[str]) -> None:
    assert mistakes(text) == [f"p.yaml:{c}" for c in complaints]


LISTS = """\
default: accept
lists:
  inline: [a.example, '!b.example', 'c d']
  file: {file: partners.txt}
  gone: {file: gone.txt}
  Odd Name: [a]
  number: 7
  keys: {file: partners.txt, path: x}
  nofile: {}
  entries: [1, ' ', a.example]
rules:
  - {id: a, when: {mail_from.domain: {in_list: inline}}, then: reject}
  - {id: b, when: {client.ip: {in_list: file}}, then: reject}
  - {id: c, when: {client.ip: {not_in_list: file}}, then: reject}
  - {id: d, when: {client.ip: {in_list: fiel}}, then: reject}
"""


def test_mistakes_in_lists_are_told_where_they_stand_and_once() -> None:
    found = mistakes(LISTS, **{"partners.txt": "# partners\n192.0.2.1\n  192.0.2.7/24 # net\n\nbad\n"})
    assert found == [
        "p.yaml:3:23: `!b.example`: a list has no exceptions (use a second list with `not_in_list`)",
        "p.yaml:3:37: `c d` is not a domain: empty, over-long or ill-formed label in domain name",
        "p.yaml:5:16: the list `gone.txt` cannot be read (No such file or directory)",
        "p.yaml:6:3: a list cannot be called `Odd Name` (small letters, digits, `-`, `_` and `.`)",
        "p.yaml:7:11: a list is written as `[a, b]` or `{file: NAME}`, not `7`",
        "p.yaml:8:30: unknown key of a list `path` (known: file)",
        "p.yaml:9:11: `file` wants the name of a file, not nothing",
        "p.yaml:10:13: an entry of a list is text, not `1`",
        "p.yaml:10:16: an entry of a list is text, not ` `",
        "p.yaml:15:41: there is no list `fiel` (did you mean `file`?)",
        "partners.txt:3:3: `192.0.2.7/24` has bits set outside its mask (did you mean `192.0.2.0/24`?)",
        "partners.txt:5:1: `bad` is not an IP address or network",
    ]


def test_a_list_that_cannot_be_used_says_why() -> None:
    text = "default: accept\nlists:\n  x: {file: x.txt}\n"

    def refuse(name: str) -> str:
        raise ConfigError((Complaint(span=Span(file=name), message="is larger than 1 MiB"),))

    def garble(name: str) -> str:
        return bytes([255]).decode("utf-8") + name

    for reader, expected in (
        (refuse, "p.yaml:3:13: the list `x.txt` cannot be used (is larger than 1 MiB)"),
        (garble, "p.yaml:3:13: the list `x.txt` cannot be read (it is no text)"),
        (None, "p.yaml:3:13: the list `x.txt` cannot be read here"),
    ):
        with pytest.raises(PolicyError) as caught:
            loader.load(text, "p.yaml", read_list=reader)
        assert [str(c) for c in caught.value.complaints] == [expected]


def test_all_mistakes_are_told_at_once_in_order_of_place() -> None:
    text = """\
mode: watch
rules:
  - id: one
    when: {spf.status: passs, dmarc.statsu: fail}
    then: {reject: {code: 450, enhanced: 4.7.1, text: "{who}"}}
  - id: one
    then: rejct
    becuase: x
"""
    assert [c.split(" ", 1)[0] for c in mistakes(text)] == [
        "p.yaml:1:1:",
        "p.yaml:1:7:",
        "p.yaml:4:24:",
        "p.yaml:4:31:",
        "p.yaml:5:27:",
        "p.yaml:5:42:",
        "p.yaml:5:55:",
        "p.yaml:6:5:",
        "p.yaml:6:9:",
        "p.yaml:7:11:",
        "p.yaml:8:5:",
    ]


def test_complaints_are_bounded() -> None:
    text = "default: accept\nrules:\n" + "  - {}\n" * 1000
    assert len(mistakes(text)) == 200


def test_a_duplicate_key_hides_no_other_mistake() -> None:
    text = "lists:\n  l: [a.example]\n  l: [b.example]\nrules:\n- {id: a, when: {spf.status: passs}, then: accpt}\n"
    assert [line.split(": ", 1)[0] for line in mistakes(text)] == [
        "p.yaml:1:1", "p.yaml:3:3", "p.yaml:5:30", "p.yaml:5:44",
    ]  # fmt: skip
