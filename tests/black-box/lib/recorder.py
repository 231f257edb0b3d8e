"""An API that knows nothing of locks, and keeps what it is sent to the byte.

It is as trusting as an API can be: it answers every request with 200 and agrees to every upgrade. So
what should not come to it has to be kept from it by whatever stands in front.
"""

import socket
import threading


class Received:
    """One request, as it came."""

    def __init__(self, method, target, fields):
        self.method = method
        self.target = target
        self.fields = fields
        self.body = 0

    def all(self, name):
        """The values of a field; `_` in its name is the same as `-`, as it is behind CGI."""
        wanted = name.lower()
        return [value for each, value in self.fields if each.lower().replace("_", "-") == wanted]

    def __repr__(self):
        return f"{self.method} {self.target} {self.fields}"


class Recorder:
    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.received = []
        # The same in the order in which they were whole.
        self.finished = []
        threading.Thread(target=self._accept, daemon=True).start()

    def take(self):
        """What came since this was last asked."""
        with self.lock:
            taken, self.received, self.finished = self.received, [], []
        return taken

    def _accept(self):
        while True:
            sock, _ = self.listener.accept()
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        try:
            with sock, sock.makefile("rb") as reader:
                while self._one(sock, reader):
                    pass
        except OSError:
            # Whoever asked has gone; the tests look at what was asked.
            return

    def _one(self, sock, reader):
        line = reader.readline()
        if not line.strip():
            return False
        method, target, _ = line.decode("latin-1").rstrip("\r\n").split(" ", 2)
        fields = []
        while (line := reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            fields.append((name, value.strip()))
        request = Received(method, target, fields)
        with self.lock:
            self.received.append(request)
        if request.all("Upgrade"):
            protocol = request.all("Upgrade")[0]
            sock.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                b"Upgrade: " + protocol.encode() + b"\r\n\r\n"
            )
            while more := reader.read1(65536):
                sock.sendall(more)
            return False
        if request.all("Expect"):
            sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.body = self._body(reader, request)
        with self.lock:
            self.finished.append(request)
        sock.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-From: the API\r\n"
            b"Content-Length: 3\r\n\r\n" + (b"" if method == "HEAD" else b"ok\n")
        )
        return True

    @staticmethod
    def _body(reader, request):
        """Reads the body, and gives how long it was."""
        read = 0
        if request.all("Transfer-Encoding"):
            while size := int(reader.readline().split(b";")[0], 16):
                reader.read(size + 2)
                read += size
            reader.readline()
            return read
        left = int((request.all("Content-Length") or ["0"])[0])
        while left:
            more = reader.read1(min(left, 1 << 20))
            if not more:
                break
            left -= len(more)
            read += len(more)
        return read
