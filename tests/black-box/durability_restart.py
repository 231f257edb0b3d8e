#!/usr/bin/env python3
"""Stopping, starting, a lost index, backups and restores.

Down time does not eat leases. SIGTERM under load ends with 0 in time. A second server is refused.
The index can be lost or spoilt. A backup made under load gives a whole server elsewhere, with
greater fences, without the old tokens, and with a trail that has every write of its documents.
"""

import http.client
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent / "lib"))

from harness import (  # noqa: E402
    Checks, Crew, Folder, Lost, Server, free_port, head, options, run, trail, until, verify,
)
from ledger import Ledger, Place, work  # noqa: E402

FENCES = 1 << 32


def down_time(folder, checks):
    """Locks of 2 s outlive 3 s without a server, and then end."""
    with Server(folder / "down") as server:
        server.start()
        for how in ("kill -9", "SIGTERM"):
            client = server.client()
            held = client.acquire("/a", 2)
            token = held.json()["lock_token"]
            left = client.acquire("/b", 2).json()["fence"]
            client.close()
            if how == "SIGTERM":
                server.stop()
            else:
                server.kill()
            # Counted from when it was sent: the server worked for no longer than this.
            lived = time.monotonic() - held.sent
            time.sleep(3)
            began = time.monotonic()
            server.start()
            client = server.client()
            renewed = client.renew("/a", token)
            lived += renewed.received - began
            alive = renewed.status == 200 and renewed.json()["fence"] == held.json()["fence"]
            checks.check(
                alive or lived >= 2, f"{how} and 3 s of down time: a lock of 2 s lives", str(renewed)
            )
            shown = client.inspect("/b").json()["locks"]
            checks.check(
                shown and shown[0]["fence"] == left, f"{how}: so does one that nobody renews"
            )
            ended = until(lambda: not client.inspect("/b").json()["locked"], 4)
            late = time.monotonic() - began
            checks.check(ended and late < 3.6, f"{how}: and ends", f"after {late:.2f} s")
            client.release("/a", token)
            client.close()


def stopping(folder, checks):
    """SIGTERM with everything under way that a client can have under way."""
    ledger = Ledger()
    with Server(folder / "stop") as server:
        server.start()
        teams = [[Place(f"/w{w}/p{p}", ledger) for p in range(3)] for w in range(6)]
        client = server.client()
        client.acquire("/held", 600)
        waits = []

        def wait(number):
            waiter = server.client(40)
            try:
                waits.append(waiter.acquire("/held", 5, wait=30, timeout=40))
            except Lost as error:
                waits.append(error)

        waiters = [threading.Thread(target=wait, args=(n,)) for n in range(5)]
        for waiter in waiters:
            waiter.start()
        idle = [server.client() for _ in range(5)]
        for each in idle:
            each.get("/held")
        # A body that never comes, and a stream that never ends.
        slow = socket.create_connection(("127.0.0.1", server.port))
        slow.sendall(
            b"PUT /slow HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\n\r\n{"
        )
        stream = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        stream.request("GET", "/-/events")
        stream.getresponse()
        crew = Crew([lambda stop, team=team: work(team, server, ledger, stop) for team in teams])
        time.sleep(1)
        kept = head(server.data)
        code, took = server.stop(20)
        failures = crew.join()
        for waiter in waiters:
            waiter.join()
        slow.close()
        stream.close()
        checks.check(code == 0, "SIGTERM under load: exit 0", f"{code}: {server.last_log()}")
        checks.check(took < 10, f"SIGTERM under load: within 10 s ({took:.1f} s)")
        checks.none(failures, "SIGTERM under load: clients got answers or lost the connection")
        told = [
            each
            for each in waits
            if isinstance(each, Lost) or each.status != 503 or "retry-after" not in each.headers
        ]
        checks.none(told, "SIGTERM: waiters are told 503 with Retry-After")
        server.start()
        client = server.client()
        for team in teams:
            for place in team:
                place.examine(client)
        checks.none(
            [p for p in ledger.take_problems() if " 503 " not in p],
            "SIGTERM under load: nothing acknowledged is lost",
        )
        checks.none(verify(server.data, kept), "SIGTERM under load: the trail verifies")
        cause = trail(server.data, "--type", "recovered")[-1]["cause"]
        checks.check(cause == "clean-start", "the next start knows that it was clean", cause)
        events = trail(server.data)
        at = max(n for n, event in enumerate(events) if event["type"] == "recovered")
        admitted = {e["seq"] for e in events[:at] if e["type"] == "write_admitted"}
        done = {e["admitted"] for e in events[:at] if e["type"] == "write_completed"}
        checks.none(admitted - done, "no write was left open by a clean stop")


