"""`make demo`: a private Postfix with authmilter as its milter, real SMTP sessions, and what became of each.

Nothing of the machine's mail system is touched: Postfix lives in a folder of its own, on ports of its own, and
ends with this command. The DNS is a zone file.
"""

from __future__ import annotations

import sys
import textwrap
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.support.postfix import PrivatePostfix
from tests.support.scenarios import SCENARIOS, zone
from tests.support.service import Service

_COLOURS = {"pass": "green", "fail": "red", "permerror": "red", "temperror": "yellow", "none": "dim"}


def _word(word: str | None) -> str:
    if word is None:
        return "[dim]-[/]"
    return f"[{_COLOURS.get(word, 'white')}]{word}[/]"


def show(policy: str, out: Console) -> int:
    """Run every session under one policy and print the table; returns how many went otherwise than expected."""
    table = Table(title=f"policy: {policy}", title_justify="left", show_lines=True)
    for name, width in (
        ("sent", 26), ("spf", 4), ("dkim", 9), ("dmarc", 9), ("rule", 20), ("what Postfix said", 36),
    ):  # fmt: skip
        table.add_column(name, max_width=width, overflow="fold")
    table.add_column("Authentication-Results as delivered", overflow="fold")
    wrong = 0
    with (
        Service(zone=zone(), policy=policy) as service,
        PrivatePostfix(milter=service.for_postfix) as postfix,
    ):
        for scenario in SCENARIOS:
            result = postfix.send(
                scenario.message, mail_from=scenario.mail_from, rcpt_to=scenario.rcpt_to,
                client_ip=scenario.client_ip, helo=scenario.helo, login=scenario.login,
            )  # fmt: skip
            line = service.log_lines()[-1]
            header = "[dim]not delivered[/]"
            if result.code == 250:
                delivered = postfix.delivered()[0]
                header = escape(delivered.fields("Authentication-Results")[0].replace("; ", ";\n"))
            expected = scenario.code if policy != "monitor" else 250
            if result.code != expected:
                wrong += 1
            rule = escape(str(line["rule"]))
            for would in line.get("would_have", ()):
                rule += f"\n[yellow]would have: {escape(would)}[/]"
            dkim = "\n".join(_word(item.split(":")[0]) for item in line.get("dkim", ())) or "[dim]-[/]"
            said = f"[{'green' if result.code == 250 else 'red'}]{result.code}[/] {escape(result.text)}"
            about = f"[bold]{scenario.name}[/]\n" + escape("\n".join(textwrap.wrap(scenario.about, 26)))
            table.add_row(about, _word(line.get("spf")), dkim, _word(line.get("dmarc")), rule, said, header)
    out.print(table)
    return wrong


def main() -> int:
    """Show both policies; exit 1 if a session went otherwise than it should."""
    out = Console(width=max(Console().width, 160))
    started = time.monotonic()
    wrong = show("enforce", out) + show("monitor", out)
    out.print(
        f"{2 * len(SCENARIOS)} sessions through a real Postfix in {time.monotonic() - started:.0f} s, "
        + ("all as expected" if not wrong else f"[red]{wrong} not as expected[/]")
    )
    out.print("Next: [bold]make run[/] starts the service and prints the two lines for your own Postfix.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
