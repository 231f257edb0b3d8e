#!/usr/bin/env python3
"""The wall clock is moved by an hour, both ways, under a running server.

It takes libfaketime, which moves the wall clock of the server alone and leaves the monotonic one.
No lock ends early or late, what is promised does not change, and only what people set in wall time
(the end of a freeze) follows the wall clock.
"""

import email.utils
import glob
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent / "lib"))

from harness import Checks, Folder, Server, options, until, verify  # noqa: E402

# How late a lock may end, as seen from outside on a busy machine.
LATE = 0.6
SHIFTS = [0, 3600, -3600, 3600, 0, -3600]


def shifted(client):
    """By how many seconds the server's wall clock is ahead of the true one."""
    lock = client.acquire("/probe", 1).json()
    client.release("/probe", lock["lock_token"])
    moment = datetime.fromisoformat(lock["acquired_at"].replace("Z", "+00:00"))
    return (moment - datetime.now(timezone.utc)).total_seconds()


class Waiter(threading.Thread):
    """Waits for a lock, and notes when it gets it."""

    def __init__(self, server, resource):
        super().__init__()
        self.client = server.client()
        self.resource = resource
        self.answer = None
        self.start()

    def run(self):
        self.answer = self.client.acquire(self.resource, 1, wait=20, timeout=30)
        self.client.close()


