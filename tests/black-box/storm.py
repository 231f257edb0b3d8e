#!/usr/bin/env python3
"""A storm of clients that read, change and write one document.

Under locks no update is lost. Without them some are: else the storm was none, and the test is void.
"""

import sys
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent / "lib"))

from harness import Checks, Crew, Folder, Server, options, verify  # noqa: E402


class Count:
    def __init__(self):
        self.lock = threading.Lock()
        self.done = 0
        self.strange = []

    def add(self):
        with self.lock:
            self.done += 1

    def odd(self, answer):
        with self.lock:
            self.strange.append(str(answer))


def under_locks(server, rounds, count):
    client = server.client(timeout=60)
    for _ in range(rounds):
        granted = client.acquire("/counters/safe", 30, wait=30, timeout=60)
        if granted.status != 201:
            count.odd(granted)
            continue
        token = granted.json()["lock_token"]
        document = client.get("/counters/safe").json()
        document["n"] += 1
        document["fence"] = granted.json()["fence"]
        written = client.put("/counters/safe", document, token)
        if written.status == 204:
            count.add()
        else:
            count.odd(written)
        released = client.release("/counters/safe", token)
        if released.status != 204:
            count.odd(released)
    client.close()


def without_locks(server, rounds, count, together):
    client = server.client()
    for _ in range(rounds):
        together.wait()
        document = client.get("/counters/lossy").json()
        document["n"] += 1
        if client.put("/counters/lossy", document).status == 204:
            count.add()
    client.close()


def stranger(server, stopping, count):
    """Writes without a token, to see that it is refused while somebody holds the lock."""
    client = server.client()
    while not stopping.is_set():
        answer = client.ask("PATCH", "/counters/safe", {"stranger": time.time()})
        if answer.status == 423:
            count.add()
        elif answer.status != 200:
            count.odd(answer)
        time.sleep(0.01)
    client.close()


def main():
    chosen = options(__doc__.splitlines()[0], clients=16, rounds=25)
    checks = Checks()
    with Folder(chosen.keep) as folder, Server(folder / "data") as server:
        server.start()
        client = server.client()
        expected = chosen.clients * chosen.rounds
        for name in ("safe", "lossy"):
            client.put(f"/counters/{name}", {"n": 0})

        count, strangers = Count(), Count()
        began = time.monotonic()
        outsider = Crew([lambda stop: stranger(server, stop, strangers)])
        storm = Crew(
            [lambda _: under_locks(server, chosen.rounds, count) for _ in range(chosen.clients)]
        )
        failures = storm.join(300) + outsider.join()
        took = time.monotonic() - began
        found = client.get("/counters/safe").json()["n"]
        checks.none(failures + count.strange, "every client got its turn")
        checks.check(
            found == count.done == expected,
            f"{chosen.clients} clients, {expected} increments under locks: none is lost",
            f"{count.done} were answered, the document says {found}",
        )
        checks.none(strangers.strange, f"{strangers.done} writes of a stranger were refused")
        checks.note(f"{took:.1f} s, {expected / took:.0f} cycles of four requests a second")

        count, together = Count(), threading.Barrier(chosen.clients)
        storm = Crew(
            [
                lambda _: without_locks(server, chosen.rounds, count, together)
                for _ in range(chosen.clients)
            ]
        )
        failures = storm.join(300)
        found = client.get("/counters/lossy").json()["n"]
        checks.none(failures, "the same without locks")
        checks.check(
            found < count.done == expected,
            f"loses {count.done - found} of {expected}",
            f"nothing was lost ({found} of {count.done}): this test is VOID",
        )
        checks.none(verify(server.data), "the trail verifies")
    checks.finish()


if __name__ == "__main__":
    main()
