"""Talks to an echo server at the URL given, and prints what it has seen."""

import asyncio
import os
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def main(url):
    async with connect(url, max_size=None, open_timeout=20, proxy=None) as connection:
        await connection.send("grüße")
        assert await connection.recv() == "grüße"
        print("text")
        data = os.urandom(1 << 20)
        await connection.send(data)
        assert await connection.recv() == data
        print("binary")
        await asyncio.wait_for(await connection.ping(b"are you there"), 20)
        print("ping")
        await connection.close(4001, "enough")
    async with connect(url, open_timeout=20, proxy=None) as connection:
        await connection.send("close 4002")
        try:
            await connection.recv()
        except ConnectionClosed as end:
            print(f"closed {end.rcvd.code} {end.rcvd.reason}")


asyncio.run(main(sys.argv[1]))
