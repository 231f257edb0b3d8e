#!/usr/bin/env python3
"""An API with large bodies, that keeps nothing.

`GET /bytes/N` is N bytes with a length, `GET /chunks/N` the same without one. A PUT is answered
with the length and the checksum of its body. Everything else is a small document.
"""

import argparse
import asyncio
import random
import zlib

BLOCK = random.Random(1).randbytes(1 << 20)


def blocks(count):
    """The first `count` bytes of the endless body, in blocks."""
    while count > 0:
        yield BLOCK[:count]
        count -= len(BLOCK)


def checksum(count):
    found = 0
    for block in blocks(count):
        found = zlib.crc32(block, found)
    return found


async def body_of(reader, fields):
    """The body of a request, in parts."""
    if fields.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            while size > 0:
                part = await reader.read(min(size, len(BLOCK)))
                if not part:
                    raise asyncio.IncompleteReadError(b"", size)
                size -= len(part)
                yield part
            await reader.readline()
        await reader.readline()
        return
    left = int(fields.get("content-length", 0))
    while left > 0:
        part = await reader.read(min(left, len(BLOCK)))
        if not part:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(part)
        yield part


async def answer(reader, writer):
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, path, _ = head[0].split(" ")
    lines = (line.partition(":") for line in head[1:] if line)
    fields = {name.lower(): value.strip().lower() for name, _, value in lines}
    length, found = 0, 0
    async for part in body_of(reader, fields):
        length += len(part)
        found = zlib.crc32(part, found)
    begin = "HTTP/1.1 200 OK\r\n"
    if method not in ("GET", "HEAD"):
        told = f"X-Length: {length}\r\nX-Checksum: {found}\r\n"
        writer.write(f"HTTP/1.1 204 No Content\r\n{told}\r\n".encode())
    elif path.startswith("/bytes/"):
        count = int(path.rpartition("/")[2])
        writer.write(f"{begin}Content-Length: {count}\r\n\r\n".encode())
        for block in blocks(count):
            writer.write(block)
            await writer.drain()
    elif path.startswith("/chunks/"):
        writer.write(f"{begin}Transfer-Encoding: chunked\r\n\r\n".encode())
        for block in blocks(int(path.rpartition("/")[2])):
            writer.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
    else:
        writer.write(f"{begin}Content-Length: 7\r\n\r\n{{\"n\":1}}".encode())
    await writer.drain()


async def serve(reader, writer):
    try:
        while True:
            await answer(reader, writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        # The other side has gone, between two requests or within one.
        pass
    finally:
        writer.close()


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    chosen = parser.parse_args()
    bounds = {"limit": 1 << 20, "backlog": 4096}
    server = await asyncio.start_server(serve, "127.0.0.1", chosen.port, **bounds)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