def main():
    chosen = options(__doc__.splitlines()[0], rounds=1)
    checks = Checks()
    found = sorted(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1"))
    found = found or sorted(glob.glob("/usr/local/lib/faketime/libfaketimeMT.so.1"))
    if not found:
        checks.check(False, "libfaketime is installed", "apt-get install faketime")
        checks.finish()
    with Folder(chosen.keep) as folder:
        offset = folder / "offset"
        environment = {
            "LD_PRELOAD": found[0],
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_NO_CACHE": "1",
            "NO_FAKE_STAT": "1",
        }

        def shift(seconds):
            beside = folder / "offset.new"
            beside.write_text(f"{seconds:+d}\n")
            beside.rename(offset)

        shift(0)
        with Server(folder / "data", environment=environment) as server:
            server.start()
            client = server.client()
            client.put("/a", {"n": 0})
            for number in range(chosen.rounds):
                moves(server, client, shift, checks, number)
            freezes(client, shift, checks)
            keys(client, shift, checks)
            restart(server, client, shift, checks)
            shift(0)
            checks.none(verify(server.data), "the trail verifies")
            code, _ = server.stop()
            checks.check(code == 0, "the server stops cleanly", str(code))
            checks.none(verify(server.data), "and the trail verifies again")
    checks.finish()


def moves(server, client, shift, checks, number):
    # One lock lives through all the moves; each is also met by one that ends after it.
    long_span = 1.2 * len(SHIFTS) + 2
    long = client.acquire(f"/long/{number}", long_span)
    long_ends = [long.sent + long_span, long.received + long_span + LATE]
    waiting = Waiter(server, f"/long/{number}")
    kept = client.acquire(f"/kept/{number}", 600)
    token = kept.json()["lock_token"]
    applied, early, late, promises, refused = [], [], [], [], []
    for step, seconds in enumerate(SHIFTS):
        resource = f"/short/{number}/{step}"
        short = client.acquire(resource, 1)
        first = short.sent + short.json()["expires_in_ms"] / 1000
        last = short.received + 1 + LATE
        waiter = Waiter(server, resource)
        shift(seconds)
        applied.append(abs(shifted(client) - seconds) < 5)
        renewed = client.renew(f"/kept/{number}", token, 600)
        promise = renewed.json().get("expires_in_ms")
        if renewed.status != 200 or not 599_000 < promise <= 600_000:
            promises.append(f"at {seconds:+d} s: {renewed}")
        shown = client.inspect(resource).json()["locks"]
        if shown and shown[0]["fence"] == short.json()["fence"]:
            left = (last - LATE - time.monotonic()) * 1000
            if shown[0]["expires_in_ms"] > left + 150:
                promises.append(f"at {seconds:+d} s: {shown[0]['expires_in_ms']} of {left:.0f} ms")
        body = {"n": step}
        refused.append(client.put(f"/kept/{number}", body).status != 423)
        refused.append(client.put(f"/kept/{number}", body, token).status not in (201, 204))
        waiter.join()
        got = waiter.answer
        if got.status != 201:
            late.append(f"at {seconds:+d} s: {got}")
        elif got.received < first:
            early.append(f"at {seconds:+d} s: {first - got.received:.3f} s")
        elif got.received > last:
            late.append(f"at {seconds:+d} s: {got.received - last:.3f} s")
    waiting.join()
    got = waiting.answer
    if got.status != 201 or got.received > long_ends[1]:
        late.append(f"through all moves: {got}")
    elif got.received < long_ends[0]:
        early.append(f"through all moves: {long_ends[0] - got.received:.3f} s")
    moves_made = ", ".join(f"{seconds:+d}" for seconds in SHIFTS)
    checks.check(all(applied), f"the server's wall clock was moved: {moves_made}", str(applied))
    checks.none(early, "no lock ended early")
    checks.none(late, f"no lock ended later than {LATE} s after its deadline")
    checks.none(promises, "expires_in_ms does not follow the wall clock")
    checks.check(not any(refused), "writes are let through and refused as before")
    shift(0)


def freezes(client, shift, checks):
    soon = datetime.now(timezone.utc) + timedelta(minutes=30)
    made = client.ask(
        "PUT", "/frozen/lock/freeze", {"reason": "a test", "until": soon.isoformat()}
    )
    checks.check(made.status == 200, "a freeze until in half an hour", str(made))
    shift(-3600)
    answer = client.put("/frozen", {"n": 1})
    checks.check(answer.problem() == "frozen", "holds when the wall clock goes back", str(answer))
    shift(3600)
    thawed = until(lambda: client.put("/frozen", {"n": 2}).status == 201, 3)
    checks.check(thawed, "and has passed when the wall clock says so")
    shift(0)


def keys(client, shift, checks):
    granted = client.acquire("/keyed", 60, key="once")
    client.release("/keyed", granted.json()["lock_token"])
    shift(3600)
    again = client.acquire("/keyed", 60, key="once")
    checks.check(again.status == 410, "a key stays used for ten true minutes", str(again))
    ended = client.renew("/keyed", granted.json()["lock_token"])
    checks.check(ended.json().get("ended") == "released", "how a lock ended is known", str(ended))
    shift(0)


def restart(server, client, shift, checks):
    held = client.acquire("/over", 30)
    token = held.json()["lock_token"]
    fence = held.json()["fence"]
    client.close()
    server.kill()
    shift(-3600)
    server.start()
    renewed = client.renew("/over", token)
    good = renewed.status == 200 and renewed.json()["fence"] == fence
    checks.check(good, "a lock outlives a crash and a start an hour earlier", str(renewed))
    newer = client.acquire("/newer", 1)
    checks.check(newer.json()["fence"] > fence, "and fences grow")
    waiter = Waiter(server, "/newer")
    waiter.join()
    span = waiter.answer.received - newer.received
    right = waiter.answer.status == 201 and 0.9 < span < 1 + LATE
    checks.check(right, "and locks end on time", f"{span:.3f} s: {waiter.answer}")
    first = client.ask("GET", "/a").headers["last-modified"]
    client.put("/a", {"n": 1})
    second = client.ask("GET", "/a").headers["last-modified"]
    parsed = [email.utils.parsedate_to_datetime(each) for each in (first, second)]
    checks.check(parsed[0] <= parsed[1], "Last-Modified does not go back", f"{first}, {second}")


if __name__ == "__main__":
    main()
