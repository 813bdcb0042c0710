"""`/etc/resolv.conf`: our reader against dnspython's, which resolvers of dnspython's are set up by."""

from __future__ import annotations

import io
import tempfile

import dns.exception
import dns.resolver
from hypothesis import example, given
from hypothesis import strategies as st

from authmilter.dns.resolv_conf import named_servers
from authmilter.dns.servers import Server
from authmilter.errors import ConfigError

_FIRST = ["nameserver", "#nameserver", "#", ";", " nameserver", "Nameserver", "search", "options", "\t", ""]
_SECOND = [
    "127.0.0.7",
    "::1",
    "fe80::1%eth0",
    "1.2.3",
    "dns.example",
    "127.0.0.7:53",
    "https://dns.example/",
    "01.2.3.4",
]
_LINES = st.tuples(st.sampled_from(_FIRST), st.lists(st.sampled_from(_SECOND), max_size=2)).map(
    lambda line: " ".join([line[0], *line[1]])
)


@given(st.lists(_LINES, max_size=5).map("\n".join))
@example("nameserver 192.0.2.1 # the first\r\nnameserver\t2001:db8::1\n")
def test_the_servers_are_those_that_dnspython_reads(text: str) -> None:
    stock = dns.resolver.Resolver(configure=False)
    try:
        stock.read_resolv_conf(io.StringIO(text, newline=None))
        right = tuple(str(Server.parse(str(each))) for each in stock.nameservers)
    except (dns.exception.DNSException, ValueError):
        right = ()
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        try:
            found = tuple(str(Server.parse(each)) for each in named_servers(file.name))
        except ConfigError:
            found = ()
    assert found == right


def test_a_search_list_that_is_no_name_does_no_harm() -> None:
    # Ours reads no search list; dnspython would refuse the file.
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
        file.write(f"search {'a' * 64}\nnameserver 192.0.2.1\n")
        file.flush()
        assert named_servers(file.name) == ("192.0.2.1",)
