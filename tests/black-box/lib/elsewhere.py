"""What has to hold of any proxy that asks Leasehold before it passes a request on."""

import datetime
import json
import sys
import threading

from deployment import Site, token, told_of_lock
from harness import Folder, run, trail, until, verify
from odd import control, odd_paths
from wire import Told, connect, final, head, read

MIB = 1 << 20
WRITES = ["PUT", "POST", "PATCH", "DELETE", "LOCK"]
FORGED = ["X-Lock-Fence", "x_lock_fence", "X-Lock_Fence", "X_Lock-Fence"]


# ------------------------------------------------------------------------------------------------
# What passes, and what does not


def reads(site):
    held = site.lock("/reads")
    wrong = []
    for fields in [[], [token(held)]]:
        for method in ["GET", "HEAD", "OPTIONS"]:
            target = "/reads/of%20it/%C3%A9?x=%20y&z=/../%2F&r=a+b"
            problems, request = site.passed(site.ask(method, target, *fields), method, target)
            wrong += problems
            if request and told_of_lock(request) != [[], [], []]:
                wrong.append(f"a read under a lock: {request}")
    site.none(wrong, "reads pass as they were sent, whatever is locked")


def unlocked_writes(site):
    wrong = []
    for method in ["PUT", "POST", "PATCH", "DELETE"]:
        target = "/free/some%20things?of=any&kind"
        told = site.ask(method, target, body=b"x" * 1000)
        problems, request = site.passed(told, method, target)
        wrong += problems
        if request and (request.body != 1000 or told_of_lock(request) != [[], [], []]):
            wrong.append(f"{method}: {request.body} bytes, {request}")
    site.none(wrong, "writes to what nobody has locked pass, with their bodies")


def writes_of_others(site):
    site.lock("/theirs", reason='the "Übergabe"')
    wrong = []
    for target in ["/theirs", "/theirs/below?x=y", "/theirs/"]:
        for method in WRITES:
            told = site.ask(method, target, body=b"{}")
            wrong += site.refused(told, 423, "locked", target)
            document = told.problem()
            if document.get("lock", {}).get("reason") != 'the "Übergabe"':
                wrong.append(f"{target}: {document}")
            if not 1 <= int(told.field("Retry-After") or 0) <= 60:
                wrong.append(f"{target}: Retry-After is {told.field('Retry-After')}")
            if 'rel="lock"' not in (told.field("Link") or ""):
                wrong.append(f"{target}: Link is {told.field('Link')}")
    # A method that is none of these: some proxies refuse it themselves.
    for method in ["put", "Get", "PROPPATCH", "X"]:
        told = site.ask(method, "/theirs", body=b"{}")
        if site.api.take() or not 400 <= told.status < 500:
            wrong.append(f"{method}: {told}")
    site.none(wrong, "writes of others are 423 with the whole problem, and do not get to the API")


def writes_of_the_holder(site):
    held = site.lock("/mine")
    expected = [[str(held["fence"])], [held["lock_id"]], ["anonymous"]]
    wrong = []
    for method in ["PUT", "POST", "PATCH", "DELETE"]:
        told = site.ask(method, "/mine", token(held), body=b"{}")
        problems, request = site.passed(told, method, "/mine")
        wrong += problems
        if request and told_of_lock(request) != expected:
            wrong.append(f"{method}: the API is told {told_of_lock(request)}")
    site.none(wrong, "the holder's writes pass, and tell the API fence, id and holder")
    site.ask("DELETE", "/mine/lock", token(held))
    told = site.ask("PUT", "/mine", token(held), body=b"{}")
    site.none(site.refused(told, 412, "lock-lost", "/mine"), "a token that has ended is 412")
    told = site.ask("PUT", "/mine", "X-Lock-Token: lock_forged", body=b"{}")
    site.none(
        site.refused(told, 403, "invalid-lock-token", "/mine"), "a token that never was is 403"
    )
    told = site.ask("PUT", "/mine", "If: nothing that can be read", body=b"{}")
    site.none(
        site.refused(told, 400, "malformed-request", "/mine"), "a field that cannot be read is 400"
    )


# ------------------------------------------------------------------------------------------------
# What clients make up


def forged_locks(site):
    held = site.lock("/forged")
    true = str(held["fence"])
    wrong = []
    for name in FORGED:
        holder = name[: -len("fence")] + "holder"
        lies = [f"{name}: 999999", f"{name}: 888888", f"{holder}: mallory"]
        cases = [
            ("GET", "/other", [], []),
            ("PUT", "/other", [], []),
            ("PUT", "/forged", [token(held)], [true]),
        ]
        for method, target, fields, expected in cases:
            told = site.ask(method, target, *lies, *fields)
            problems, request = site.passed(told, method, target)
            wrong += problems
            if request and told_of_lock(request)[0] != expected:
                wrong.append(f"{name}, {method} {target}: the API is told {request}")
            if request and "mallory" in str(request.fields):
                wrong.append(f"{name}, {method} {target}: the API is told {request}")
    site.none(wrong, "a fence that a client makes up does not get to the API")


