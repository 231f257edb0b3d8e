"""Paths that one server takes for this resource and another for that one."""

import urllib.parse

from recorder import Recorder
from wire import ask

ODD = [
    "/odd//a", "//odd/a", "/odd/./a", "/odd/x/../a", "/odd/%61", "/odd/a/", "/odd/a?x",
    "/odd%2fa", "/odd%2Fa", "/odd/x/%2e%2e/a", "/odd/x/%2E./a", "/odd/x/..%2fa",
    "/odd/x%2f..%2fa", "/odd\\a", "/odd%5ca", "/odd/a%00", "/odd/a#x", "/free#/../odd/a",
    "/free?#/../odd/a", "http://other.example/odd/a", "http://other.example/free/../odd/a",
    "/odd/a%", "/odd/a%zz", "/odd/a/lock/../../a", "/odd/a/lock/", "/odd/a/lock//",
    "/odd/a/%6cock", "/odd/a/%6C%6f%63%6b", "/odd/a//lock", "/odd/a/./lock",
    "/odd/a/lock/break/../../x", "/odd/a/lock/%62reak", "/odd/a/lock?/x", "/odd/a/lock/#x",
    "/-/../odd/a", "/-/%2e%2e/odd/a", "/-//../odd/a", "/-/..%2fodd/a", "/%2d/../odd/a",
    "/-/check/../../odd/a", "/-/check", "/odd/x/lock/%2e%2e/%2e%2e/a", "/odd/x/lock/../../a",
    "/./odd/a", "/../odd/a", "/odd/a/%2e", "/odd/a/..%2fa",
    "/odd/a/lock%2f", "/odd/a%2flock", "/odd/a%2Flock%2fbreak", "/odd/a/lock/break/",
]  # fmt: skip

# And some that are in nobody's way.
EVEN = ["/odd/b", "/odd", "/oddly/a", "/odd%20/a", "/odd/A", "/odd/a%20"]


def meanings(target):
    """Every path that some server could take a target for."""
    found = set()
    bare = urllib.parse.urlsplit(target).path if target.startswith("http:") else target
    starts = {bare, bare.partition("#")[0], bare.partition("?")[0]}
    starts |= {start.partition("?")[0] for start in starts}
    for path in starts:
        for decoded in {path, urllib.parse.unquote(path)}:
            for slashed in {decoded, decoded.replace("\\", "/")}:
                parts = []
                for part in slashed.split("/"):
                    if part == "..":
                        parts = parts[:-1]
                    elif part not in ("", "."):
                        parts.append(part.rstrip("\0"))
                found.add("/" + "/".join(parts))
    return found


def odd_paths(site):
    """Whatever a path is taken for, no write gets to what is locked."""
    site.lock("/odd/a")
    site.api.take()
    wrong, turned = [], 0
    for target in ODD + EVEN:
        for method in ["PUT", "POST", "PATCH"]:
            told = site.ask(method, target, body=b"{}")
            went = site.api.take()
            turned += not went
            for each in went:
                touched = [path for path in meanings(each.target) if is_at(path, "/odd/a")]
                if touched:
                    wrong.append(f"{method} {target}: came as {each.target}")
            if not went and not 400 <= told.status < 500 and not answered_here(target, told):
                wrong.append(f"{method} {target}: {told}")
    site.none(wrong, f"of {3 * len(ODD)} writes with odd paths none gets to what is locked")
    site.check(turned < 3 * (len(ODD) + len(EVEN)), f"{turned} were refused, the others pass")
    wrong = []
    for target in ODD:
        told = site.ask("GET", target)
        site.api.take()
        if told.status in (401, 403, 423) or told.status >= 500:
            wrong.append(f"GET {target}: {told}")
    site.none(wrong, "reads with odd paths are refused by no lock")


def is_at(path, resource):
    return path == resource or path.startswith(f"{resource}/")


def answered_here(target, told):
    """Whether Leasehold itself has answered, because the path is about a lock."""
    return told.status < 400 and any(path.endswith("/lock") for path in meanings(target))


def control(folder, kind, checks):
    """The same writes past a Leasehold that agrees to everything: else the rest shows nothing."""
    api, agreeing = Recorder(), Recorder()
    with kind(folder) as front:
        front.start(agreeing.port, api.port)
        for target in ODD:
            ask(front.port, "PUT", target, body=b"{}")
    came = [each.target for each in api.take()]
    touched = {each for each in came for path in meanings(each) if is_at(path, "/odd/a")}
    checks.check(
        len(touched) >= 10,
        f"{kind.program}: without the check {len(touched)} of these paths get to what is locked",
        came,
    )
