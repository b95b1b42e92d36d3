"""A stand-in for the controller: ``python -m bench.gateway.link SOCKET TABLE`` sends the table, reads what is told."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path


async def _serve(path: str, table: bytes) -> None:
    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(table)
        while await reader.read(1 << 16):
            pass
        writer.close()

    server = await asyncio.start_unix_server(meet, path)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], Path(sys.argv[2]).read_bytes()))