def forged_requests(site):
    site.lock("/target")
    wrong = []
    lies = [
        "X-Forwarded-Method: GET",
        "X-Forwarded-Uri: /other",
        "X-Original-Method: GET",
        "X-Original-URI: /other",
        "X-Original-URL: /other",
        "X-Rewrite-URL: /other",
        "X-Envoy-Original-Path: /other",
        "X-Envoy-Auth-Headers-To-Remove: x-lock-token",
        "X-Forwarded-Prefix: /other",
        "X-HTTP-Method-Override: GET",
        "Connection: X-Forwarded-Uri, X-Forwarded-Method, X-Original-URI",
    ]
    for lie in [*([each] for each in lies), lies]:
        for query in ["", "?deny=200&own=allow", "?X-Forwarded-Method=GET"]:
            told = site.ask("PUT", f"/target{query}", *lie, body=b"{}")
            went = site.api.take()
            if went or told.status not in (400, 423):
                wrong.append(f"{lie} {query}: {told} {went}")
    site.none(wrong, "what a client says of another request opens no way around a lock")
    wrong = []
    for lie in ["X-Original-URL: /target", "X-Rewrite-URL: /target"]:
        told = site.ask("PUT", "/other", lie, body=b"{}")
        for each in site.api.take():
            if "/target" in str(each.fields):
                wrong.append(f"{lie}: {told} {each}")
    site.none(wrong, "an URL that a client has rewritten does not get to the API")


def overrides(site):
    held = site.lock("/override")
    wrong = []
    for name in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"]:
        told = site.ask("GET", "/override", f"{name}: PUT")
        wrong += site.refused(told, 423, "locked", "/override")
        told = site.ask("GET", "/override", f"{name}: PUT", token(held))
        wrong += site.passed(told, "GET", "/override")[0]
    for name in ["X_HTTP_Method_Override", "x_http_method"]:
        told = site.ask("GET", "/override", f"{name}: PUT")
        went = site.api.take()
        # It may be refused, or dropped.
        if any(each.all(name.replace("_", "-")) for each in went):
            wrong.append(f"{name}: {told} {went}")
    site.none(wrong, "a read that overrides its method counts as what it becomes")


# ------------------------------------------------------------------------------------------------
# Locks through the proxy


def locks(site):
    held = site.lock("/a/lockable/thing", reason="all the way")
    wrong = []

    def expect(status, method, target, *fields, body=b""):
        told = site.ask(method, target, *fields, body=body)
        went = site.api.take()
        if told.status != status or went:
            wrong.append(f"{method} {target}: {told} {went}")
        return told

    path = "/a/lockable/thing/lock"
    expect(200, "GET", path)
    expect(423, "POST", path, body=b"{}")
    expect(200, "PATCH", path, token(held), body=b'{"ttl_seconds": 50}')
    expect(202, "POST", f"{path}/request", body=b'{"message": "please"}')
    expect(200, "GET", f"{path}/")
    expect(200, "GET", "/a/lockable/thing/%6cock")
    expect(200, "GET", "/-/locks?resource=/a")
    expect(200, "GET", "/-/openapi.json")
    expect(404, "POST", "/lock", body=b"{}")
    # A waiter is served as soon as the holder lets go.
    answers = []
    fields = ["Prefer: wait=20"]
    waiter = threading.Thread(
        target=lambda: answers.append(site.ask("POST", path, *fields, body=b"{}"))
    )
    waiter.start()
    waits = until(lambda: json.loads(site.ask("GET", path).body)["queue"], 10)
    expect(204, "DELETE", path, token(held))
    waiter.join(30)
    if not waits or [each.status for each in answers] != [201]:
        wrong.append(f"the waiter: {waits} {answers}")
    expect(200, "POST", f"{path}/break", body=b'{"reason": "done"}')
    until_then = f'{{"reason": "quiet", "until": "{tomorrow()}"}}'
    expect(200, "PUT", f"{path}/freeze", body=until_then.encode())
    told = site.ask("PUT", "/a/lockable/thing", body=b"{}")
    wrong += site.refused(told, 423, "frozen", "/a/lockable/thing")
    expect(204, "DELETE", f"{path}/freeze")
    site.none(wrong, "lock endpoints and Leasehold's own space are reached on the same host")


def tomorrow():
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    return then.strftime("%Y-%m-%dT%H:%M:%SZ")


# ------------------------------------------------------------------------------------------------
# Bodies and upgrades