def second_server(folder, checks):
    with Server(folder / "stop") as server:
        server.start()
        listen = ["serve", "--listen", f"127.0.0.1:{free_port()}", "--data", folder / "stop"]
        code, _, text = run(*listen, seconds=10)
        clear = code == 1 and "in use by another server" in text
        clear = clear and str(server.process.pid) in text
        checks.check(clear, "a second server on the same folder is refused, and told why", text)
        listen = ["serve", "--listen", f"127.0.0.1:{server.port}", "--data", folder / "port"]
        code, _, text = run(*listen, seconds=10)
        clear = code == 1 and f"cannot listen on 127.0.0.1:{server.port}" in text
        checks.check(clear, "so is one on the same port", text)
        answer = server.client().get("/held")
        checks.check(answer.status in (200, 404), "the first goes on", str(answer))


def picture(server):
    """All that a client can see of the state: locks, freezes, documents, the trail."""
    client = server.client()
    locks, cursor = [], None
    while True:
        page = client.ask("GET", f"/-/locks?limit=50{f'&cursor={cursor}' if cursor else ''}").json()
        locks += page["items"]
        cursor = page["next"]
        if cursor is None:
            break
    for lock in locks:
        # These go on.
        lock.pop("expires_in_ms"), lock.pop("expires_at")
    frozen = client.inspect("/frozen").json()["freeze"]
    documents = client.ask("GET", "/docs?limit=1000").json()
    asked = trail(server.data, "--resource", "/docs/d7")
    keyed = client.acquire("/keyed", 600, key="the-key").json()
    client.close()
    return {
        "locks": locks,
        "freeze": frozen,
        "documents": documents,
        "trail": [event["seq"] for event in asked],
        "keyed": (keyed.get("lock_id"), keyed.get("lock_token")),
    }


