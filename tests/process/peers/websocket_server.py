"""Echoes text, binary and pings; "close CODE" makes it close with that code. Says how each connection ended."""

import asyncio

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def echo(connection):
    try:
        while True:
            message = await connection.recv()
            if isinstance(message, str) and message.startswith("close "):
                await connection.close(int(message.split()[1]), "as asked")
            else:
                await connection.send(message)
    except ConnectionClosed as end:
        received = end.rcvd.code if end.rcvd else None
        print(f"closed {received}", flush=True)


async def main():
    async with serve(echo, "127.0.0.1", 0, max_size=None) as server:
        print(f"listening {server.sockets[0].getsockname()[1]}", flush=True)
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
