"""What the black-box tests share: a server process, a client, and checks that are told one a line.

A test is a program: it prints `ok` or `FAIL` for each check, ends with `N passed, N failed`, and
exits with 1 when something failed. The server is the program that LEASEHOLD_BIN names (or
LEASEHOLD, or else target/release/leasehold). Everything happens in one temporary folder and on
loopback.
"""

import argparse
import http.client
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def binary():
    named = os.environ.get("LEASEHOLD_BIN") or os.environ.get("LEASEHOLD")
    path = Path(named) if named else ROOT / "target/release/leasehold"
    if not path.exists():
        sys.exit(f"there is no {path}: build it with `cargo build --release -p leasehold-cli`")
    return str(path.resolve())


def options(description, **numbers):
    """Reads the command line: each of `numbers` is an option with its default."""
    parser = argparse.ArgumentParser(description=description)
    for name, default in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder")
    return parser.parse_args()


# ------------------------------------------------------------------------------------------------
# Checks


class Checks:
    """Counts and tells what passed and failed. Safe to use from several threads."""

    def __init__(self):
        self.passed = 0
        self.failed = 0
        self.lock = threading.Lock()
        self.broken = []

    def check(self, holds, text, detail=""):
        with self.lock:
            if holds:
                self.passed += 1
                print(f"ok    {text}", flush=True)
            else:
                self.failed += 1
                shown = f": {detail}" if detail else ""
                print(f"FAIL  {text}{shown}", flush=True)
        return bool(holds)

    def none(self, problems, text):
        """Passes when the list of problems is empty, and shows the first of them otherwise."""
        problems = list(problems)
        detail = "; ".join(str(each) for each in problems[:5])
        if len(problems) > 5:
            detail += f"; and {len(problems) - 5} more"
        return self.check(not problems, text, detail)

    def attempt(self, text, scenario, *arguments):
        """Runs a scenario; one that cannot go on, because the server has gone, has failed."""
        try:
            scenario(*arguments)
        except (Lost, RuntimeError, OSError) as error:
            self.check(False, f"{text} could be carried out", repr(error))

    def note(self, text):
        with self.lock:
            print(f"      {text}", flush=True)

    def finish(self):
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        sys.exit(1 if self.failed or not self.passed else 0)


class Folder:
    """A temporary folder that goes away at the end, also after a failure."""

    def __init__(self, keep=False, parent=None):
        self.keep = keep
        self.path = Path(tempfile.mkdtemp(prefix="leasehold-test-", dir=parent))

    def __enter__(self):
        return self.path

    def __exit__(self, *_):
        if self.keep:
            print(f"      kept: {self.path}")
        else:
            shutil.rmtree(self.path, ignore_errors=True)


# ------------------------------------------------------------------------------------------------
# The client


class Lost(Exception):
    """No answer: whether the request took effect is not known."""


class Answer:
    def __init__(self, status, headers, body, sent, received):
        self.status = status
        self.headers = headers
        self.body = body
        self.sent = sent
        self.received = received

    def json(self):
        return json.loads(self.body)

    def problem(self):
        """The name of a refusal; empty when it is none."""
        try:
            return self.json().get("type", "").rsplit("/", 1)[-1]
        except (ValueError, AttributeError):
            return ""

    def __repr__(self):
        return f"{self.status} {self.problem()} {self.body[:160]!r}"


class Client:
    """One connection, made again after a failure. For one thread."""

    def __init__(self, port, timeout=20.0):
        self.port = port
        self.timeout = timeout
        self.connection = None

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def ask(self, method, path, body=None, token=None, key=None, headers=None, timeout=None):
        given = dict(headers or {})
        if token:
            given["X-Lock-Token"] = token
        if key:
            given["Idempotency-Key"] = key
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            given.setdefault("Content-Type", "application/json")
        sent = time.monotonic()
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection(
                    "127.0.0.1", self.port, timeout=self.timeout
                )
                self.connection.connect()
            self.connection.sock.settimeout(timeout or self.timeout)
            self.connection.request(method, path, body=body, headers=given)
            response = self.connection.getresponse()
            content = response.read()
            received = time.monotonic()
            found = {name.lower(): value for name, value in response.getheaders()}
            if response.will_close:
                self.close()
            return Answer(response.status, found, content, sent, received)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Lost(repr(error)) from error

    def acquire(self, resource, ttl=60, key=None, wait=None, timeout=None, **body):
        headers = {"Prefer": f"wait={wait}"} if wait else {}
        body["ttl_seconds"] = ttl
        return self.ask(
            "POST", f"{resource}/lock", body, key=key, headers=headers, timeout=timeout
        )

    def renew(self, resource, token, ttl=None):
        body = {} if ttl is None else {"ttl_seconds": ttl}
        return self.ask("PATCH", f"{resource}/lock", body, token=token)

    def release(self, resource, token):
        return self.ask("DELETE", f"{resource}/lock", token=token)

    def inspect(self, resource):
        return self.ask("GET", f"{resource}/lock")

    def get(self, resource):
        return self.ask("GET", resource)

    def put(self, resource, value, token=None, headers=None):
        return self.ask("PUT", resource, value, token=token, headers=headers)


