#!/usr/bin/env python3
"""The server is killed under load, again and again: nothing that was acknowledged is lost.

Clients acquire (with Idempotency-Key), renew, release, and write documents with and without
tokens; others increment counters under contended locks. Each round ends with `kill -9` at a moment
drawn by lot. After the next start everything that is known is compared: documents, locks (token,
fence, promise), releases, keys, the end of each write that was on its way, and the trail, also
against a head kept before the kill.
"""

import random
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent / "lib"))

from harness import (  # noqa: E402
    Checks, Crew, Folder, Insistent, Lost, Server, head, options, trail, verify,
)
from ledger import Ledger, Place, work  # noqa: E402

WORKERS = 6
PLACES = 4
COUNTERS = 2
ADDERS = 4


class Counter(Place):
    """A document that several clients increment, each with the lock in its hands."""

    def __init__(self, path, ledger):
        super().__init__(path, ledger)
        self.value = {"n": 0}


class Adder:
    """One of them. It knows only its own lock; the document's value is the counter's to know."""

    def __init__(self, counter, ledger):
        self.counter = counter
        self.held = Place(counter.path, ledger)

    def step(self, client):
        held, counter = self.held, self.counter
        if held.lock is None:
            answer = held.acquire(client, 600, wait=2)
            if answer.status != 201:
                return
        found = client.get(counter.path).json()
        if found != counter.value:
            held.ledger.problem(f"{counter.path}: reads {found}, was told {counter.value}")
        new = {"n": found["n"] + 1, "by": held.lock.lock_id}
        answer = counter.send(client, "PUT", new, held.lock.token)
        if answer.status == 204:
            held.ledger.count("increments under contended locks")
        else:
            held.ledger.problem(f"{counter.path}: the holder's write was answered {answer}")
        held.release(client)


def add(adder, server, stopping):
    client = Insistent(server.port)
    try:
        while not stopping.is_set():
            adder.step(client)
    except Lost:
        pass
    finally:
        client.close()


def sleep(place, server, stopping):
    """Takes short locks and lets them expire, and looks when they do."""
    client = Insistent(server.port)
    try:
        while not stopping.is_set():
            if place.lock is None:
                place.acquire(client, place.rng.choice([1, 1.5, 2]))
            elif place.rng.random() < 0.1:
                place.renew(client)
            time.sleep(0.25)
    except Lost:
        pass
    finally:
        client.close()


def newborn(folder, lots, checks):
    """Kills a server while it makes its data folder: the next start finishes or begins anew."""
    problems = []
    for number in range(8):
        with Server(folder / f"newborn-{number}") as server:
            for _ in range(3):
                server.spawn()
                time.sleep(lots.uniform(0.0, 0.05))
                server.kill()
            try:
                server.start()
                place = Place("/a", Ledger())
                client = server.client()
                place.acquire(client, 60)
                place.write(client, place.new_value())
                client.close()
                problems += place.ledger.take_problems() + verify(server.data)
            except (RuntimeError, Lost) as error:
                problems.append(f"{error}")
    checks.none(problems, "24 kills while the data folder is made: each folder can be served")


