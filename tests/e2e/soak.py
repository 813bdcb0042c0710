"""`make soak`: the service under load for SOAK_SECONDS (default 600), with reloads, policy changes and killed workers.

Real Postfix in front, several clients that send all the time and, as a mail server does, send again what was answered
with 4xx. At the end every message must have been delivered exactly as often as it was accepted, or refused for good:
nothing lost, nothing answered twice. Prints a line every ten seconds, then JSON; exit 1 if something was lost.
"""

from __future__ import annotations

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

from tests.support.postfix import PrivatePostfix
from tests.support.scenarios import SCENARIOS, zone
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
        self.counts: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.wrong: list[str] = []

    def client(self, number: int) -> None:
        """Send until the time is up."""
        rng = random.Random(number)
        serial = 0
        while time.monotonic() < self._until:
            scenario = rng.choice(SCENARIOS)
            serial += 1
            name = f"{number}-{serial}"
            # a field of our own above the signatures: they do not cover it
            message = f"X-Soak: {name}\r\n".encode() + scenario.message
            for _ in range(_TRIES):
                try:
                    result = self._postfix.send(
                        message, mail_from=scenario.mail_from, rcpt_to=scenario.rcpt_to,
                        client_ip=scenario.client_ip, helo=scenario.helo, login=scenario.login,
                    )  # fmt: skip
                except OSError as e:
                    self._note(f"connection: {type(e).__name__}")
                    continue
                self._note(f"{result.code}")
                if result.code == 250:
                    with self._lock:
                        self.accepted[name] += 1
                    break
                if result.code >= 500:
                    if scenario.code == 250:
                        self.wrong.append(f"{scenario.name}: {result.code} {result.text}")
                    break
                time.sleep(0.2)
            else:
                self.wrong.append(f"{scenario.name}: deferred {_TRIES} times")

    def _note(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1


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
        delivered: Counter[str] = Counter()
        try:
            for mail in postfix.delivered(sum(load.accepted.values()), seconds=60):
                delivered[mail.fields("X-Soak")[0]] += 1
        except TimeoutError as e:
            load.wrong.append(str(e).splitlines()[0])
        lost = sorted((load.accepted - delivered).elements())
        status = service.ask("status")
        result = {
            "seconds": seconds,
            "replies": dict(load.counts),
            "disturbances": dict(disturbances),
            "accepted": sum(load.accepted.values()),
            "delivered": sum(delivered.values()),
            "lost": lost[:10],
            "wrong": load.wrong[:10],
            "restarts": status["restarts"],
            "generation": status["generation"],
            "bugs": {k: v for k, v in status["counters"].items() if k.startswith("bugs")},
        }
    print(json.dumps(result, indent=2))
    return 1 if lost or load.wrong or result["bugs"] or disturbances["unexpected answer"] else 0


if __name__ == "__main__":
    sys.exit(main())
