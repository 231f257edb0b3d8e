"""What a client knows for certain: what was acknowledged to it, and what may have happened.

A `Place` is one resource that one client works on, one request at a time. After a crash,
`Place.examine` compares the server with what it knows: a write that was answered is there; one that
was not is there or is not; a lock that was granted lives, with the same token and fence, until its
promise has passed; a release stays.
"""

import random
import threading
import time
import uuid

from harness import Lost

NOTHING = object()


class Ledger:
    """What all clients know together. Safe to use from several threads."""

    def __init__(self):
        self.lock = threading.Lock()
        self.grants = []
        self.problems = []
        self.counts = {}
        self.refusals = {}

    def count(self, what, by=1):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + by

    def problem(self, text):
        with self.lock:
            self.problems.append(text)

    def grant(self, answer):
        body = answer.json()
        replayed = answer.headers.get("idempotency-replayed") == "true"
        with self.lock:
            self.grants.append(
                (answer.sent, answer.received, body["fence"], body["lock_id"], replayed)
            )

    def take_problems(self):
        with self.lock:
            taken, self.problems = self.problems, []
        return taken

    def fence_problems(self):
        """Where a grant has a fence that is not greater than one that was told before it began."""
        problems = []
        owner = {}
        for _, _, fence, lock_id, _ in self.grants:
            if owner.setdefault(fence, lock_id) != lock_id:
                problems.append(f"fence {fence} belongs to two locks")
        told = sorted((received, fence) for _, received, fence, _, _ in self.grants)
        greatest, at = 0, 0
        for sent, _, fence, _, replayed in sorted(self.grants):
            while at < len(told) and told[at][0] < sent:
                greatest = max(greatest, told[at][1])
                at += 1
            if not replayed and fence <= greatest:
                problems.append(f"fence {fence} was granted after {greatest} had been told")
        return problems


class Lock:
    def __init__(self, answer, key, ttl):
        body = answer.json()
        self.lock_id = body["lock_id"]
        self.token = body["lock_token"]
        self.fence = body["fence"]
        self.key = key
        # What the acquire asked for: its retry has to be the same.
        self.asked = ttl
        # Until then it has been promised to live: counted from when the request was sent.
        self.promised = answer.sent + body["expires_in_ms"] / 1000


