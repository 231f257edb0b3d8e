#!/usr/bin/env python3
"""An API that keeps sets, and knows nothing of locks.

A PUT lands some time after it has come, and is answered some time after that. A set is durable
before the PUT of it is answered; with it is kept under which fence each PUT has landed, so that a
test sees what came too late.
"""

import argparse
import json
import os
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Sets:
    """The sets, each a file: `members`, and the fences of the writes in the order of landing."""

    def __init__(self, folder, seed):
        self.folder = folder
        self.lock = threading.Lock()
        self.rng = random.Random(seed)

    def span(self, longest):
        """How long something takes: often next to nothing, at times up to `longest` seconds."""
        with self.lock:
            often = self.rng.random() < 0.4
            return self.rng.uniform(0, longest / 20 if often else longest)

    def file(self, path):
        return self.folder / (path.strip("/").replace("/", "-") + ".json")

    def read(self, path):
        try:
            return json.loads(self.file(path).read_text())
        except FileNotFoundError:
            return {"members": [], "fences": []}

    def land(self, path, members, fence):
        with self.lock:
            state = self.read(path)
            state["members"] = members
            state["fences"].append(fence)
            fresh = self.file(path).with_suffix(".new")
            with open(fresh, "w", encoding="utf-8") as file:
                json.dump(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.rename(fresh, self.file(path))
            handle = os.open(self.folder, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)


def handler(sets, longest):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Nagle's algorithm would hold the body of an answer up.
        disable_nagle_algorithm = True

        def do_GET(self):
            self.answer(200, json.dumps(sets.read(self.path)["members"]).encode())

        def do_PUT(self):
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if len(body) < length:
                # The client has gone within its body: nothing lands.
                self.close_connection = True
                return
            fence = self.headers["X-Lock-Fence"]
            time.sleep(sets.span(longest))
            sets.land(self.path, json.loads(body), fence and int(fence))
            time.sleep(sets.span(longest / 4))
            self.answer(204)

        def answer(self, status, body=b""):
            self.send_response(status)
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler


class Api(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *who):
        # A client that has gone before its answer is nobody's mistake.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(*who)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--longest", type=float, default=0.8, help="seconds until a PUT lands")
    chosen = parser.parse_args()
    chosen.folder.mkdir(exist_ok=True)
    sets = Sets(chosen.folder, chosen.seed)
    Api(("127.0.0.1", chosen.port), handler(sets, chosen.longest)).serve_forever()


if __name__ == "__main__":
    main()
