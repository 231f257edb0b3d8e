"""A proxy between its clients and an API, with Leasehold beside it."""

import json
import urllib.parse

from fronts import Relay
from harness import Server
from recorder import Recorder
from wire import ask


class Site:
    """A proxy, the API behind it, and Leasehold beside it."""

    def __init__(self, folder, kind, checks, name, arguments=()):
        self.name = f"{kind.program}{name}"
        self.checks = checks
        self.api = Recorder()
        self.server = Server(folder / "data", arguments=arguments)
        self.relay = Relay(self.server.port)
        self.front = kind(folder)

    def __enter__(self):
        self.server.start()
        try:
            self.front.start(self.relay.port, self.api.port)
        except BaseException:
            self.server.end()
            raise
        return self

    def __exit__(self, *_):
        self.front.end()
        self.server.end()

    def ask(self, method, target, *fields, body=b"", seconds=20):
        return ask(self.front.port, method, target, *fields, body=body, seconds=seconds)

    def lock(self, resource, *fields, **body):
        """Acquires through the proxy."""
        body.setdefault("ttl_seconds", 60)
        told = self.ask("POST", f"{resource}/lock", *fields, body=json.dumps(body).encode())
        if told.status != 201:
            raise RuntimeError(f"no lock on {resource}: {told}")
        return json.loads(told.body)

    def check(self, holds, text, detail=""):
        return self.checks.check(holds, f"{self.name}: {text}", str(detail))

    def none(self, problems, text):
        return self.checks.none(problems, f"{self.name}: {text}")

    def refused(self, told, status, name, target):
        """What is wrong with a refusal; nothing when it is whole, and nothing went to the API."""
        went = self.api.take()
        document = told.problem()
        if went:
            return [f"{target}: went to the API: {went}"]
        if (told.status, told.name()) != (status, name):
            return [f"{target}: {told}"]
        if document.get("status") != status:
            return [f"{target}: the document says {document.get('status')}"]
        if document.get("instance") != urllib.parse.urlsplit(target).path:
            return [f"{target}: the document is about {document.get('instance')}"]
        return []

    def passed(self, told, method, target):
        """What is wrong with a pass, and the request as it came to the API."""
        went = self.api.take()
        if told.status != 200 or told.field("X-From") != "the API":
            return [f"{method} {target}: {told}"], None
        if [(each.method, each.target) for each in went] != [(method, target)]:
            return [f"{method} {target}: came as {went}"], None
        if any(went[0].all(name) for name in ["X-Lock-Token", "Lock-Token", "X-Leasehold-Key"]):
            return [f"{method} {target}: a secret went to the API: {went}"], went[0]
        return [], went[0]


def told_of_lock(request):
    """What the API is told of a lock; fields without a value tell nothing."""
    names = ["X-Lock-Fence", "X-Lock-Id", "X-Lock-Holder"]
    return [[value for value in request.all(name) if value] for name in names]


def token(held):
    return f"X-Lock-Token: {held['lock_token']}"