class Place:
    def __init__(self, path, ledger, rng=None):
        self.path = path
        self.ledger = ledger
        self.rng = rng or random.Random(path)
        self.value = None  # what was acknowledged; None: no document
        self.pending = NOTHING  # what an unanswered write would have left
        self.pending_id = None  # the request id that it was sent with
        self.answered = {}  # by request id: whether an answered write took effect
        self.landed = False  # whether the unanswered write was found to be there
        self.lock = None
        self.acquiring = None  # (key, ttl, sent) of an unanswered acquire
        self.releasing = False  # a release was not answered
        self.released = []  # (lock) whose release was answered
        self.serial = 0

    # -- one step each, all of them raise Lost ----------------------------------------------------

    def write(self, client, value, with_token=True, method="PUT"):
        """Writes the document, or deletes it where `value` is None."""
        token = self.lock.token if with_token and self.lock else None
        answer = self.send(client, method, value, token)
        if answer.status == 503:
            # Unknown: it is looked up when the server works again.
            return answer
        if answer.status in (200, 201, 204):
            self.ledger.count("writes under a lock" if token else "writes without a lock")
        if self.lock and answer.status in (410, 412) and answer.problem() == "lock-lost":
            self.has_ended(answer)
        elif self.lock and not token and answer.status < 300:
            if answer.received < self.lock.promised:
                self.ledger.problem(f"{self.path}: written without the token of a live lock")
            self.lock = None
        elif answer.status >= 300 and answer.status not in (404, 423):
            self.ledger.problem(f"{self.path}: {method} was answered {answer}")
        elif answer.status == 423 and token:
            self.ledger.problem(f"{self.path}: the holder was refused: {answer}")
        return answer

    def send(self, client, method, value, token):
        """Sends a write, and notes what is known of its effect. Raises Lost."""
        self.pending, self.pending_id = value, uuid.uuid4().hex
        answer = client.ask(
            method, self.path, value, token=token, headers={"X-Request-Id": self.pending_id}
        )
        if answer.status != 503:
            done = answer.status in (200, 201, 204)
            if done:
                self.value = value
            self.answered[self.pending_id] = done
            self.forget_pending()
        return answer

    def new_value(self, size=0):
        self.serial += 1
        value = {"place": self.path, "serial": self.serial, "nonce": uuid.uuid4().hex}
        if size:
            value["padding"] = "x" * size
        return value

    def acquire(self, client, ttl, wait=None, timeout=None):
        key = f"key-{uuid.uuid4()}"
        self.acquiring = (key, ttl, time.monotonic())
        answer = client.acquire(self.path, ttl, key=key, wait=wait, timeout=timeout)
        if answer.status == 503:
            return answer
        self.acquiring = None
        if answer.status == 201:
            self.lock = Lock(answer, key, ttl)
            self.ledger.grant(answer)
            self.ledger.count("grants")
        elif answer.status != 423:
            self.ledger.problem(f"{self.path}: an acquire was answered {answer}")
        return answer

    def renew(self, client, ttl=None):
        held = self.lock
        before = held.promised
        if ttl is not None:
            # Unanswered, it may have brought the deadline forward.
            held.promised = min(before, time.monotonic() + ttl)
        answer = client.renew(self.path, held.token, ttl)
        if answer.status == 200:
            body = answer.json()
            if (body["lock_id"], body["fence"]) != (held.lock_id, held.fence):
                self.ledger.problem(f"{self.path}: renewed another lock than its own: {answer}")
            held.promised = answer.sent + body["expires_in_ms"] / 1000
            self.ledger.count("renewals")
        elif answer.status == 410:
            held.promised = before if ttl is None else min(before, answer.sent + ttl)
            self.has_ended(answer)
        elif answer.status != 503:
            self.ledger.problem(f"{self.path}: a renewal was answered {answer}")
        return answer

    def release(self, client):
        held, self.releasing = self.lock, True
        answer = client.release(self.path, held.token)
        if answer.status == 503:
            return answer
        self.releasing = False
        if answer.status == 204:
            self.lock = None
            self.released.append(held)
            self.ledger.count("releases")
        elif answer.status == 410:
            self.has_ended(answer)
        else:
            self.ledger.problem(f"{self.path}: a release was answered {answer}")
        return answer

    def has_ended(self, answer):
        """An answer said that the lock has ended: it may only have expired, and not early."""
        held, self.lock = self.lock, None
        body = answer.json()
        if body.get("ended") != "expired":
            self.ledger.problem(f"{self.path}: the lock ended otherwise than expired: {answer}")
        elif answer.received < held.promised:
            early = held.promised - answer.received
            self.ledger.problem(f"{self.path}: expired {early:.3f} s before the promise: {answer}")
        else:
            self.ledger.count("expiries")

    # -- after a crash ----------------------------------------------------------------------------

    def examine(self, client, alone=True):
        """Compares what the server has with what is known. Raises Lost."""
        self._examine_document(client)
        self._examine_released(client)
        if self.acquiring:
            self._retry_acquire(client)
        if self.lock:
            self._examine_lock(client)
        elif alone:
            shown = client.inspect(self.path)
            if shown.status != 200 or shown.json()["locked"]:
                self.ledger.problem(f"{self.path}: nobody holds it, but it is locked: {shown}")

    def _examine_document(self, client):
        answer = client.get(self.path)
        found = answer.json() if answer.status == 200 else None
        if answer.status not in (200, 404):
            self.ledger.problem(f"{self.path}: cannot be read: {answer}")
            return
        self.ledger.count("documents looked at")
        if self.pending is not NOTHING and found == self.pending:
            self.landed = True
            self.value = found
        else:
            self.landed = False
            if found != self.value:
                self.ledger.problem(
                    f"{self.path}: an acknowledged write is lost: has {found}, was told {self.value}"
                )
                self.value = found

    def is_certain(self):
        """Whether every request so far was answered with what became of it."""
        return self.pending is NOTHING and not self.acquiring and not self.releasing

    def settle_pending(self):
        """What became of an unanswered write has been looked at."""
        if self.pending is not NOTHING:
            self.answered[self.pending_id] = self.landed
            self.forget_pending()

    def forget_pending(self):
        self.pending, self.pending_id = NOTHING, None

    def _retry_acquire(self, client):
        key, ttl, sent = self.acquiring
        first = client.acquire(self.path, ttl, key=key)
        if first.status == 410 and sent + ttl < first.received:
            self.acquiring = None
            return
        if first.status != 201:
            self.ledger.problem(f"{self.path}: the retry of an acquire was answered {first}")
            self.acquiring = None
            return
        self.acquiring = None
        self.ledger.grant(first)
        self.ledger.count("acquires retried")
        if first.headers.get("idempotency-replayed") == "true":
            self.ledger.count("of these granted before the crash")
        self.lock = Lock(first, key, ttl)

    def _examine_lock(self, client):
        held = self.lock
        again = client.acquire(self.path, held.asked, key=held.key)
        self.ledger.count("grants looked at")
        if self.releasing and again.status == 410:
            # The release had taken effect: it can be repeated.
            repeat = client.release(self.path, held.token)
            if repeat.status not in (204, 410):
                self.ledger.problem(f"{self.path}: a repeated release: {repeat}")
            self.lock, self.releasing = None, False
            return
        self.releasing = False
        if again.status == 410:
            self.has_ended(again)
            return
        body = again.json()
        known = (held.lock_id, held.token, held.fence)
        if again.status != 201 or known != (body["lock_id"], body["lock_token"], body["fence"]):
            self.ledger.problem(f"{self.path}: the same key gave another lock: {again}")
            return
        # Short ones are left to expire.
        if held.asked > 5:
            self.renew(client)

    def _examine_released(self, client):
        for gone in self.released[-2:]:
            self.ledger.count("releases looked at")
            renewed = client.renew(self.path, gone.token)
            if renewed.status != 410 or renewed.json().get("ended") != "released":
                self.ledger.problem(f"{self.path}: a released lock was renewed: {renewed}")
            repeat = client.release(self.path, gone.token)
            if repeat.status != 204:
                self.ledger.problem(f"{self.path}: a repeated release: {repeat}")
            retry = client.acquire(self.path, gone.asked, key=gone.key)
            if retry.status != 410:
                self.ledger.problem(f"{self.path}: the key of a released lock: {retry}")
        del self.released[:-2]

    # -- load -------------------------------------------------------------------------------------

    def step(self, client):
        """One request, drawn by lot."""
        rng = self.rng
        lot = rng.random()
        if self.lock is None:
            if lot < 0.4:
                return self.acquire(client, rng.choice([1, 2, 3, 600, 600, 600]))
            if lot < 0.5 and self.value is not None:
                return self.write(client, None, method="DELETE")
            return self.write(client, self.new_value())
        if lot < 0.5:
            return self.write(client, self.new_value())
        if lot < 0.6:
            answer = self.write(client, self.new_value(), with_token=False)
            if answer.status == 423:
                self.ledger.count("refusals of strangers")
            return answer
        if lot < 0.75:
            return self.renew(client, rng.choice([None, 2, 600]))
        return self.release(client)


def work(places, server, ledger, stopping):
    """Steps on its places until it is told to stop or the server is gone."""
    client = server.client()
    rng = random.Random()
    try:
        while not stopping.is_set():
            certain = [place for place in places if place.is_certain()]
            if not certain:
                break
            rng.choice(certain).step(client)
    except Lost:
        pass
    finally:
        client.close()
