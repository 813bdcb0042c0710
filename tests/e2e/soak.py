"""`make soak`: the service under load for SOAK_SECONDS (default 600), with reloads, policy changes and killed workers.

Real Postfix in front, several clients that send all the time and, as a mail server does, send again what was answered
with 4xx. At the end every message is accounted for: sent = accepted + refused for good + still deferred, and what was
accepted has been delivered (what a policy held is released first). Prints a line every ten seconds, then JSON; exit 1
if something was lost, delivered twice, refused that no policy refuses, or if the service met an unforeseen exception.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.postfix import PrivatePostfix, wait_until
from tests.support.scenarios import SCENARIOS, Scenario, zone
from tests.support.service import Service

_CLIENTS = 6
#: A message is tried this often; a mail server would go on for days.
_TRIES = 30


class Load:
    """What the clients do, and what became of it."""

    def __init__(self, postfix: PrivatePostfix, until: float) -> None:
        self._postfix = postfix
        self._until = until
        self._lock = threading.Lock()
        #: replies, and connections that broke, by code or name
        self.counts: Counter[str] = Counter()
        #: messages by what became of them: accepted, refused, deferred
        self.ends: Counter[str] = Counter()
        self.accepted: set[str] = set()
        #: messages whose last reply a client did not see: they may have been accepted or not
        self.unsure: set[str] = set()
        self.wrong: list[str] = []

    def client(self, number: int) -> None:
        """Send until the time is up."""
        rng = random.Random(number)
        serial = 0
        while time.monotonic() < self._until:
            serial += 1
            self._end(f"{number}-{serial}", rng.choice(SCENARIOS))

    def _end(self, name: str, scenario: Scenario) -> None:
        """Send a message until it is accepted or refused, or was deferred often enough."""
        # a field of our own above the signatures: they do not cover it
        message = f"X-Soak: {name}\r\n".encode() + scenario.message
        end = "deferred"
        for _ in range(_TRIES):
            try:
                result = self._postfix.send(
                    message, mail_from=scenario.mail_from, rcpt_to=scenario.rcpt_to,
                    client_ip=scenario.client_ip, helo=scenario.helo, login=scenario.login,
                )  # fmt: skip
            except OSError as e:
                self._note(f"connection: {type(e).__name__}", name)
                continue
            self._note(f"{result.code}", name if result.code == 0 else "")
            if result.code == 250:
                end = "accepted"
                break
            if result.code >= 500:
                end = "refused"
                if scenario.code == 250:
                    self.wrong.append(f"{scenario.name}: {result.code} {result.text}")
                break
            time.sleep(0.2)
        with self._lock:
            self.ends[end] += 1
            if end == "accepted":
                self.accepted.add(name)
            # DNS trouble is deferred for as long as the policy is `strict`; nothing else may be
            elif end == "deferred" and scenario.dmarc != "temperror":
                self.wrong.append(f"{scenario.name}: deferred {_TRIES} times")

    def _note(self, what: str, unsure: str) -> None:
        with self._lock:
            self.counts[what] += 1
            if unsure:
                self.unsure.add(unsure)


def _disturb(service: Service, until: float, done: Counter[str]) -> None:
    """Reload, change the policy, change the number of workers, kill workers."""
    rng = random.Random(1)
    while time.monotonic() < until - 3:
        time.sleep(rng.uniform(0.5, 2.5))
        what = rng.choice(("reload", "policy", "workers", "kill", "wrong"))
        if what == "kill":
            victim = rng.choice(service.ask("status")["workers"])
            try:
                os.kill(victim["pid"], signal.SIGKILL)
            except ProcessLookupError:
                continue
        elif what == "policy":
            service.write_config(policy=rng.choice(("enforce", "monitor", "strict")))
        elif what == "workers":
            service.write_config(milter={"workers": rng.choice((1, 2, 3))})
        elif what == "wrong":
            service.write_config(no_such_setting=True)
        if what != "kill":
            answer = service.ask("reload")
            if ("error" in answer) != (what == "wrong"):
                done["unexpected answer"] += 1
            if what == "wrong":
                service.write_config()
        done[what] += 1
    service.write_config()


def _delivered(postfix: PrivatePostfix, accepted: int) -> Counter[str]:
    """Return how often each message was delivered, once everything accepted has been, or a minute has passed."""
    # what `strict` holds is accepted too: a person would look at it and let it go
    postfix.command("postsuper", "-H", "ALL")
    postfix.command("postqueue", "-f")
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: postfix.mailbox() >= accepted and not postfix.queued(), 60, "the last deliveries")
    return Counter(mail.fields("X-Soak")[0] for mail in postfix.delivered(0))


def main() -> int:
    """Run and report; 1 if anything was lost."""
    seconds = float(os.environ.get("SOAK_SECONDS", "600"))
    until = time.monotonic() + seconds
    disturbances: Counter[str] = Counter()
    with Service(zone=zone()) as service, PrivatePostfix(milter=service.for_postfix) as postfix:
        load = Load(postfix, until)
        threads = [threading.Thread(target=load.client, args=(n,)) for n in range(_CLIENTS)]
        threads.append(threading.Thread(target=_disturb, args=(service, until, disturbances)))
        for thread in threads:
            thread.start()
        while any(t.is_alive() for t in threads):
            time.sleep(min(10.0, seconds / 4))
            left = max(0, round(until - time.monotonic()))
            print(f"{left} s left: {dict(load.counts)} {dict(disturbances)}", flush=True)
        delivered = _delivered(postfix, len(load.accepted))
        lost = sorted(load.accepted - set(delivered))
        twice = sorted(n for n, times in delivered.items() if times > 1 and n not in load.unsure)
        unexpected = sorted(set(delivered) - load.accepted - load.unsure)
        status = service.ask("status")
        result = {
            "seconds": seconds,
            "sent": sum(load.ends.values()),
            **load.ends,
            "delivered": len(delivered),
            "lost": lost[:10],
            "delivered twice": twice[:10],
            "delivered though not accepted": unexpected[:10],
            "replies": dict(load.counts),
            "wrong": load.wrong[:10],
            "disturbances": dict(disturbances),
            "restarts": status["restarts"],
            "generation": status["generation"],
            "bugs": {k: v for k, v in status["counters"].items() if k.startswith("bugs")},
        }
    print(json.dumps(result, indent=2))
    faults = (lost, twice, unexpected, load.wrong, result["bugs"], disturbances["unexpected answer"])
    return 1 if any(faults) else 0


if __name__ == "__main__":
    sys.exit(main())
