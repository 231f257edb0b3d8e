"""Requests whose every byte the test chooses, one a connection."""

import json
import socket

from harness import Lost


class Told:
    """An answer."""

    def __init__(self, raw):
        head, _, body = raw.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        self.fields = [tuple(line.split(": ", 1)) for line in lines[1:] if ": " in line]
        chunked = "chunked" in (self.field("Transfer-Encoding") or "")
        self.body = unchunked(body) if chunked else body

    def field(self, name):
        """The first field of this name."""
        found = (value for each, value in self.fields if each.lower() == name.lower())
        return next(found, None)

    def problem(self):
        """The problem document; empty when it is none."""
        if (self.field("Content-Type") or "").partition(";")[0] != "application/problem+json":
            return {}
        try:
            return json.loads(self.body)
        except ValueError:
            return {}

    def name(self):
        return self.problem().get("type", "").rsplit("/", 1)[-1]

    def __repr__(self):
        return f"{self.status} {self.fields} {self.body[:300]!r}"


def unchunked(body):
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        size = int(size.split(b";")[0], 16)
        if size == 0:
            break
        whole += body[:size]
        body = body[size + 2 :]
    return whole


def head(method, target, *fields, host="api.example"):
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n"


def connect(port, seconds=20):
    return socket.create_connection(("127.0.0.1", port), timeout=seconds)


def read(sock):
    """Everything until the end of the connection."""
    raw = b""
    try:
        while more := sock.recv(65536):
            raw += more
    except (ConnectionResetError, BrokenPipeError):
        # An answer that came before the reset counts.
        pass
    return raw


def final(raw):
    """An answer without those that only say to go on."""
    while raw.startswith(b"HTTP/1.1 100"):
        raw = raw.partition(b"\r\n\r\n")[2]
    return raw


def ask(port, method, target, *fields, body=b"", seconds=20):
    """Sends one request, and reads its answer."""
    fields = [*fields, "Connection: close"]
    if body:
        fields.append(f"Content-Length: {len(body)}")
    try:
        with connect(port, seconds) as sock:
            sock.sendall(head(method, target, *fields) + body)
            raw = read(sock)
    except OSError as error:
        raise Lost(repr(error)) from error
    raw = final(raw)
    if not raw.startswith(b"HTTP/"):
        raise Lost(f"no answer to {method} {target}: {raw[:80]!r}")
    return Told(raw)
