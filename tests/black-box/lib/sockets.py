"""Bare sockets that speak HTTP/1.1 as badly as a test wants."""

import select
import socket
import time


def connect(port, receive=None):
    sock = socket.socket()
    if receive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    sock.settimeout(20)
    sock.connect(("127.0.0.1", port))
    return sock


def close_all(socks):
    for sock in socks:
        sock.close()


def request(method, path, *fields, body=b""):
    lines = [f"{method} {path} HTTP/1.1", "Host: test", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def read_all(socks, seconds, enough):
    """What each socket brings until `enough(what it brought)`, its end, or the time is up."""
    found = {sock: b"" for sock in socks}
    ended = set()
    poll = select.poll()
    by_number = {sock.fileno(): sock for sock in socks}
    for sock in socks:
        sock.setblocking(False)
        poll.register(sock, select.POLLIN)
    waiting = set(by_number)
    end = time.monotonic() + seconds
    while waiting and time.monotonic() < end:
        for number, _ in poll.poll(100):
            sock = by_number[number]
            try:
                more = sock.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                more = b""
            found[sock] += more
            if not more:
                ended.add(sock)
            if not more or enough(found[sock]):
                poll.unregister(number)
                waiting.discard(number)
    return found, ended


def whole(answer):
    """Whether these bytes have a head and all of the body that it announces."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        return False
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value) <= len(body)
    return True


def statuses(answers):
    counted = {}
    for answer in answers:
        status = answer[9:12].decode() or "none"
        counted[status] = counted.get(status, 0) + 1
    return counted
