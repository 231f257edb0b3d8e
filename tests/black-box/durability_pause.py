#!/usr/bin/env python3
"""The server is stopped (SIGSTOP) for longer than locks live, and goes on (SIGCONT).

A write that carries the token of a lock that expired meanwhile is refused, also one that was sent
while the server stood still. No two clients ever hold the same lock, and no increment is lost.
"""

import http.client
import json
import random
import sys
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent / "lib"))

from harness import Checks, Crew, Folder, Server, options, trail, verify  # noqa: E402

TTL = 1
PAUSE = 1.6


def sent_while_it_stood(server, checks, rounds):
    """A write, a renewal and a release that wait in the socket while the lock expires."""
    problems, told = [], {}
    for number in range(rounds):
        resource = f"/paused/{number}"
        client = server.client()
        client.put(resource, {"by": "nobody"})
        held = client.acquire(resource, TTL)
        token = held.json()["lock_token"]
        # Another client waits for it.
        waiting = Waiter(server, resource)
        time.sleep(0.2)
        server.pause()
        late = {
            "write": ("PUT", resource, {"by": "the one that lost it"}),
            "renewal": ("PATCH", f"{resource}/lock", {}),
            "release": ("DELETE", f"{resource}/lock", {}),
        }
        parts = {}
        for name, (method, path, body) in late.items():
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
            fields = {"X-Lock-Token": token, "Content-Type": "application/json"}
            connection.request(method, path, json.dumps(body), fields)
            parts[name] = connection
        time.sleep(max(0, held.received + TTL + 0.3 - time.monotonic()))
        server.resume()
        for name, connection in parts.items():
            answer = connection.getresponse()
            problem = json.loads(answer.read() or b"{}").get("type", "").rsplit("/", 1)[-1]
            connection.close()
            told[f"{name} {answer.status} {problem}"] = (
                told.get(f"{name} {answer.status} {problem}", 0) + 1
            )
            if answer.status < 400:
                problems.append(f"{resource}: a {name} after the end was answered {answer.status}")
        waiting.join()
        if waiting.answer.status != 201:
            problems.append(f"{resource}: the waiter got {waiting.answer}")
        elif waiting.answer.received < held.sent + TTL:
            problems.append(f"{resource}: the waiter got it early")
        found = client.get(resource).json()
        if found != {"by": "nobody"}:
            problems.append(f"{resource}: {found}")
        client.close()
    checks.none(problems, f"{rounds} pauses: nothing passes with the token of an expired lock")
    checks.note(f"told: {told}")


class Waiter(threading.Thread):
    def __init__(self, server, resource):
        super().__init__()
        self.client = server.client(30)
        self.resource = resource
        self.start()

    def run(self):
        self.answer = self.client.acquire(self.resource, 30, wait=20)
        self.client.close()


class Holdings:
    """When a client was certain to hold the lock, and what it wrote."""

    def __init__(self):
        self.lock = threading.Lock()
        self.spans = []
        self.written = []
        self.unknown = 0
        self.lost = 0
        self.strange = []

    def overlaps(self):
        found = []
        spans = sorted(self.spans)
        for before, after in zip(spans, spans[1:]):
            if after[0] < before[1]:
                found.append(
                    f"fence {before[2]} until {before[1]:.3f}, {after[2]} from {after[0]:.3f}"
                )
        return found


def increment(server, holdings, stopping):
    client = server.client(30)
    while not stopping.is_set():
        granted = client.acquire("/counter", TTL, wait=10)
        if granted.status != 201:
            continue
        body = granted.json()
        token, fence = body["lock_token"], body["fence"]
        promised = granted.sent + body["expires_in_ms"] / 1000
        document = client.get("/counter").json()
        document["n"] += 1
        document["fence"] = fence
        # Some are slow, and lose it while they work.
        time.sleep(random.choice([0, 0, 0.01, 0.05]))
        written = client.put("/counter", document, token)
        released_at = time.monotonic()
        released = client.release("/counter", token)
        with holdings.lock:
            end = min(promised, released_at)
            if granted.received < end:
                holdings.spans.append((granted.received, end, fence))
            if written.status == 204:
                holdings.written.append((written.received, fence, document["n"]))
            elif written.status in (412, 423):
                holdings.lost += 1
            else:
                holdings.strange.append(f"{written}")
            if released.status not in (204, 410):
                holdings.strange.append(f"{released}")
    client.close()


def storm(server, checks, rounds):
    holdings = Holdings()
    client = server.client()
    client.put("/counter", {"n": 0})
    crew = Crew([lambda stop: increment(server, holdings, stop) for _ in range(6)])
    for _ in range(rounds):
        time.sleep(random.uniform(0.1, 0.6))
        server.pause()
        time.sleep(PAUSE)
        server.resume()
    time.sleep(0.5)
    checks.none(crew.join(), "every client was answered")
    found = client.get("/counter").json()["n"]
    client.close()
    checks.check(
        found == len(holdings.written) > 0,
        f"{len(holdings.written)} increments under locks of {TTL} s, {rounds} pauses of {PAUSE} s: "
        "none is lost",
        f"the document says {found}",
    )
    checks.check(holdings.lost > 0, f"{holdings.lost} writes came too late and were refused")
    checks.none(holdings.strange, "refusals are 412 or 423, and 410 for a release")
    checks.none(holdings.overlaps(), f"{len(holdings.spans)} holders, no two at a time")
    by_count = sorted(holdings.written, key=lambda each: each[2])
    falling = [
        f"fence {after[1]} after {before[1]}"
        for before, after in zip(by_count, by_count[1:])
        if after[1] <= before[1]
    ]
    checks.none(falling, "fences grow from write to write")


def main():
    chosen = options(__doc__.splitlines()[0], rounds=6)
    checks = Checks()
    with Folder(chosen.keep) as folder, Server(folder / "data") as server:
        server.start()
        sent_while_it_stood(server, checks, chosen.rounds)
        storm(server, checks, chosen.rounds)
        checks.none(verify(server.data), "the trail verifies")
        open_ones = {e["seq"] for e in trail(server.data, "--type", "write_admitted")} - {
            e["admitted"] for e in trail(server.data, "--type", "write_completed")
        }
        checks.none(open_ones, "no write is left open")
    checks.finish()


if __name__ == "__main__":
    main()
