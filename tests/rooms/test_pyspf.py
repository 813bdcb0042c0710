"""pyspf's oddities, one test each: a test that goes red here means upstream has mended one, and the override in
`authmilter/spf/_pyspf.py` that stands for it can go.

Stock pyspf is run with answers as data through the one seam it has, the instance method `dns`.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
from ipaddress import IPv4Address
from typing import Any

import pytest
import spf

from authmilter.dns.answer import Question, RdType
from authmilter.dns.budget import BudgetLookup
from authmilter.spf import _pyspf
from authmilter.spf.limits import SpfLimits
from tests.architecture.source import ROOT
from tests.support.rounds import NothingAtHand

IP = "192.0.2.7"
_Zone = dict[tuple[str, str], list[Any]]


class Stock(spf.query):  # type: ignore[misc]  # pyspf has no type information
    """Stock pyspf over a zone; `asked` is what it asked for. A zone entry that is an exception is raised."""

    def __init__(
        self, zone: _Zone, sender: str = "u@d.example", helo: str = "h.example", ip: str = IP
    ) -> None:
        super().__init__(i=ip, s=sender, h=helo)
        self.zone = zone
        self.asked: list[tuple[str, str]] = []

    def dns(self, name: str, qtype: str, cnames: object = None, ignore_void: bool = False) -> list[Any]:  # noqa: ARG002, FBT001, FBT002 - upstream's signature
        self.asked.append((name, qtype))
        for answer in self.zone.get((name, qtype), []):
            if isinstance(answer, Exception):
                raise answer
        return list(self.zone.get((name, qtype), []))


def txt(text: str) -> list[tuple[bytes]]:
    return [(text.encode(),)]


def of(text: str, zone: _Zone | None = None, sender: str = "u@d.example") -> Stock:
    query = Stock({("d.example", "TXT"): txt(text), **(zone or {})}, sender)
    query.outcome = query.check()
    return query


# -- how it asks, counts and logs ------------------------------------------------------------------------------------


def test_the_resolver_and_the_limits_are_module_globals() -> None:
    assert {"DNSLookup", "MAX_VOID_LOOKUPS"} <= set(spf.query.dns.__code__.co_names)
    assert "MAX_LOOKUP" in spf.query.check_lookups.__code__.co_names
    assert "MAX_MX" in spf.query.dns_mx.__code__.co_names


def test_the_stock_lookup_uses_the_deprecated_call_that_follows_search_lists() -> None:
    names = spf.DNSLookup_dnspython.__code__.co_names
    assert "query" in names
    assert "resolve" not in names


def test_the_log_prints(capsys: pytest.CaptureFixture[str]) -> None:
    Stock({}).log("top", "d.example", "v=spf1")
    assert capsys.readouterr().out == 'top: d.example "v=spf1"\n'


def test_a_negative_answer_is_not_remembered() -> None:
    query = spf.query(i=IP, s="u@d.example", h="h.example")
    query.cache[("void.example", "A")] = []
    query.querytime = -1  # the time is up, so that asking is an error
    with pytest.raises(spf.TempError):
        query.dns("void.example", "A")


@pytest.mark.parametrize("local", ["a\\9b", "\udcff" * 40])
def test_a_local_part_can_raise_out_of_a_check(local: str) -> None:
    query = spf.query(i=IP, s=f"{local}@d.example", h="h.example")
    with pytest.raises(Exception, match=r".") as raised:
        query.check("v=spf1 exists:%{l}.u.example -all")
    # an exception of the resolver library, not one that pyspf tells its callers about
    assert not isinstance(raised.value, spf.TempError | spf.PermError)


def test_an_address_that_is_none_raises_from_the_constructor() -> None:
    with pytest.raises(spf.PermError):
        spf.query(i="1.2.3", s="u@d.example", h="h.example")


def test_the_word_list_is_an_address_and_makes_a_check_collect_networks() -> None:
    query = spf.query(i="list", s="u@d.example", h="h.example")
    assert query.iplist == []


def test_the_old_interface_means_to_translate_a_result_and_does_not() -> None:
    assert "res =='error'" in inspect.getsource(spf.check)


def test_a_sender_is_cut_at_its_first_at_sign() -> None:
    query = spf.query(i=IP, s='"a@b.example"@d.example', h="h.example")
    assert (query.l, query.o) == ('"a', 'b.example"@d.example')


def test_every_single_letter_attribute_is_a_macro() -> None:
    query = Stock({})
    query.x = "leaked"
    assert query.expand("%{x}") == "leaked"


# -- modifiers -------------------------------------------------------------------------------------------------------


def test_an_explanation_is_asked_for_even_on_a_pass() -> None:
    query = of("v=spf1 ip4:192.0.2.7 -all exp=e.example")
    assert query.outcome[0] == "pass"
    assert ("e.example", "TXT") in query.asked


def test_whatever_is_raised_while_an_explanation_is_asked_for_is_swallowed() -> None:
    query = of("v=spf1 -all exp=e.example", {("e.example", "TXT"): [RuntimeError("lost")]})
    assert query.outcome[0] == "fail"


def test_our_query_remembers_what_pyspf_swallows() -> None:
    query = _pyspf._Query(
        client_ip=IPv4Address(IP),
        local="u",
        domain="d.example",
        helo="",
        receiver="r",
        lookup=BudgetLookup(NothingAtHand(), questions=9),
        limits=SpfLimits(),
    )
    # upstream's own reading of exp=, which ours stands in for
    assert spf.query.check0(query, "v=spf1 -all exp=e.example", 0)[0] == "fail"
    assert query.missing == (Question("e.example", RdType.TXT),)


def test_a_redirect_is_counted_although_it_is_not_followed() -> None:
    assert of("v=spf1 all redirect=r.example").lookups == 1


def test_redirect_in_upper_case_is_unknown() -> None:
    query = of("v=spf1 REDIRECT=r.example", {("r.example", "TXT"): txt("v=spf1 -all")})
    assert query.outcome[0] == "neutral"


def test_an_unknown_modifier_that_stands_twice_is_refused() -> None:
    assert of("v=spf1 x=1 x=2 -all").outcome[0] == "permerror"


def test_a_match_is_noted_only_outside_of_includes() -> None:
    query = Stock({})
    query.mechanism = None
    assert query.check0("v=spf1 ip4:192.0.2.7", 1)[0] == "pass"
    assert query.mechanism is None


# -- macros ----------------------------------------------------------------------------------------------------------


def test_a_long_number_in_a_macro_raises() -> None:
    with pytest.raises(ValueError, match="digits"):
        Stock({}).expand("%{d" + "9" * 5000 + "}")


def test_an_upper_case_macro_of_raw_octets_raises() -> None:
    with pytest.raises(UnicodeEncodeError):
        Stock({}, helo="\udcff").expand("%{H}.example")


def test_each_label_has_the_whole_text_searched_again() -> None:
    source = inspect.getsource(spf.query.expand)
    assert "for label in s.split('.'):" in source
    assert "regex.search(s)" in source


@pytest.mark.parametrize(
    ("spec", "stock", "right"),
    [
        ("%{dR}", "d.example", "example.d"),
        ("%{h-}", "a-b.example", "a.b.example"),
        ("%{dx}", "d.example", "a syntax error"),
        ("%{d0}", ".example", "a syntax error"),
    ],
)
def test_macros_that_are_expanded_wrongly(spec: str, stock: str, right: str) -> None:
    assert stock != right
    assert Stock({}, helo="a-b.example").expand(spec) == stock


def test_an_escaped_percent_sign_at_the_end_is_refused() -> None:
    with pytest.raises(spf.PermError):
        Stock({}).expand("100%%", stripdot=False)


def test_a_long_name_loses_one_label_only() -> None:
    assert len(Stock({}).expand("%{d}." + "a." * 150 + "example")) > 253


def test_the_name_of_the_client_is_chosen_once_for_all_domains() -> None:
    zone: _Zone = {("7.2.0.192.in-addr.arpa", "PTR"): ["a.d.example", "b.i.example"]}
    query = Stock(zone | {("a.d.example", "A"): [IP], ("b.i.example", "A"): [IP]})
    assert query.expand("%{p}") == "a.d.example"
    query.d = "i.example"
    assert query.expand("%{p}") == "a.d.example"


# -- names of the client ----------------------------------------------------------------------------------------------


def test_dns_trouble_with_the_names_of_the_client_is_temperror() -> None:
    reverse = ("7.2.0.192.in-addr.arpa", "PTR")
    assert of("v=spf1 ptr -all", {reverse: [spf.TempError("x")]}).outcome[0] == "temperror"
    zone: _Zone = {reverse: ["bad.d.example"], ("bad.d.example", "A"): [spf.TempError("x")]}
    assert of("v=spf1 ptr -all", zone).outcome[0] == "temperror"


def test_one_question_is_asked_at_a_time() -> None:
    class Enough(Exception):  # noqa: N818 - a signal
        pass

    query = Stock(
        {
            ("d.example", "TXT"): txt("v=spf1 include:a.example include:b.example -all"),
            ("a.example", "TXT"): [Enough()],
        }
    )
    with pytest.raises(Enough):
        query.check()
    assert ("b.example", "TXT") not in query.asked


def test_the_resolver_that_pyspf_imports_is_loaded_when_somebody_looks_into_it() -> None:
    code = (
        "import sys, spf_first\n"
        "assert 'dns.query' not in sys.modules\n"
        "import dns.resolver, spf\n"
        "assert spf.DNSLookup is spf.DNSLookup_dnspython\n"
        "assert issubclass(dns.resolver.NXDOMAIN, Exception)\n"
        "assert 'dns.query' in sys.modules\n"
        "assert dns.resolver is sys.modules['dns.resolver']\n"
    ).replace("spf_first", "authmilter.spf._pyspf")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
