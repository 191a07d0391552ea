"""A client needs httpx2 and nothing else: no store, no server."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"google_crc32c", "uvicorn", "starlette", "httptools", "psycopg", "typer", "rich"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())

import asyncio
import httpx2
from outlast.streams import BlockingClient, Client, StreamClosedError, TrimmedError

answers = {
    "PUT": httpx2.Response(201, headers={"stream-next-offset": "a"}),
    "POST": httpx2.Response(200, headers={"stream-next-offset": "b"}),
}

async def main():
    library = httpx2.AsyncClient(transport=httpx2.MockTransport(lambda request: answers[request.method]), trust_env=False)
    async with Client("http://node", client=library) as client:
        orders = await client.create("orders", content_type="application/json")
        print((await orders.append({"id": 1})).next)

asyncio.run(main())
BlockingClient("http://node").close()
"""


def test_a_client_works_with_httpx2_alone() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "b\n"), done.stderr
