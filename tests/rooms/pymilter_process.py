"""A milter of pymilter's `milter` module alone: `pymilter_process.py SOCKET CALLS ODDITY`.

Writes each callback to CALLS as a line of JSON; ODDITY names what else it does.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import milter


def main(socket_path: str, calls_path: str, oddity: str) -> None:
    """Serve until SIGTERM."""
    with Path(calls_path).open("w", encoding="utf-8") as calls:

        def note(*values: object) -> None:
            calls.write(
                json.dumps([repr(value) if isinstance(value, bytes | tuple) else value for value in values])
                + "\n"
            )
            calls.flush()

        def attempt(name: str, work: Callable[[], object]) -> None:
            try:
                note(name, repr(work()))
            except Exception as e:  # noqa: BLE001 - which exception it is, is what is asked
                note(name, type(e).__name__)

        def negotiate(ctx: Any, options: list[int]) -> int:
            wanted = options[1] & (
                milter.P_HDR_LEADSPC | milter.P_NR_HDR | milter.P_NR_CONN | milter.P_NR_HELO
            )
            if oddity == "no reply to the body":
                wanted |= options[1] & milter.P_NR_BODY
            options[:] = [options[0], wanted, 0, 0]
            if oddity == "symbols":
                attempt("setsymlist bytes", lambda: ctx.setsymlist(milter.M_CONNECT, b"j"))
                attempt("setsymlist str", lambda: ctx.setsymlist(milter.M_CONNECT, "j"))
                attempt("setsymlist empty", lambda: ctx.setsymlist(milter.M_HELO, ""))
            note("negotiate")
            return int(milter.CONTINUE)

        def connect(ctx: Any, *args: object) -> int:
            note("connect", *args)
            attempt("priv", ctx.getpriv)
            ctx.setpriv("mine")
            if oddity == "symbols":
                attempt("getsymval", lambda: ctx.getsymval("{odd}"))
            return int(milter.NOREPLY)

        def helo(_ctx: Any, name: str) -> int:
            note("helo", name)
            return int(milter.NOREPLY)

        def mail(_ctx: Any, *args: bytes) -> int:
            note("mail", *args)
            if oddity == "exception":
                raise RuntimeError("secret")
            return int(milter.CONTINUE)

        def header(_ctx: Any, name: str, value: bytes) -> int:
            note("header", name, value)
            return int(milter.NOREPLY)

        def body(_ctx: Any, chunk: bytes) -> int:
            note("body", len(chunk))
            return int(milter.NOREPLY if oddity == "no reply to the body" else milter.CONTINUE)

        def end(ctx: Any) -> int:
            note("end of message")
            if oddity == "edits":
                attempt("addheader bytes", lambda: ctx.addheader("X", b"v", 0))
                attempt("addheader surrogate", lambda: ctx.addheader("X", "\udcff", 0))
                attempt("addheader", lambda: ctx.addheader("X", " v", 0))
                attempt("setreply %", lambda: ctx.setreply("550", "5.7.1", "100% x"))
                attempt("setreply %%", lambda: ctx.setreply("550", "5.7.1", "100%% x"))
                attempt("setreply CRLF", lambda: ctx.setreply("550", "5.7.1", "a\r\nb"))
                return int(milter.REJECT)
            return int(milter.ACCEPT if oddity == "accept" else milter.CONTINUE)

        def close(_ctx: Any) -> int:
            note("close")
            return int(milter.CONTINUE)

        milter.set_flags(milter.ADDHDRS | milter.SETSYMLIST)
        milter.set_connect_callback(connect)
        milter.set_helo_callback(helo)
        milter.set_envfrom_callback(mail)
        milter.set_header_callback(header)
        milter.set_body_callback(body)
        milter.set_eom_callback(end)
        milter.set_close_callback(close)
        if oddity == "continue after exceptions":
            milter.set_exception_policy(milter.CONTINUE)
        milter.register("oddities", negotiate=negotiate)
        milter.setconn(f"unix:{socket_path}")
        milter.opensocket(True)
        if oddity == "twice":
            threading.Timer(0.2, lambda: attempt("second main", milter.main)).start()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        milter.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
