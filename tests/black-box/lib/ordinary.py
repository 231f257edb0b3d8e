"""An ordinary client in a process of its own, which has to be served whatever others do."""

import multiprocessing
import time

from harness import Client, Lost

# The longest that it may wait for one of its answers.
PATIENCE = 2.0


def ordinary(port, told):
    """Cycles until it is told to stop; what it saw since it was last asked."""
    client = Client(port, timeout=30)
    client.put("/ordinary", {"n": 0})
    spans, problems = [], []
    while True:
        began = time.monotonic()
        try:
            got = client.acquire("/ordinary", 60)
            token = got.json().get("lock_token") if got.status == 201 else None
            wrote = client.put("/ordinary", {"n": 1}, token)
            freed = client.release("/ordinary", token)
            statuses = [got.status, wrote.status, freed.status]
            if statuses != [201, 204, 204]:
                problems.append(f"{statuses}: {got} {wrote} {freed}")
        except Lost as error:
            problems.append(f"lost: {error}")
        spans.append(time.monotonic() - began)
        if told.poll():
            word = told.recv()
            told.send((spans, problems))
            spans, problems = [], []
            if word == "stop":
                return
        time.sleep(0.005)


class Ordinary:
    """The ordinary client, as the test sees it."""

    def __init__(self, port):
        self.pipe, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=ordinary, args=(port, theirs), daemon=True)
        self.process.start()

    def ask(self, word="tell"):
        self.pipe.send(word)
        if not self.pipe.poll(60):
            return [], ["the ordinary client is not answered at all"]
        return self.pipe.recv()

    def was_served(self, checks, meanwhile):
        spans, problems = self.ask()
        slowest = max(spans, default=0)
        served = bool(spans) and not problems and slowest < PATIENCE
        checks.check(
            served,
            f"{meanwhile}: {len(spans)} cycles of an ordinary client are served, none slower than "
            f"{PATIENCE} s",
            f"slowest {slowest:.2f} s; {problems[:2]}",
        )
        checks.note(f"slowest cycle {slowest * 1000:.0f} ms")