class Insistent(Client):
    """Takes a 503 for no answer, too."""

    def ask(self, *arguments, **named):
        answer = super().ask(*arguments, **named)
        if answer.status == 503:
            raise Lost(f"{answer}")
        return answer


def until(condition, seconds, pause=0.02):
    """Waits until `condition` gives something true, and gives it; None when the time is up."""
    end = time.monotonic() + seconds
    while True:
        try:
            found = condition()
        except Lost:
            found = None
        if found:
            return found
        if time.monotonic() > end:
            return None
        time.sleep(pause)


# ------------------------------------------------------------------------------------------------
# The server


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def clean_environment():
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEASEHOLD")}
    kept.pop("RUST_LOG", None)
    return kept


class Server:
    """A server process over one data folder. Start it again after it has ended."""

    def __init__(
        self, data, port=None, arguments=(), environment=None, log=None, handles=None
    ):
        self.data = Path(data)
        self.port = port or free_port()
        self.arguments = list(arguments)
        self.environment = environment or {}
        self.log = Path(log) if log else self.data.with_name(self.data.name + ".log")
        # The most file handles that it may have; None: as many as this process.
        self.handles = handles
        self.process = None

    def spawn(self):
        assert self.process is None
        command = [binary(), "serve", "--listen", f"127.0.0.1:{self.port}"]
        command += ["--data", str(self.data), *self.arguments]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**clean_environment(), **self.environment},
                # Python ignores SIGXFSZ, and so does then the server: a write beyond a limit of
                # the file size is an error, not a signal.
                restore_signals=False,
                preexec_fn=self.limit_handles if self.handles else None,
            )
        return self

    def start(self, seconds=30.0):
        self.spawn()
        client = Client(self.port, timeout=2.0)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                code = self.process.returncode
                self.process = None
                raise RuntimeError(f"the server ended with {code}: {self.last_log()}")
            try:
                if client.ask("GET", "/-/health/ready").status == 200:
                    client.close()
                    return self
            except Lost:
                pass
            time.sleep(0.01)
        raise RuntimeError(f"the server was not ready in {seconds} s: {self.last_log()}")

    def client(self, timeout=20.0):
        return Client(self.port, timeout)

    def last_log(self, lines=8):
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return " | ".join(text.splitlines()[-lines:])

    def kill(self):
        """kill -9, and waits until it is gone."""
        self.process.kill()
        self.process.wait()
        self.process = None

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def limit_handles(self):
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.handles, self.handles))

    def limit_file_size(self, size):
        soft = resource.RLIM_INFINITY if size is None else size
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))

    def stop(self, seconds=15.0):
        """SIGTERM: its exit code and how long it took; kills it when it does not end."""
        began = time.monotonic()
        self.process.terminate()
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = None
        self.process = None
        return code, time.monotonic() - began

    def end(self):
        if self.process is not None:
            self.kill()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


def run(*arguments, seconds=120):
    """Runs the program with these arguments: code, standard output, standard error."""
    done = subprocess.run(
        [binary(), *[str(each) for each in arguments]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=seconds,
    )
    return done.returncode, done.stdout, done.stderr


def head(data):
    code, out, err = run("audit", "head", "--data", data)
    if code != 0:
        raise RuntimeError(f"audit head: {code} {err}")
    return out.strip()


def verify(data, kept=None):
    """What is wrong with the trail; empty when it verifies, also against a head kept before."""
    more = ["--head", kept] if kept else []
    code, out, err = run("audit", "verify", "--data", data, *more)
    return [] if code == 0 else [f"audit verify {' '.join(more)}: exit {code}: {out} {err}".strip()]


def trail(data, *arguments):
    """The events of the trail, oldest first."""
    code, out, err = run("audit", "query", "--json", "--limit", 0, "--data", data, *arguments)
    if code != 0:
        raise RuntimeError(f"audit query: {code} {err}")
    return [json.loads(line) for line in out.splitlines() if line.strip()]


class Crew:
    """Threads that run until they are told to stop, and whose failures are not lost."""

    def __init__(self, jobs):
        self.stopping = threading.Event()
        self.failures = []
        self.threads = [threading.Thread(target=self._run, args=(job,)) for job in jobs]
        for thread in self.threads:
            thread.start()

    def _run(self, job):
        try:
            job(self.stopping)
        except Exception as error:  # noqa: BLE001 - told by whoever joins
            import traceback

            self.failures.append("".join(traceback.format_exception(error)).strip())

    def join(self, seconds=60):
        self.stopping.set()
        for thread in self.threads:
            thread.join(seconds)
            if thread.is_alive():
                self.failures.append("a client did not end")
        return self.failures
