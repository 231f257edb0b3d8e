"""As much of HTTP/2 as it takes to ask, and then to take nothing (RFC 9113, RFC 7541)."""

import socket
import struct
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
ACK = END_STREAM = 1
END_HEADERS = 4
INITIAL_WINDOW_SIZE = 4
# Entries of HPACK's static table, and the bit of a field that is one of them as a whole.
AUTHORITY, METHOD_GET, PATH, SCHEME_HTTP, STATUS_200 = 1, 2, 4, 6, 8
INDEXED = 0x80


def literal(name, value):
    """A field whose name is in the static table, and whose value is shorter than 127 octets."""
    return bytes([name, len(value)]) + value.encode()


class Streams:
    """A connection whose streams may be sent `window` octets each until more is allowed."""

    def __init__(self, port, window):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.read_ahead = b""
        self.next = 1
        # By stream: the first octet of its answer's head, which tells its status.
        self.heads = {}
        self.ended = set()
        self.reset = set()
        self.sock.sendall(PREFACE)
        self.send(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, window))

    def send(self, kind, flags, stream, payload):
        length = struct.pack(">I", len(payload))[1:]
        self.sock.sendall(length + struct.pack(">BBI", kind, flags, stream) + payload)

    def get(self, path):
        """Asks for `path` on a stream of its own; the stream."""
        stream, self.next = self.next, self.next + 2
        fields = bytes([INDEXED | METHOD_GET, INDEXED | SCHEME_HTTP])
        fields += literal(AUTHORITY, "test") + literal(PATH, path)
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, fields)
        return stream

    def open_window(self, stream, more=1 << 20):
        self.send(WINDOW_UPDATE, 0, stream, struct.pack(">I", more))

    def is_ok(self, stream):
        return self.heads.get(stream) == INDEXED | STATUS_200

    def read(self, seconds, enough):
        """Takes what comes until `enough()`, or the time is up; whether it was enough."""
        end = time.monotonic() + seconds
        while not enough():
            left = end - time.monotonic()
            if left <= 0:
                return False
            self.sock.settimeout(left)
            try:
                more = self.sock.recv(65536)
            except TimeoutError:
                return False
            if not more:
                return False
            self.read_ahead += more
            self.take_frames()
        return True

    def take_frames(self):
        while len(self.read_ahead) >= 9:
            length = int.from_bytes(self.read_ahead[:3], "big")
            if len(self.read_ahead) < 9 + length:
                return
            kind, flags, stream = struct.unpack(">BBI", self.read_ahead[3:9])
            payload = self.read_ahead[9 : 9 + length]
            self.read_ahead = self.read_ahead[9 + length :]
            if kind == HEADERS:
                self.heads.setdefault(stream, payload[0])
            if kind in (HEADERS, DATA) and flags & END_STREAM:
                self.ended.add(stream)
            if kind == RST_STREAM:
                self.reset.add(stream)
            if kind in (SETTINGS, PING) and not flags & ACK:
                self.send(kind, ACK, 0, payload if kind == PING else b"")

    def close(self):
        self.sock.close()
