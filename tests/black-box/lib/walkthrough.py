"""Walks through console blocks of a document: what they print, against what it says they print.

What differs from run to run (tokens, ids, times) is compared by its shape only.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
README = ROOT / "README.md"
PROGRAM = os.environ.get("LEASEHOLD", str(ROOT / "target/release/leasehold"))
BLOCK = re.compile(r"(?<=```console\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)
MARK = "--- the next command ---"


def commands(block):
    """The commands of a block, and what is printed after each."""
    found = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return [(command, "\n".join(printed)) for command, printed in found]


def serve(data, arguments):
    server = subprocess.Popen(
        [PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data", data, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("LEASEHOLD_")},
    )
    address = re.search(r"http://(\S+)", server.stdout.readline())
    if not address:
        sys.exit("the server did not say where it listens")
    return server, address.group(1)


def run(blocks, *arguments):
    """What each command of each block prints, with a server of these further arguments."""
    with tempfile.TemporaryDirectory() as folder:
        data = folder + "/leasehold-data"
        server, address = serve(data, arguments)
        try:
            script = ["set -u", "curl() { command curl --no-progress-meter --max-time 30 \"$@\"; }"]
            for block in blocks:
                for command, _ in commands(block):
                    script.append(command.replace("localhost:7423", address))
                    script.append(f"printf '\\n{MARK}\\n'")
            path = os.path.dirname(os.path.abspath(PROGRAM)) + ":" + os.environ["PATH"]
            done = subprocess.run(
                ["bash", "-c", "\n".join(script)],
                cwd=folder,
                env={**os.environ, "PATH": path, "LEASEHOLD_DATA": data},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=120,
            )
        finally:
            server.terminate()
            code = server.wait(timeout=30)
        if code != 0:
            sys.exit(f"the server ended with {code}")
    outputs = done.stdout.replace("\r", "").split(f"\n{MARK}\n")[:-1]
    return [re.sub(r"\n{2,}", "\n\n", output).strip("\n") for output in outputs]


SHAPES = [
    (r"lock_[A-Za-z0-9_-]{70,}", "TOKEN"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID"),
    (r'"[0-9a-f]{8}-(\d+)"', r'"ETAG-\1"'),
    (r"[0-9a-f]{6,16}-\d+", "REQUEST"),
    (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "TIME"),
    (r"\w{3}, \d\d \w{3} \d{4} [0-9:]{8} GMT", "DATE"),
    (r'("(expires_in_ms|waited_ms)": ?)\d+', r"\1N"),
    (r"\b\d+ s\b", "N s"),
    (r"(?i)(content-length: )\d+", r"\1N"),
    # A minute that ends meanwhile writes its refusals down, and moves the numbers.
    (r"(?m)^\d+  TIME  refused  .*\n?", ""),
    (r"(?m)^\d+(?=  TIME  )", "SEQ"),
]


def shape(text):
    for pattern, name in SHAPES:
        text = re.sub(pattern, name, text)
    return text