def index(folder, checks):
    """The index is lost or spoilt between a stop and a start: nothing changes."""
    data = folder / "index"
    files = ["index.db", "index.db-wal", "index.db-shm"]

    def remove():
        for name in files:
            (data / name).unlink(missing_ok=True)

    def spoil(name, change):
        path = data / name
        if path.exists():
            content = bytearray(path.read_bytes())
            change(content)
            path.write_bytes(content)

    def scatter(content):
        lots = random.Random(1)
        for _ in range(200):
            content[lots.randrange(len(content))] ^= 0xFF

    def older():
        remove()
        for name in files:
            if (folder / "older" / name).exists():
                shutil.copy(folder / "older" / name, data / name)

    def foreign():
        remove()
        shutil.copy(data / "documents.db", data / "index.db")

    def folder_instead():
        remove()
        (data / "index.db-shm").write_bytes(b"")
        (data / "index.db-wal").write_bytes(b"nonsense" * 1000)

    cases = [
        ("deleted", remove),
        ("empty", lambda: (remove(), (data / "index.db").write_bytes(b""))),
        ("cut in half", lambda: spoil("index.db", lambda c: c.__delitem__(slice(len(c) // 2, None)))),
        ("overwritten in places", lambda: spoil("index.db", scatter)),
        ("text", lambda: (remove(), (data / "index.db").write_text("no database " * 1000))),
        ("from last week", older),
        ("another database", foreign),
        ("missing, with another's write-ahead file", folder_instead),
    ]
    with Server(data) as server:
        server.start()
        client = server.client()
        for n in range(20):
            client.put(f"/docs/d{n}", {"n": n})
        for n in range(300):
            lock = client.acquire(f"/docs/d{n % 20}", 600).json()
            client.put(f"/docs/d{n % 20}", {"n": n}, lock["lock_token"])
            if n < 280:
                client.release(f"/docs/d{n % 20}", lock["lock_token"])
            if n == 150:
                client.close()
                server.stop()
                (folder / "older").mkdir()
                for name in files:
                    if (data / name).exists():
                        shutil.copy(data / name, folder / "older" / name)
                server.start()
        client.acquire("/keyed", 600, key="the-key")
        client.ask(
            "PUT",
            "/frozen/lock/freeze",
            {"reason": "a test", "until": tomorrow()},
        )
        client.close()
        before = picture(server)
        seen = len(before["locks"]) == 21 and before["freeze"] and len(before["trail"]) > 20
        checks.check(seen, "there is a state to compare", str(before)[:300])
        for number, (what, change) in enumerate(cases):
            if number % 2:
                server.kill()
            else:
                server.stop()
            change()
            try:
                server.start()
                after = picture(server)
                differs = [name for name in before if before[name] != after[name]]
                checks.none(differs, f"index.db {what}: the same state")
            except RuntimeError as error:
                checks.check(False, f"index.db {what}: starts", str(error))
                remove()
                server.start()
        checks.none(verify(data), "the trail verifies after all that")


def tomorrow():
    moment = time.gmtime(time.time() + 86_400)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", moment)


class Writer:
    """Writes documents under locks, each with the id of the request that wrote it."""

    def __init__(self, server, number):
        self.server = server
        self.path = f"/written/{number}"
        self.serial = 0
        self.token = None
        self.greatest = 0
        self.etag = None

    def run(self, stopping):
        client = self.server.client()
        while not stopping.is_set():
            granted = client.acquire(self.path, 600)
            self.token = granted.json()["lock_token"]
            self.greatest = max(self.greatest, granted.json()["fence"])
            for _ in range(5):
                request = uuid.uuid4().hex
                value = {"serial": self.serial + 1, "request": request}
                answer = client.put(
                    self.path, value, self.token, headers={"X-Request-Id": request}
                )
                if answer.status not in (201, 204):
                    raise RuntimeError(f"{self.path}: {answer}")
                self.serial += 1
                self.etag = answer.headers["etag"]
            if not stopping.is_set():
                client.release(self.path, self.token)
        client.close()


def backups(folder, checks):
    with Server(folder / "original") as server:
        server.start()
        writers = [Writer(server, number) for number in range(6)]
        crew = Crew([writer.run for writer in writers])
        made = []
        for number in range(3):
            time.sleep(0.5)
            known = [writer.serial for writer in writers]
            file = folder / f"backup-{number}"
            options = ["--include-token-key"] if number == 1 else []
            code, out, err = run("backup", file, "--data", server.data, *options)
            checks.check(code == 0, f"backup {number} under load", err)
            made.append((file, known, out.strip()))
        failures = crew.join()
        checks.none(failures, "writers were not disturbed by backups")
        greatest = max(writer.greatest for writer in writers)
        for number, (file, known, printed) in enumerate(made):
            restored(folder / f"restored-{number}", file, known, printed, writers, greatest, checks)
        file, _, _ = made[0]
        code, _, err = run("restore", file, "--data", folder / "restored-0")
        checks.check(code == 1 and "not empty" in err, "no restore over what is there", err)
        half = folder / "half"
        content = file.read_bytes()
        half.write_bytes(content[: len(content) // 2])
        code, _, err = run("restore", half, "--data", folder / "from-half")
        checks.check(code == 1, "half a backup is refused", err)
        listen = ["serve", "--listen", f"127.0.0.1:{free_port()}", "--data", folder / "from-half"]
        try:
            code, _, text = run(*listen, seconds=10)
        except subprocess.TimeoutExpired:
            code, text = None, "it started"
        clear = code == 1 and "is missing or empty" in text
        checks.check(clear, "and no server starts on half of it", text)


def restored(data, file, known, printed, writers, greatest, checks):
    name = f"restored from {file.name}"
    code, out, err = run("restore", file, "--data", data)
    if not checks.check(code == 0 and out.strip() == printed, f"{name}: the head it had", err):
        return
    checks.none(verify(data, printed), f"{name}: the trail verifies before a start")
    with Server(data) as server:
        server.start()
        client = server.client()
        cause = trail(data, "--type", "recovered")[-1]
        floor = cause["fence_floor"]
        checks.check(cause["cause"] == "restored", f"{name}: `recovered` says so", str(cause))
        new = client.acquire("/new", 60).json()
        checks.check(
            new["fence"] > greatest and new["fence"] > FENCES and floor >= FENCES,
            f"{name}: fences are beyond all that were granted ({new['fence']})",
        )
        refused = [
            f"{answer}"
            for writer in writers
            for answer in (
                client.renew(writer.path, writer.token),
                client.put(writer.path, {"n": 1}, writer.token),
                client.release(writer.path, writer.token),
            )
            if answer.status not in (403, 423)
        ]
        checks.none(refused, f"{name}: the old tokens are refused")
        problems = []
        admitted = {e["request_id"] for e in trail(data, "--type", "write_admitted")}
        for writer, at_least in zip(writers, known):
            answer = client.get(writer.path)
            if answer.status != 200:
                if at_least:
                    problems.append(f"{writer.path} is lost: {answer}")
                continue
            found = answer.json()
            if found["serial"] < at_least:
                problems.append(f"{writer.path}: has {found['serial']}, was told {at_least}")
            if found["request"] not in admitted:
                problems.append(f"{writer.path}: the trail does not know the write {found}")
            if answer.headers["etag"] == writer.etag:
                problems.append(f"{writer.path}: an entity tag came back")
        checks.none(problems, f"{name}: documents and trail are of one piece")
        for writer in writers:
            client.ask("POST", f"{writer.path}/lock/break", {"reason": "its holder is elsewhere"})
            again = client.acquire(writer.path, 60)
            if again.status != 201:
                problems.append(f"{writer.path}: {again}")
        checks.none(problems, f"{name}: old locks can be broken, and taken anew")
        client.close()
        server.kill()
        server.start()
        checks.none(verify(data, printed), f"{name}: the trail verifies after a start")
        cause = trail(data, "--type", "recovered")[-1]["cause"]
        checks.check(cause == "crash", f"{name}: restored only once", cause)


def main():
    chosen = options(__doc__.splitlines()[0], rounds=1)
    checks = Checks()
    with Folder(chosen.keep) as folder:
        for number in range(chosen.rounds):
            inner = folder / f"round-{number}"
            inner.mkdir()
            down_time(inner, checks)
            stopping(inner, checks)
            second_server(inner, checks)
            index(inner, checks)
            backups(inner, checks)
    checks.finish()


if __name__ == "__main__":
    main()