def main():
    chosen = options(__doc__.splitlines()[0], rounds=20, seed=0)
    seed = chosen.seed or random.randrange(1 << 32)
    lots = random.Random(seed)
    checks, ledger = Checks(), Ledger()
    checks.note(f"--rounds {chosen.rounds} --seed {seed}")
    with Folder(chosen.keep) as folder, Server(folder / "data") as server:
        teams = [
            [Place(f"/w{w}/p{p}", ledger) for p in range(PLACES)] for w in range(WORKERS)
        ]
        counters = [Counter(f"/counters/c{c}", ledger) for c in range(COUNTERS)]
        sleepers = [Place(f"/sleepers/s{s}", ledger) for s in range(4)]
        adders = [Adder(counter, ledger) for counter in counters for _ in range(ADDERS)]
        server.start()
        client = server.client()
        for counter in counters:
            client.put(counter.path, counter.value)
        client.close()
        closed = {"applied": 0, "not_applied": 0}
        broken, trails, slowest, kept, restarts, looked_at = [], [], 0.0, None, 0, 0
        while_stopping = 0
        for number in range(chosen.rounds + 1):
            if number > 0:
                began = time.monotonic()
                server.start()
                slowest = max(slowest, time.monotonic() - began)
                examine(server, [*teams, sleepers], counters, adders)
                events = trail(server.data, "--since", since.isoformat())
                events = [event for event in events if event["seq"] > looked_at]
                looked_at = events[-1]["seq"]
                broken += closings(events, teams, counters, closed)
                trails += verify(server.data, kept)
            if number == chosen.rounds:
                break
            since = datetime.now(timezone.utc) - timedelta(seconds=5)
            jobs = [lambda stop, team=team: work(team, server, ledger, stop) for team in teams]
            jobs += [lambda stop, place=place: sleep(place, server, stop) for place in sleepers]
            jobs += [lambda stop, adder=adder: add(adder, server, stop) for adder in adders]
            crew = Crew(jobs)
            moment = lots.uniform(0.15, 1.3)
            time.sleep(moment / 2)
            kept = head(server.data)
            time.sleep(moment / 2)
            # Sometimes while it is stopping.
            if lots.random() < 0.2:
                server.process.terminate()
                time.sleep(lots.uniform(0, 0.06))
                while_stopping += 1
            server.kill()
            broken += crew.join()
            # Sometimes it is killed again while it starts.
            for _ in range(lots.choice([0, 0, 1, 3])):
                server.spawn()
                time.sleep(lots.uniform(0.0, 0.06))
                server.kill()
                restarts += 1
        newborn(folder, lots, checks)
        counts = ledger.counts
        for what in sorted(counts):
            checks.note(f"{counts[what]:7} {what}")
        checks.note(f"{while_stopping} of the kills came while it was stopping")
        checks.note(f"{restarts} more kills while starting; the slowest start took {slowest:.2f} s")
        checks.note(
            f"writes that were open in the trail at a kill: {closed['applied']} applied, "
            f"{closed['not_applied']} not applied"
        )
        checks.none(ledger.take_problems(), f"{chosen.rounds} kills: nothing acknowledged is lost")
        checks.none(ledger.fence_problems(), f"{len(ledger.grants)} grants: fences only grow")
        checks.none(broken, "each write on its way is closed as what became of it")
        checks.none(trails, f"the trail verifies after each of {chosen.rounds} kills")
        causes = [e["cause"] for e in trail(server.data, "--type", "recovered")]
        crashes = causes.count("crash")
        clean = causes.count("clean-start")
        checks.check(
            causes[0] == "created"
            and crashes + clean == len(causes) - 1 >= chosen.rounds
            and clean <= while_stopping,
            "each start after a kill says so in the trail",
            str(causes),
        )
        checks.check(
            chosen.rounds < 10 or counts.get("expiries", 0) > 0,
            "locks expired, none before its promise",
            str(counts),
        )
        load = counts.get("grants", 0) >= 20 * chosen.rounds
        checks.check(load, "there was load: 20 grants a round or more", str(counts))
        enough = chosen.rounds < 10 or (closed["applied"] and closed["not_applied"])
        checks.check(enough, "kills met writes on their way, applied and not", str(closed))
    checks.finish()


def examine(server, teams, counters, adders):
    """Compares the server with what every client knows."""
    client = server.client()
    for team in teams:
        for place in team:
            place.examine(client)
    for counter in counters:
        counter._examine_document(client)
    for adder in adders:
        held = adder.held
        # Only who was granted it may find it: the others' unanswered acquires were waiting.
        if held.acquiring:
            key, ttl, _ = held.acquiring
            answer = client.acquire(held.path, ttl, key=key)
            if answer.status == 423:
                held.acquiring = None
        held._examine_released(client)
        if held.acquiring:
            held._retry_acquire(client)
        if held.lock:
            held._examine_lock(client)
        if held.lock:
            held.release(client)
    client.close()


def closings(events, teams, counters, closed):
    """Whether each write that was on its way was closed, and as what became of it."""
    starts = [at for at, event in enumerate(events) if event["type"] == "recovered"]
    problems = []
    if not starts:
        return ["there is no `recovered` in the trail"]
    places = {place.path: place for team in teams for place in team}
    places.update({counter.path: counter for counter in counters})
    sent = {e["seq"]: e["request_id"] for e in events if e["type"] == "write_admitted"}
    for start in starts:
        for event in events[start + 1 :]:
            if event["type"] != "write_completed" or event["result"] == "answered":
                break
            place, result = places[event["resource"]], event["result"]
            request = sent[event["admitted"]]
            # One that was answered may have its end written down by the next start, too.
            done = place.answered.get(request, place.landed)
            if request != place.pending_id and request not in place.answered:
                problems.append(f"{place.path}: closed a write that nobody sent")
            elif result not in closed or done != (result == "applied"):
                problems.append(f"{place.path}: closed as {result}, but done is {done}")
            else:
                closed[result] += 1
    done = {event["admitted"] for event in events if event["type"] == "write_completed"}
    for event in events:
        if event["type"] == "write_admitted" and event["seq"] not in done:
            problems.append(f"{event['resource']}: the admission {event['seq']} is still open")
    for place in places.values():
        place.forget_pending()
        place.answered.clear()
    return problems


if __name__ == "__main__":
    main()
