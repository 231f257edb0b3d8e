#!/usr/bin/env python3
"""The disk becomes full under load, and free again.

Once on a small file system (ext4 in a file, which takes root and a loop device; else a tmpfs), and
once by a limit on the size of files, which fails in other places and needs no rights. Meanwhile
commands and writes are refused with 503 and reads pass; nothing that was acknowledged is lost; the
lease clock stands still; and the server goes on by itself.
"""

import random
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent / "lib"))

from harness import (  # noqa: E402
    Checks, Crew, Folder, Insistent, Lost, Server, head, options, trail, until, verify,
)
from ledger import Ledger, Place  # noqa: E402

WORKERS = 6
PLACES = 3
# How long the disk is full: longer than the short locks were granted for.
FULL = 6.0
SHORT = 4
REFUSALS = {"storage-failure", "unavailable"}
SMALL = "24M"


class Mount:
    """A small file system of its own; None where none can be mounted."""

    def __init__(self, kind, folder):
        self.kind = kind
        self.path = folder / f"mount-{kind}"
        self.image = folder / f"{kind}.img"

    def __enter__(self):
        self.path.mkdir()
        if self.kind == "ext4":
            with open(self.image, "wb") as image:
                image.truncate(24 << 20)
            steps = [
                ["mkfs.ext4", "-q", "-m", "0", str(self.image)],
                ["mount", "-o", "loop", str(self.image), str(self.path)],
            ]
        else:
            steps = [["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(self.path)]]
        for step in steps:
            try:
                done = subprocess.run(step, capture_output=True, text=True)
            except FileNotFoundError:
                return None
            if done.returncode != 0:
                return None
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", str(self.path)], capture_output=True)

    def fill(self, server):
        """Takes everything that is left, again and again for a moment: the server frees some."""
        del server
        with open(self.path / "ballast", "ab", buffering=0) as ballast:
            for size in (1 << 20, 1 << 16, 1 << 12, 1 << 9):
                try:
                    while True:
                        ballast.write(b"\0" * size)
                except OSError:
                    pass

    def free(self, server):
        del server
        (self.path / "ballast").unlink()


class Limit:
    """No file may grow beyond what the largest has now."""

    kind = "file size limit"

    def __init__(self, folder):
        self.path = folder / "limited"

    def __enter__(self):
        self.path.mkdir()
        return self

    def __exit__(self, *_):
        pass

    def fill(self, server):
        # 16 KiB: within what the write-ahead files have, so that most writes beyond it fail.
        server.limit_file_size(16 << 10)

    def free(self, server):
        server.limit_file_size(None)


class Phase:
    """What clients saw of refusals, and when."""

    def refusals(self):
        return sum(self.refused.values())

    def __init__(self):
        self.lock = threading.Lock()
        self.first_refused = None
        self.last_refused = None
        self.refused = {}
        self.reads = 0
        self.strange = []

    def saw(self, answer, reading=False):
        with self.lock:
            if reading:
                self.reads += 1
                if answer.status not in (200, 404):
                    self.strange.append(f"a read was answered {answer}")
            elif answer.status == 503:
                name = answer.problem()
                self.refused[name] = self.refused.get(name, 0) + 1
                self.first_refused = self.first_refused or answer.sent
                self.last_refused = answer.received
                if name not in REFUSALS or "retry-after" not in answer.headers:
                    self.strange.append(f"refused with {answer} {answer.headers}")
            elif answer.status >= 500:
                self.strange.append(f"answered {answer}")


class Worked:
    """How long the log worked at most, as far as a lock's time goes.

    The documents can be refused earlier than it is: they are in a file of their own.
    """

    def __init__(self, since):
        self.seconds = 0
        self.last = since
        self.works = True

    def saw(self, answer):
        works = answer.status != 503
        if works or self.works:
            self.seconds += answer.received - self.last
        self.last = answer.received
        self.works = works

    def until(self, now):
        return self.seconds + now - self.last


def work(places, server, phase, stopping):
    """Steps on its places; what was answered with 503 is unknown, and that place is left alone."""
    client = server.client()
    rng = random.Random()
    try:
        while not stopping.is_set():
            certain = [place for place in places if place.is_certain()]
            place = rng.choice(certain or places)
            if not certain or rng.random() < 0.3:
                phase.saw(client.get(place.path), reading=True)
            if not certain:
                # Nothing more to lose: knocks without an effect that has to be known.
                phase.saw(client.acquire("/knocks" + place.path, 1))
                time.sleep(0.02)
                continue
            if place.lock is None and rng.random() < 0.5:
                answer = place.write(client, place.new_value(rng.choice([0, 2000, 20000])))
            else:
                answer = place.step(client)
            phase.saw(answer)
    finally:
        client.close()


def scenario(name, room, checks, folder):
    ledger, phase = Ledger(), Phase()
    with Server(room.path / "data", log=folder / f"{room.kind.replace(' ', '-')}.log") as server:
        server.start()
        teams = [[Place(f"/w{w}/p{p}", ledger) for p in range(PLACES)] for w in range(WORKERS)]
        client = server.client()
        for team in teams:
            for place in team:
                place.write(client, place.new_value(1000))
        since = datetime.now(timezone.utc) - timedelta(seconds=1)
        jobs = [lambda stop, team=team: work(team, server, phase, stop) for team in teams]
        crew = Crew(jobs)
        time.sleep(0.7)
        kept = head(server.data)
        calm = not phase.first_refused
        checks.check(calm, f"{name}: nothing is refused before", str(phase.refused))
        short = [Place(f"/short/s{s}", ledger) for s in range(4)]
        granted = time.monotonic()
        for place in short:
            place.acquire(client, SHORT)
        deadline = time.monotonic() + 20
        while not phase.first_refused and time.monotonic() < deadline:
            room.fill(server)
            time.sleep(0.01)
        began = phase.first_refused
        checks.check(began, f"{name}: commands and writes are refused", server.last_log())
        if not began:
            crew.join()
            return
        reads_before = phase.reads
        # The documents may be refused first, and the workers write nothing more then: what room the
        # log has in its write-ahead file is used up here.
        worked = Worked(granted)
        knocks = 0
        while worked.works and time.monotonic() < deadline:
            room.fill(server)
            for _ in range(20):
                worked.saw(client.acquire(f"/knocks/main/{knocks}", 1))
                knocks += 1
        checks.check(not worked.works, f"{name}: the log takes nothing more", server.last_log())
        end = time.monotonic() + FULL
        waiting = None
        while time.monotonic() < end:
            room.fill(server)
            ready = client.ask("GET", "/-/health/ready")
            waiting = ready.status if ready.status != 200 else waiting
            worked.saw(client.acquire("/knocks/main", 1))
            time.sleep(0.05)
        checks.check(phase.reads > reads_before + 100, f"{name}: reads pass meanwhile")
        checks.check(waiting == 503, f"{name}: the server says that it is not ready", str(waiting))
        freed = time.monotonic()
        room.free(server)
        back = until(
            lambda: client.ask("GET", "/-/health/ready").status == 200
            and client.put("/probe", {"at": time.monotonic()}).status < 300,
            15,
        )
        took = time.monotonic() - freed
        checks.check(back, f"{name}: serves again by itself", server.last_log())
        if not back:
            crew.join()
            return
        # They have lived for less than they were promised, while the server worked.
        ended = []
        for place in short:
            if place.lock:
                answer = place.renew(client)
                lived = worked.until(answer.received)
                if answer.status != 200 and lived < SHORT:
                    ended.append(f"{place.path} after {lived:.2f} s: {answer}")
        checks.none(ended, f"{name}: {FULL:.0f} s do not count for locks of {SHORT} s")
        time.sleep(0.5)
        checks.none(crew.join(), f"{name}: every request was answered")
        checks.note(
            f"refused: {phase.refused}; {phase.reads} reads; "
            f"served again {took:.2f} s after there was room"
        )
        checks.none(phase.strange, f"{name}: refusals say why and when to try again")
        checks.none(ledger.take_problems(), f"{name}: no answer contradicts another")
        examine(server, teams, short)
        checks.none(ledger.take_problems(), f"{name}: nothing acknowledged is lost")
        checks.none(closings(server, since, teams), f"{name}: writes on their way end truthfully")
        checks.none(verify(server.data, kept), f"{name}: the trail verifies")
        causes = [event.get("cause") for event in trail(server.data, "--type", "recovered")]
        checks.check("failed-commit" in causes, f"{name}: the trail tells of it", str(causes))
        kept = head(server.data)
        server.kill()
        server.start()
        examine(server, teams, short)
        checks.none(
            ledger.take_problems() + ledger.fence_problems() + verify(server.data, kept),
            f"{name}: nor after a kill and a start",
        )
        counts = {what: n for what, n in sorted(ledger.counts.items())}
        checks.note(f"{counts}")


def persist(places, server, phase, stopping):
    """Steps on its places; finds out about what was answered with 503, and goes on."""
    client, insistent = server.client(), Insistent(server.port)
    rng = random.Random()
    try:
        while not stopping.is_set():
            place = rng.choice(places)
            if place.is_certain():
                phase.saw(place.step(client))
                continue
            try:
                place.examine(insistent)
                place.settle_pending()
            except Lost:
                time.sleep(0.03)
    except Lost:
        pass
    finally:
        client.close()
        insistent.close()


def flapping(checks, folder, cycles):
    """Storage fails and works again many times, now here and now there, and is killed at the end."""
    name = f"{cycles} failures"
    ledger, phase, lots = Ledger(), Phase(), random.Random()
    with Server(folder / "flapping", log=folder / "flapping.log") as server:
        server.start()
        since = datetime.now(timezone.utc) - timedelta(seconds=1)
        teams = [[Place(f"/w{w}/p{p}", ledger) for p in range(PLACES)] for w in range(WORKERS)]
        crew = Crew([lambda stop, team=team: persist(team, server, phase, stop) for team in teams])
        time.sleep(0.3)
        client = server.client()
        held = client.acquire("/waited-for", 600)
        told = []
        for _ in range(cycles):
            waiter = Waiter(server)
            time.sleep(0.1)
            largest = max(each.stat().st_size for each in server.data.iterdir())
            failed = phase.refusals()
            server.limit_file_size(lots.choice([4 << 10, 40 << 10, largest // 2, largest]))
            until(lambda: phase.refusals() > failed, 1.5)
            time.sleep(lots.uniform(0, 0.3))
            server.limit_file_size(None)
            until(lambda: client.put("/probe", {}).status < 300, 10)
            told.append(waiter)
            time.sleep(lots.uniform(0.05, 0.3))
        kept = head(server.data)
        server.limit_file_size(16 << 10)
        time.sleep(0.3)
        server.kill()
        checks.none(crew.join(), f"{name}: every request was answered until the kill")
        client.close()
        server.start()
        for team in teams:
            for place in team:
                insistent = Insistent(server.port)
                place.examine(insistent)
                place.settle_pending()
                insistent.close()
        causes = [event["cause"] for event in trail(server.data, "--type", "recovered")]
        failures = causes.count("failed-commit")
        checks.check(failures >= cycles // 2, f"{name}: {failures} commits of the log failed")
        checks.note(f"refused: {phase.refused}")
        checks.note(f"{ {what: n for what, n in sorted(ledger.counts.items())} }")
        checks.none(phase.strange, f"{name}: refusals say why and when to try again")
        checks.none(
            ledger.take_problems() + ledger.fence_problems(), f"{name}: nothing acknowledged is lost"
        )
        checks.none(closings(server, since, teams), f"{name}: the trail says how each write ended")
        checks.none(verify(server.data, kept), f"{name}: the trail verifies")
        client = server.client()
        token = held.json()["lock_token"]
        renewed = client.renew("/waited-for", token)
        checks.check(renewed.status == 200, f"{name}: a lock from before them lives", str(renewed))
        client.release("/waited-for", token)
        outcomes = {}
        for waiter in told:
            waiter.join()
            outcomes[waiter.told] = outcomes.get(waiter.told, 0) + 1
        strange = set(outcomes) - {"503 storage-failure", "503 unavailable", "lost", "423 locked"}
        checks.none(strange, f"{name}: waiters are told ({outcomes})")
        free = client.acquire("/waited-for", 1)
        checks.check(free.status == 201, f"{name}: and leave nothing behind", str(free))


def stopped(checks, folder):
    """SIGTERM while nothing can be written: it ends in time, and the next start has everything."""
    name = "stopped without room"
    ledger, phase = Ledger(), Phase()
    with Server(folder / "stopped", log=folder / "stopped.log") as server:
        server.start()
        teams = [[Place(f"/w{w}/p{p}", ledger) for p in range(PLACES)] for w in range(WORKERS)]
        crew = Crew([lambda stop, team=team: persist(team, server, phase, stop) for team in teams])
        time.sleep(0.5)
        kept = head(server.data)
        server.limit_file_size(8 << 10)
        until(phase.refusals, 5)
        time.sleep(0.3)
        code, took = server.stop(20)
        checks.check(code == 0 and took < 10, f"{name}: exit 0 within 10 s", f"{code}, {took:.1f} s")
        checks.none(crew.join(), f"{name}: every request was answered until then")
        server.start()
        for team in teams:
            for place in team:
                insistent = Insistent(server.port)
                place.examine(insistent)
                insistent.close()
        checks.none(ledger.take_problems(), f"{name}: nothing acknowledged is lost")
        cause = trail(server.data, "--type", "recovered")[-1]["cause"]
        checks.check(cause == "crash", f"{name}: the next start knows that it was no clean one", cause)
        checks.none(verify(server.data, kept), f"{name}: the trail verifies")


class Waiter(threading.Thread):
    """Waits for a lock that nobody lets go."""

    def __init__(self, server):
        super().__init__()
        self.client = server.client(40)
        self.told = None
        self.start()

    def run(self):
        try:
            answer = self.client.acquire("/waited-for", 1, wait=30)
            self.told = f"{answer.status} {answer.problem()}"
        except Lost:
            self.told = "lost"
        self.client.close()


def examine(server, teams, short):
    client = server.client()
    for team in [*teams, short]:
        for place in team:
            place.examine(client)
    client.close()


def closings(server, since, teams):
    """Compares the end of each write in the trail with what its client saw and the document."""
    events = trail(server.data, "--since", since.isoformat())
    ends = {e["admitted"]: e for e in events if e["type"] == "write_completed"}
    places = {place.path: place for team in teams for place in team}
    problems, found = [], {}
    for event in events:
        if event["type"] != "write_admitted" or event["resource"] not in places:
            continue
        place, end = places[event["resource"]], ends.get(event["seq"])
        if end is None:
            problems.append(f"{place.path}: the admission {event['seq']} is still open")
            continue
        result = end["result"]
        found[result] = found.get(result, 0) + 1
        request = event["request_id"]
        if result == "unknown":
            problems.append(f"{place.path}: the admission {event['seq']} ended as unknown")
        if request == place.pending_id:
            landed = result == "applied" or (result == "answered" and end["status"] < 300)
            if landed != place.landed:
                problems.append(f"{place.path}: ended as {end}, landed is {place.landed}")
        elif request in place.answered:
            done = result == "answered" and end["status"] < 300 or result == "applied"
            if done != place.answered[request]:
                problems.append(f"{place.path}: ended as {result}, was answered otherwise")
    for place in places.values():
        place.forget_pending()
        place.answered.clear()
    print(f"      ends of writes under a lock: {found}", flush=True)
    return problems


def documents_alone(checks, folder):
    """Only the documents cannot be written: the trail learns what became of each write."""
    name = "documents alone"
    ledger = Ledger()
    with Server(folder / "documents-alone", log=folder / "documents-alone.log") as server:
        server.start()
        client = server.client()
        since = datetime.now(timezone.utc) - timedelta(seconds=1)
        place = Place("/a", ledger)
        # Without a lock nothing goes into the log: only the documents grow.
        for _ in range(30):
            place.write(client, place.new_value(40000))
        place.acquire(client, 600)
        place.write(client, place.new_value(100))
        server.limit_file_size(512 << 10)
        answer = None
        for _ in range(40):
            answer = place.write(client, place.new_value(40000))
            if answer.status == 503:
                break
        refused = answer.status == 503 and answer.problem() == "storage-failure"
        checks.check(refused, f"{name}: a write is refused with storage-failure", str(answer))
        shown = client.inspect("/a")
        checks.check(shown.status == 200, f"{name}: the locks go on", str(shown))
        renewed = client.renew("/a", place.lock.token)
        checks.check(renewed.status == 200, f"{name}: a lock is renewed", str(renewed))
        read = client.get("/a")
        checks.check(read.status == 200, f"{name}: reads pass", str(read))
        server.limit_file_size(None)
        known = client.get("/a").json()
        # The lock changes hands only when it is known what became of the write.
        client.release("/a", place.lock.token)
        other = client.acquire("/a", 600)
        checks.check(other.status == 201, f"{name}: the next holder gets the lock", str(other))
        after = client.get("/a").json()
        checks.check(after == known or place.pending == after, f"{name}: the document is one of two")
        second = {"of": "the next holder"}
        done = until(
            lambda: client.put("/a", second, other.json()["lock_token"]).status == 204, 10
        )
        checks.check(done, f"{name}: writes are taken again", server.last_log())
        client.close()
        server.kill()
        server.start()
        checks.check(client.get("/a").json() == second, f"{name}: and kept")
        place.landed = after != known and after == place.pending
        place.lock = None
        checks.none(
            closings(server, since, [[place]]), f"{name}: the trail says how each write ended"
        )
        checks.none(ledger.take_problems() + verify(server.data), f"{name}: the trail verifies")


def full_from_the_start(checks, folder):
    """A server that finds no room for its first word says so, and starts when there is some."""
    with Mount("tmpfs", folder) as room:
        if room is None:
            checks.note("SKIPPED: no file system can be mounted here")
            return
        with Server(room.path / "data", log=folder / "start.log") as server:
            server.start()
            server.stop()
            room.fill(server)
            try:
                server.start(5)
                started = True
            except RuntimeError as error:
                started, text = False, str(error)
            if started:
                checks.note("a start found room on a full disk")
                server.kill()
            else:
                clear = "leasehold: cannot" in text and "ended with 1" in text
                checks.check(clear, "a start without room says what it cannot do, and ends", text)
            room.free(server)
            server.start()
            checks.check(True, "and starts when there is room")
            checks.none(verify(server.data), "with a trail that verifies")


def main():
    chosen = options(__doc__.splitlines()[0], rounds=1, failures=12)
    checks = Checks()
    with Folder(chosen.keep) as folder:
        for number in range(chosen.rounds):
            inner = folder / f"round-{number}"
            inner.mkdir()
            mounted = False
            for kind in ("ext4", "tmpfs"):
                with Mount(kind, inner) as room:
                    if room is not None:
                        name = f"full {kind}"
                        checks.attempt(name, scenario, name, room, checks, inner)
                        mounted = True
                if mounted:
                    break
            if not mounted:
                checks.note("SKIPPED: no file system can be mounted here (it takes root)")
            with Limit(inner) as room:
                checks.attempt(room.kind, scenario, room.kind, room, checks, inner)
            checks.attempt("failures", flapping, checks, inner, chosen.failures)
            checks.attempt("a stop", stopped, checks, inner)
            checks.attempt("documents alone", documents_alone, checks, inner)
            checks.attempt("a start", full_from_the_start, checks, inner)
    checks.finish()


if __name__ == "__main__":
    main()
