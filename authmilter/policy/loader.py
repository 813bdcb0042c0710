"""Policy text -> `Policy`, or every mistake in it at once.

Takes text, not a path; lists that stand in files of their own are read through a function that is handed in.
docs/policy-language.md is the language's manual.

Raises: `PolicyError` and nothing else, whatever the text, with a complaint for each mistake: file, line, column,
what is wrong, and where it can be told, what was probably meant.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from datetime import date

from authmilter import documents, grammar
from authmilter.documents import Data, Document, Path
from authmilter.errors import Complaint, ConfigError, PolicyError, Span
from authmilter.policy import exceptions, lint
from authmilter.policy.conditions import Conditions, text_of
from authmilter.policy.lists import Lists, ReadList
from authmilter.policy.notes import Notes, items_of, near, shown
from authmilter.policy.replies import default_reply
from authmilter.policy.rules import (
    DEFAULT_ID,
    ERROR_HEADER,
    QUARANTINE_HEADER,
    RESERVED_IDS,
    Action,
    ActionKind,
    Condition,
    HeaderTag,
    Mode,
    OnMixed,
    Policy,
    PrefixTag,
    QuarantineBy,
    ReplySpec,
    Rule,
    TagSpec,
    asks,
)
from authmilter.policy.template import Template
from authmilter.verdict import OverrideReason

__all__ = ["ACTION_KEYS", "DEFAULT_KEYS", "POLICY_KEYS", "RULE_KEYS", "load"]

MAX_RULES = 1000
MAX_TAGS = 10
MAX_BECAUSE = 300
MAX_PREFIX = 60
MAX_HEADER_NAME = 70

POLICY_KEYS = (
    "version",
    "name",
    "description",
    "mode",
    "on_mixed",
    "quarantine_by",
    "would_have_header",
    "lists",
    "exceptions",
    "rules",
    "default",
)
RULE_KEYS = ("id", "when", "then", "tag", "override", "because", "mode")
DEFAULT_KEYS = ("then", "tag", "because")
#: The options of each action.
ACTION_KEYS: dict[ActionKind, tuple[str, ...]] = {
    ActionKind.ACCEPT: (),
    ActionKind.REJECT: ("code", "enhanced", "text"),
    ActionKind.TEMPFAIL: ("code", "enhanced", "text"),
    ActionKind.QUARANTINE: ("by", "header", "value"),
    ActionKind.DISCARD: (),
    ActionKind.CONTINUE: (),
}
_ACTIONS = tuple(str(kind) for kind in ActionKind)

_ID = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
# RFC 3463 §2
_ENHANCED = re.compile(r"([245])\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})")

#: Fields that mean something to mail software; a tag may not add one.
_PROTECTED = frozenset(
    {
        "authentication-results",
        "bcc",
        "cc",
        "date",
        "dkim-signature",
        "from",
        "in-reply-to",
        "list-id",
        "list-post",
    }
    | {"list-unsubscribe", "message-id", "mime-version", "received", "received-spf", "references", "reply-to"}
    | {"return-path", "sender", "subject", "to"}
)
_PROTECTED_PREFIXES = ("content-", "arc-", "bimi-", "resent-")


def load(text: str, file: str, *, read_list: ReadList | None = None, today: date | None = None) -> Policy:
    """Read a policy.

    Args:
        text: the policy (YAML).
        file: its name, for complaints; without a `name:` in it, its last part is the policy's name.
        read_list: returns the text of a list's file, by the name the policy gives; may raise ConfigError or
            OSError. Without it lists from files are a mistake.
        today: the day, for warnings of exceptions that have expired; without it there are none.

    Raises:
        PolicyError: with every mistake found.
    """
    mistakes: list[Complaint] = []
    try:
        document = documents.parse(text, file, mistakes=mistakes)
    except ConfigError as e:
        raise PolicyError(e.complaints) from None
    loader = _Loader(document, read_list)
    loader.notes.complaints.extend(mistakes)
    policy = loader.policy()
    if policy is None or loader.notes.complaints:
        raise PolicyError(loader.notes.in_order())
    whole = "\0".join([text, *loader.lists.texts]).encode("utf-8", "surrogatepass")
    hashed = hashlib.sha256(whole).hexdigest()[:16]
    return replace(policy, digest=hashed, warnings=lint.warnings(policy, today))


class _Loader:
    """One load of one policy; every mistake is noted and loading goes on."""

    def __init__(self, document: Document, read_list: ReadList | None) -> None:
        self.notes = Notes(document)
        data = document.data
        self.lists = Lists(self.notes, read_list, data.get("lists") if isinstance(data, dict) else None)
        self._conditions = Conditions(self.notes, self.lists)
        self._tag_names = {QUARANTINE_HEADER.lower(), ERROR_HEADER.lower()}
        self._quarantine_by = QuarantineBy.HOLD

    # -- the policy

    def policy(self) -> Policy | None:
        """Return the policy; None, or something of no use, where there are complaints."""
        data = self.notes.document.data
        if not isinstance(data, dict):
            self.notes.at((), f"a policy is a mapping with `rules` and `default`, not {shown(data)}")
            return None
        self.notes.keys(data, (), POLICY_KEYS, "key")
        if "version" in data and (data["version"] != 1 or isinstance(data["version"], bool)):
            self.notes.at(("version",), f"version {shown(data['version'])} is not known", "this is version 1")
        if "description" in data and not isinstance(data["description"], str):
            self.notes.at(("description",), f"`description` wants text, not {shown(data['description'])}")
        mode = self.notes.word(Mode, data["mode"], ("mode",), "`mode`") if "mode" in data else None
        mixed = None
        if "on_mixed" in data:
            mixed = self.notes.word(OnMixed, data["on_mixed"], ("on_mixed",), "`on_mixed`")
        if "quarantine_by" in data:
            by = self.notes.word(QuarantineBy, data["quarantine_by"], ("quarantine_by",), "`quarantine_by`")
            self._quarantine_by = by or self._quarantine_by
        would = None
        if "would_have_header" in data:
            path = ("would_have_header",)
            would = self._header_name(data["would_have_header"], path, "`would_have_header`")
        name = self._name(data)
        rules = self._rules(data.get("rules"))
        default = self._default(data)
        excepted = exceptions.read(self.notes, data.get("exceptions"))
        if default is None:
            return None
        reads = set(self._conditions.methods)
        if any(asks(rule.conditions, "exception.") for rule in rules):
            reads |= {"dmarc", *(way for each in excepted for way in each.proven_by)}
        single = self._conditions.recipient_facts
        return Policy(
            name=name,
            rules=rules,
            default=default,
            mode=mode or Mode.ENFORCE,
            on_mixed=mixed or OnMixed.LEAST_SEVERE,
            quarantine_by=self._quarantine_by,
            would_have_header=would or "",
            lists=self.lists.named(),
            exceptions=excepted,
            reads=frozenset(reads),
            recipient_key="address" if "rcpt.address" in single else "domain" if single else "",
            tag_names=frozenset(self._tag_names),
        )

    def _name(self, data: dict[str, Data]) -> str:
        if "name" in data:
            given = data["name"]
            if isinstance(given, str) and _ID.fullmatch(given):
                return given
            self.notes.at(
                ("name",), f"`name` cannot be {shown(given)}", "small letters, digits, `-`, `_` and `.`"
            )
        stem = re.split(r"[/\\]", self.notes.document.file)[-1].lower()
        stem = stem.removesuffix(".yaml").removesuffix(".yml")
        return re.sub(r"[^a-z0-9._-]", "-", stem)[:64] or "policy"

    def _rules(self, data: Data) -> tuple[Rule, ...]:
        if data is None:
            return ()
        if not isinstance(data, list):
            self.notes.at(("rules",), f"`rules` wants a list, not {shown(data)}")
            return ()
        if len(data) > MAX_RULES:
            self.notes.at(("rules", MAX_RULES), f"a policy has at most {MAX_RULES} rules")
            return ()
        rules: list[Rule] = []
        seen: dict[str, Span] = {}
        for position, item in enumerate(data):
            path: Path = ("rules", position)
            if not isinstance(item, dict):
                self.notes.at(path, f"a rule is a mapping, not {shown(item)}")
                continue
            rule = self._rule(item, path, seen)
            if rule is not None:
                rules.append(rule)
        return tuple(rules)

    def _rule(self, data: dict[str, Data], path: Path, seen: dict[str, Span]) -> Rule | None:
        self.notes.keys(data, path, RULE_KEYS, "key of a rule")
        name = self._rule_id(data, path, seen)
        conditions: tuple[Condition, ...] | None = None
        if "when" in data:
            conditions = self._conditions.when(data["when"], (*path, "when"))
        else:
            self.notes.at(path, "the rule has no `when`", "for every message: `when: always`")
        action = self._action(data, path, conditions or ())
        tags = self._tags(data.get("tag"), (*path, "tag"))
        mode = self.notes.word(Mode, data["mode"], (*path, "mode"), "`mode`") if "mode" in data else None
        override: OverrideReason | None = None
        if "override" in data:
            override = self.notes.word(OverrideReason, data["override"], (*path, "override"), "`override`")
            if action is not None and action.kind in {ActionKind.REJECT, ActionKind.DISCARD}:
                message = f"`override` says why mail is spared, and this rule does `{action.kind}`"
                self.notes.at_key((*path, "override"), message)
        because = self._because(data, path)
        if name is None or conditions is None or action is None:
            return None
        return Rule(
            id=name,
            conditions=conditions,
            action=self._with_quarantine_header(action, name),
            because=because or text_of(conditions) or "every message",
            tags=tags,
            override=override,
            mode=mode or Mode.ENFORCE,
            span=self.notes.document.span((*path, "id")),
        )

    def _rule_id(self, data: dict[str, Data], path: Path, seen: dict[str, Span]) -> str | None:
        if "id" not in data:
            self.notes.at(path, "the rule has no `id`", "the decision names the rule by it")
            return None
        name = data["id"]
        where: Path = (*path, "id")
        if not isinstance(name, str) or not _ID.fullmatch(name):
            self.notes.at(
                where, f"`id` cannot be {shown(name)}", "small letters, digits, `-`, `_` and `.`, at most 64"
            )
            return None
        if name in RESERVED_IDS:
            self.notes.at(where, f"`id` cannot be `{name}`, which is a name of ours")
            return None
        if name in seen:
            self.notes.at(where, f"duplicate id `{name}`", f"it stands already at line {seen[name].line}")
            return None
        seen[name] = self.notes.document.span(where)
        return name

    def _because(self, data: dict[str, Data], path: Path) -> str:
        if "because" not in data:
            return ""
        given = data["because"]
        where: Path = (*path, "because")
        if not isinstance(given, str):
            self.notes.at(where, f"`because` wants text, not {shown(given)}")
        elif not given.strip() or not given.isprintable():
            self.notes.at(where, "`because` wants one line of printable text")
        elif len(given) > MAX_BECAUSE:
            self.notes.at(
                where, f"`because` is {len(given)} characters long, at most {MAX_BECAUSE} are allowed"
            )
        else:
            return given.strip()
        return ""

    def _default(self, data: dict[str, Data]) -> Rule | None:
        if "default" not in data:
            self.notes.at(
                (), "the policy has no `default`", "say what becomes of all other mail: `default: accept`"
            )
            return None
        path: Path = ("default",)
        given = data["default"]
        body: dict[str, Data] = given if isinstance(given, dict) else {}
        self.notes.keys(body, path, DEFAULT_KEYS, "key of the default")
        action = self._action(body, path, ()) if body else self._action_of(given, path, ())
        if action is not None and action.kind is ActionKind.CONTINUE:
            at = (*path, "then") if body else path
            self.notes.at(at, "`continue` leads nowhere: nothing comes after the default")
        tags = self._tags(body.get("tag"), (*path, "tag"))
        because = self._because(body, path) or "no rule decided"
        if action is None:
            return None
        return Rule(
            id=DEFAULT_ID,
            conditions=(),
            action=self._with_quarantine_header(action, DEFAULT_ID),
            because=because,
            tags=tags,
            span=self.notes.document.key_span(path),
        )

    # -- actions and tags

    def _action(self, data: dict[str, Data], path: Path, conditions: tuple[Condition, ...]) -> Action | None:
        if "then" not in data:
            self.notes.at(path, "there is no `then`", "known: " + ", ".join(_ACTIONS))
            return None
        return self._action_of(data["then"], (*path, "then"), conditions)

    def _action_of(self, data: Data, path: Path, conditions: tuple[Condition, ...]) -> Action | None:
        if isinstance(data, dict):
            if len(data) != 1:
                self.notes.at(
                    path, f"one action is wanted, not {len(data)}", "tags stand beside `then`, under `tag`"
                )
                return None
            ((word, options),) = data.items()
            where: Path = (*path, word)
            if word not in _ACTIONS:
                self.notes.at_key(where, f"unknown action {shown(word)}", near(word, _ACTIONS))
                return None
        elif isinstance(data, str) and data in _ACTIONS:
            word, options, where = data, None, path
        else:
            hint = near(data, _ACTIONS) if isinstance(data, str) else "known: " + ", ".join(_ACTIONS)
            self.notes.at(path, f"unknown action {shown(data)}", hint)
            return None
        kind = ActionKind(word)
        if options is None:
            options = {}
        if not isinstance(options, dict):
            self.notes.at(where, f"`{word}` wants a mapping, not {shown(options)}")
            return None
        self.notes.keys(options, where, ACTION_KEYS[kind], f"key of `{word}`")
        if kind in {ActionKind.REJECT, ActionKind.TEMPFAIL}:
            return Action(kind=kind, reply=self._reply(kind, options, where, conditions))
        if kind is ActionKind.QUARANTINE:
            return self._quarantine(options, where)
        return Action(kind=kind)

    def _reply(
        self, kind: ActionKind, data: dict[str, Data], path: Path, conditions: tuple[Condition, ...]
    ) -> ReplySpec:
        reply = default_reply(kind, conditions)
        digit = 5 if kind is ActionKind.REJECT else 4
        code = reply.code
        if "code" in data:
            given, where = data["code"], (*path, "code")
            if isinstance(given, bool) or not isinstance(given, int):
                self.notes.at(where, f"`code` wants a number, not {shown(given)}")
            elif not digit * 100 <= given <= digit * 100 + 59:
                # RFC 5321 §4.2.1: the second digit is 0 to 5
                other = {4: "tempfail", 5: "reject"}.get(given // 100, "")
                hint = f"for that code the action is `{other}`" if other and other != kind else ""
                self.notes.at(
                    where, f"`{kind}` wants a code from {digit}00 to {digit}59, not `{given}`", hint
                )
            else:
                code = given
        enhanced = reply.enhanced
        if "enhanced" in data:
            enhanced = self._enhanced(data["enhanced"], (*path, "enhanced"), digit, code) or enhanced
        text = reply.text
        if "text" in data:
            text = self.notes.template(data["text"], (*path, "text"), "`text`") or text
        return ReplySpec(code=code, enhanced=enhanced, text=text)

    def _enhanced(self, data: Data, path: Path, digit: int, code: int) -> str | None:
        found = _ENHANCED.fullmatch(data) if isinstance(data, str) else None
        if found is None:
            self.notes.at(
                path, f"{shown(data)} is not an enhanced code", f"three numbers, such as `{digit}.7.1`"
            )
            return None
        if found.group(1) != str(digit):
            meant = f"{digit}.{found.group(2)}.{found.group(3)}"
            self.notes.at(
                path,
                f"the enhanced code `{found.group()}` does not go with the code {code}",
                f"did you mean `{meant}`?",
            )
            return None
        return found.group()

    def _quarantine(self, data: dict[str, Data], path: Path) -> Action:
        by = self._quarantine_by
        if "by" in data:
            by = self.notes.word(QuarantineBy, data["by"], (*path, "by"), "`by`") or by
        elif "header" in data or "value" in data:
            by = QuarantineBy.HEADER
        header, value = "", None
        for key in ("header", "value"):
            if key in data and by is QuarantineBy.HOLD:
                self.notes.at_key((*path, key), f"`{key}` goes with `by: header` only")
        if "header" in data:
            header = self._header_name(data["header"], (*path, "header"), "`header`") or ""
        if "value" in data:
            value = self.notes.template(data["value"], (*path, "value"), "`value`")
        return Action(kind=ActionKind.QUARANTINE, by=by, header=header, value=value)

    def _with_quarantine_header(self, action: Action, rule: str) -> Action:
        """Fill in the field that a quarantine by header adds; origins may turn any refusal into one."""
        if action.kind is ActionKind.QUARANTINE and action.by is QuarantineBy.HEADER and action.header:
            header = action.header
        else:
            header = QUARANTINE_HEADER
        value = action.value if action.value is not None else Template((rule,))
        return replace(action, header=header, value=value)

    def _header_name(self, data: Data, path: Path, what: str) -> str | None:
        name = self.notes.line(data, path, what, MAX_HEADER_NAME)
        if name is None:
            return None
        lowered = name.lower()
        if not grammar.FIELD_NAME.fullmatch(name.encode("ascii")):
            self.notes.at(path, f"{shown(name)} cannot be the name of a header field")
        elif lowered in _PROTECTED or lowered.startswith(_PROTECTED_PREFIXES):
            self.notes.at(
                path,
                f"{what} may not add the field `{name}`",
                "choose a name of your own, such as `X-Spam-Auth`",
            )
        else:
            self._tag_names.add(lowered)
            return name
        return None

    def _tags(self, data: Data, path: Path) -> tuple[TagSpec, ...]:
        if data is None:
            return ()
        tags: list[TagSpec] = []
        for item, where in items_of(data, path):
            if not isinstance(item, dict) or not item:
                message = f"a tag is a mapping with `header` or `subject_prefix`, not {shown(item)}"
                self.notes.at(where, message, "such as `header: {name: X-Note, value: text}`")
                continue
            self.notes.keys(item, where, ("header", "subject_prefix"), "tag")
            if "header" in item:
                tag = self._header_tag(item["header"], (*where, "header"))
                if tag is not None:
                    tags.append(tag)
            if "subject_prefix" in item:
                prefix = self.notes.line(
                    item["subject_prefix"], (*where, "subject_prefix"), "`subject_prefix`", MAX_PREFIX
                )
                if prefix is not None:
                    tags.append(PrefixTag(prefix=prefix))
        if len(tags) > MAX_TAGS:
            self.notes.at(path, f"a rule has at most {MAX_TAGS} tags")
        return tuple(tags)

    def _header_tag(self, data: Data, path: Path) -> HeaderTag | None:
        if not isinstance(data, dict):
            self.notes.at(path, f"`header` wants a mapping with `name` and `value`, not {shown(data)}")
            return None
        self.notes.keys(data, path, ("name", "value"), "key of a header tag")
        for key in ("name", "value"):
            if key not in data:
                self.notes.at(path, f"the header tag has no `{key}`")
        if "name" not in data or "value" not in data:
            return None
        name = self._header_name(data["name"], (*path, "name"), "`name`")
        value = self.notes.template(data["value"], (*path, "value"), "`value`")
        return None if name is None or value is None else HeaderTag(name=name, value=value)
