"""The proxies that ask Leasehold, started with the very configuration that the documents show.

A page of docs/ has each file of a configuration in a block of its own, which begins with a comment
that is the file's name. What is changed here is what a test cannot share with the machine it runs
on: addresses, and where the proxy keeps its files.
"""

import os
import re
import shutil
import socket
import subprocess
import threading
from pathlib import Path

from harness import ROOT, free_port, until
from wire import ask

BLOCK = re.compile(r"^```\w+\n# ([\w.]+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LEASEHOLD = "127.0.0.1:7423"
API = "127.0.0.1:8080"


def documented(page):
    """The files that a page shows, by name."""
    text = (ROOT / "docs" / page).read_text()
    return {name: f"# {name}\n{body}" for name, body in BLOCK.findall(text)}


def replaced(text, *pairs):
    """`text` with other words; each of them has to be there, or the page has changed."""
    for old, new in pairs:
        if old not in text:
            raise RuntimeError(f"the page does not have {old!r} any more")
        text = text.replace(old, new)
    return text


class Relay:
    """Stands between a proxy and Leasehold, and counts what the proxy sends."""

    def __init__(self, port):
        self.to = port
        self.sent = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            near, _ = self.listener.accept()
            try:
                far = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                # What a port does that nobody listens on.
                near.close()
                continue
            for source, sink, counted in [(near, far, True), (far, near, False)]:
                threading.Thread(
                    target=self._pump, args=(source, sink, counted), daemon=True
                ).start()

    def _pump(self, source, sink, counted):
        try:
            while more := source.recv(65536):
                if counted:
                    with self.lock:
                        self.sent += len(more)
                sink.sendall(more)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for each in (source, sink):
                each.close()


class Front:
    """A proxy over an API and Leasehold."""

    # The page of docs/, the program, and how it is told its configuration.
    page = program = None
    # Whether it says 100 (Continue) to a request that it refuses; the body goes nowhere.
    says_continue = False
    # How much of the body of a request it reads before it says that it refuses it.
    reads_first = 0
    # For how many seconds it waits for Leasehold.
    patience = 5

    def __init__(self, folder):
        self.folder = Path(folder) / self.program
        self.port = free_port()
        self.process = None

    @classmethod
    def path(cls):
        return shutil.which(cls.program)

    def files(self, leasehold, api):
        """The files of the configuration, as they are for this run."""
        raise NotImplementedError

    def command(self):
        raise NotImplementedError

    def start(self, leasehold, api):
        self.folder.mkdir(exist_ok=True)
        for name, text in self.files(f"127.0.0.1:{leasehold}", f"127.0.0.1:{api}").items():
            (self.folder / name).write_text(text)
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [self.path(), *self.command()],
                cwd=self.folder,
                env={"HOME": str(self.folder), "PATH": "/usr/bin:/bin"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if not until(self._serves, 30):
            self.end()
            raise RuntimeError(f"{self.program} does not serve: {self.log()}")
        return self

    def _serves(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.program} has ended: {self.log()}")
        return ask(self.port, "GET", "/-/health/live").status == 200

    def log(self):
        return " | ".join((self.folder / "log").read_text(errors="replace").splitlines()[-8:])

    def end(self):
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


class Nginx(Front):
    page, program = "nginx.md", "nginx"
    says_continue = True

    def files(self, leasehold, api):
        text = documented(self.page)["nginx.conf"]
        kept = "".join(
            f"    {kind}_temp_path {self.folder}/{kind};\n"
            for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        )
        pairs = [
            ("http {\n", f"http {{\n    access_log off;\n{kept}"),
            ("listen 80;", f"listen 127.0.0.1:{self.port};"),
            (LEASEHOLD, leasehold),
            (API, api),
        ]
        return {"nginx.conf": replaced(text, *pairs)}

    def command(self):
        # Its workers give up the rights of root, and then could not write to the folder.
        user = "user root; " if os.geteuid() == 0 else ""
        globals_ = f"{user}daemon off; pid {self.folder}/pid; error_log stderr;"
        config = f"{self.folder}/nginx.conf"
        return ["-e", "stderr", "-p", str(self.folder), "-c", config, "-g", globals_]


class Caddy(Front):
    page, program = "caddy.md", "caddy"
    reads_first = 256 << 10

    def files(self, leasehold, api):
        text = documented(self.page)["Caddyfile"]
        # The administration of the machine's own Caddy is at a fixed port.
        pairs = [
            (":80 {\n", f"http://:{self.port} {{\n\tbind 127.0.0.1\n"),
            (LEASEHOLD, leasehold),
            (API, api),
        ]
        return {"Caddyfile": "{\n\tadmin off\n}\n" + replaced(text, *pairs)}

    def command(self):
        return ["run", "--adapter", "caddyfile", "--config", "Caddyfile"]


class Traefik(Front):
    page, program = "traefik.md", "traefik"
    patience = 30

    def files(self, leasehold, api):
        files = documented(self.page)
        static = replaced(files["traefik.yml"], ('":80"', f'"127.0.0.1:{self.port}"'))
        dynamic = replaced(files["dynamic.yml"], (LEASEHOLD, leasehold), (API, api))
        return {"traefik.yml": static, "dynamic.yml": dynamic}

    def command(self):
        return ["--configFile=traefik.yml"]


class Envoy(Front):
    page, program = "envoy.md", "envoy"

    def files(self, leasehold, api):
        def at(address):
            host, port = address.split(":")
            return f"address: {host}, port_value: {port}"

        pairs = [
            ("address: 0.0.0.0, port_value: 80 ", f"address: 127.0.0.1, port_value: {self.port} "),
            (at(LEASEHOLD), at(leasehold)),
            (at(API), at(api)),
            (LEASEHOLD, leasehold),
        ]
        return {"envoy.yaml": replaced(documented(self.page)["envoy.yaml"], *pairs)}

    def command(self):
        return ["-c", "envoy.yaml", "--concurrency", "1", "--use-dynamic-base-id", "-l", "warning"]