def bodies(site):
    size = 64 * MIB
    before = site.relay.sent
    with connect(site.front.port, 120) as sock:
        sock.sendall(head("PUT", "/large", f"Content-Length: {size}", "Connection: close"))
        block = b"x" * MIB
        for _ in range(size // MIB):
            sock.sendall(block)
        told = Told(read(sock))
    problems, request = site.passed(told, "PUT", "/large")
    arrived = request.body if request else 0
    site.check(not problems and arrived == size, "64 MiB pass whole", f"{problems} {arrived} bytes")
    with connect(site.front.port) as sock:
        sock.sendall(head("PUT", "/chunked", "Transfer-Encoding: chunked", "Connection: close"))
        for _ in range(100):
            sock.sendall(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        sock.sendall(b"0\r\n\r\n")
        told = Told(read(sock))
    problems, request = site.passed(told, "PUT", "/chunked")
    arrived = request.body if request else 0
    site.check(
        not problems and arrived == 100_000, "a body in chunks passes", f"{problems} {arrived}"
    )
    sent = site.relay.sent - before
    site.check(sent < 100_000, f"the check was not sent a body ({sent:,} bytes for both)")


def first_head(sock, before=b""):
    """The head of the first answer that comes; with `before`, of the next one."""
    raw = before.partition(b"\r\n\r\n")[2]
    while b"\r\n\r\n" not in raw and (more := sock.recv(65536)):
        raw += more
    return raw


def refused_bodies(site):
    site.lock("/upload")
    before = site.relay.sent
    for fields in [[], ["Expect: 100-continue"]]:
        with connect(site.front.port, 20) as sock:
            sock.sendall(head("PUT", "/upload", f"Content-Length: {1 << 30}", *fields))
            if not fields or site.front.reads_first:
                sock.sendall(b"x" * (site.front.reads_first + 65536))
            first = first_head(sock)
            if site.front.says_continue and first.startswith(b"HTTP/1.1 100"):
                first = first_head(sock, first)
        status = first.split(b" ")[1].decode() if b" " in first else "nothing"
        site.check(
            status == "423" and not site.api.take(),
            f"a refusal does not wait for 1 GiB {' '.join(fields)}".strip(),
            first[:100],
        )
    with connect(site.front.port, 20) as sock:
        fields = ["Content-Length: 5", "Expect: 100-continue", "Connection: close"]
        sock.sendall(head("PUT", "/free", *fields))
        first = first_head(sock)
        sock.sendall(b"whole")
        told = Told(final(first + read(sock)))
    problems, request = site.passed(told, "PUT", "/free")
    arrived = request.body if request else 0
    site.check(
        first.startswith(b"HTTP/1.1 100") and not problems and arrived == 5,
        "a write that waits for 100 (Continue) is told it once it may pass",
        f"{first} {problems} {arrived}",
    )
    sent = site.relay.sent - before
    site.check(sent < 100_000, f"and the check was not sent any of it ({sent:,} bytes)")


def upgrades(site):
    site.lock("/socket")
    for protocol in ["websocket", "WebSocket"]:
        with connect(site.front.port) as sock:
            fields = ["Connection: Upgrade", f"Upgrade: {protocol}"]
            fields += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
            sock.sendall(head("GET", "/socket", *fields))
            first = first_head(sock)
            echoed = b""
            if first.startswith(b"HTTP/1.1 101"):
                sock.sendall(b"frames that nobody looks into")
                while len(echoed) < 29 and (more := sock.recv(100)):
                    echoed += more
        site.api.take()
        site.check(
            echoed == b"frames that nobody looks into", f"an upgrade to {protocol} passes", first
        )
    wrong = []
    for protocol in ["h2c", "h2c, websocket", "websocket, h2c", "TLS/1.0", "other"]:
        for settings in [[], ["HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"]]:
            connection = "Upgrade, HTTP2-Settings" if settings else "Upgrade"
            with connect(site.front.port) as sock:
                fields = [f"Connection: {connection}", f"Upgrade: {protocol}", *settings]
                sock.sendall(head("GET", "/socket", *fields))
                first = sock.recv(65536)
            told = [each.all("Upgrade") for each in site.api.take()]
            if first.startswith(b"HTTP/1.1 101") or any(told):
                wrong.append(f"{protocol}: {first[:60]} {told}")
    site.none(wrong, "no other upgrade passes")


def slow_writes(site):
    """What a check cannot do: hold the next lock back until the write has landed."""
    first = site.lock("/slow")
    with connect(site.front.port) as sock:
        sock.sendall(head("PUT", "/slow", token(first), "Content-Length: 10", "Connection: close"))
        sock.sendall(b"first")
        under_way = until(lambda: len(site.api.received) == 1, 10)
        released = site.ask("DELETE", "/slow/lock", token(first))
        second = site.lock("/slow")
        overtaken = site.ask("PUT", "/slow", token(second), body=b"second")
        sock.sendall(b" late")
        late = Told(final(read(sock)))
    landed = [each.all("X-Lock-Fence") for each in site.api.finished]
    site.api.take()
    site.check(
        under_way
        and [released.status, overtaken.status, late.status] == [204, 200, 200]
        and landed == [[str(second["fence"])], [str(first["fence"])]]
        and first["fence"] < second["fence"],
        "a slow write lands after its lock has changed hands, and the API can tell by its fence",
        f"{under_way} {released} {overtaken} {late} {landed}",
    )


# ------------------------------------------------------------------------------------------------
# When Leasehold does not answer, and who asks


def silence(site):
    """The server stands still; then it ends, and starts again."""
    site.server.pause()
    told = site.ask("PUT", "/free", body=b"{}", seconds=site.front.patience + 15)
    site.server.resume()
    went = site.api.take()
    site.check(told.status >= 500 and not went, "nothing passes while Leasehold is silent", told)
    site.server.kill()
    wrong = []
    for method in ["PUT", "GET"]:
        told = site.ask(method, "/free", body=b"{}" if method == "PUT" else b"")
        went = site.api.take()
        if told.status < 500 or went:
            wrong.append(f"{method}: {told} {went}")
    site.none(wrong, "nothing passes while Leasehold does not answer")
    site.server.start()
    served = until(lambda: site.ask("PUT", "/free", body=b"{}").status == 200, 20)
    site.check(served, "and everything goes on when it does again")
    site.api.take()


def keys(site, alice, bob, reader):
    def by(key):
        return [f"X-Leasehold-Key: {key}", "Authorization: Bearer the-api's-own"]

    told = site.ask("PUT", "/k", "Authorization: Bearer the-api's-own", body=b"{}")
    problems = site.refused(told, 401, "unauthenticated", "/k")
    site.none(problems, "a write without a key is 401")
    site.check("ApiKey" in (told.field("WWW-Authenticate") or ""), "with its challenge", told)
    held = site.lock("/k", *by(alice))
    told = site.ask("PUT", "/k", token(held), *by(bob), body=b"{}")
    site.none(site.refused(told, 423, "locked", "/k"), "another's token is worth nothing: 423")
    told = site.ask("PUT", "/other", *by(reader), body=b"{}")
    site.none(site.refused(told, 403, "forbidden", "/other"), "a write of a reader is 403")
    told = site.ask("PUT", "/k", token(held), *by(alice), body=b"{}")
    problems, request = site.passed(told, "PUT", "/k")
    if request and told_of_lock(request)[2] != ["alice"]:
        problems.append(f"the holder is told as {request}")
    if request and request.all("Authorization") != ["Bearer the-api's-own"]:
        problems.append(f"the API's own credentials: {request}")
    site.none(problems, "the holder's write passes, with the credentials of the API and no key")


SCENARIOS = [
    reads, unlocked_writes, writes_of_others, writes_of_the_holder, forged_locks, forged_requests,
    overrides, odd_paths, locks, bodies, refused_bodies, upgrades, slow_writes, silence,
]  # fmt: skip


def prove(kind, checks, keep=False):
    """Everything, against this kind of proxy."""
    if kind.path() is None:
        print(f"SKIPPED: docs/{kind.page} is NOT PROVEN: there is no {kind.program} here")
        sys.exit(0)
    checks.note(f"{kind.path()}, configured as docs/{kind.page} shows")
    with Folder(keep) as folder, Site(folder, kind, checks, "") as site:
        for scenario in SCENARIOS:
            checks.attempt(f"{site.name}: {scenario.__name__}", scenario, site)
            site.api.take()
        site.none(verify(site.server.data), "the trail verifies")
        asked = [each for each in trail(site.server.data) if each["type"] == "write_checked"]
        site.check(asked, f"the trail has {len(asked)} checks")
        code, _ = site.server.stop()
        site.check(code == 0, "the server stops cleanly", code)
    with Folder(keep) as folder:
        control(folder, kind, checks)
    with Folder(keep) as folder:
        made = []
        for name, role in [("alice", "writer"), ("bob", "writer"), ("carol", "reader")]:
            code, out, err = run("key", "add", name, "--role", role, "--data", folder / "data")
            if code != 0:
                raise RuntimeError(f"key add: {err}")
            made.append(out.split()[-1])
        config = folder / "leasehold.toml"
        config.write_text('[identity]\nmode = "keys"\nkey_header = "X-Leasehold-Key"\n')
        with Site(folder, kind, checks, " with keys", ["--config", str(config)]) as site:
            checks.attempt(f"{site.name}: keys", keys, site, *made)
