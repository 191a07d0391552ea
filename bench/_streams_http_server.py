"""The servers of `streams_http.py`: one process, one arm.

    python bench/_streams_http_server.py outlast --port 8080 --directory /mnt/data

It prints a line when it listens. **bare** is a handler of starlette that reads the body and answers 204: it stores nothing.
**rakaia** is `rakaia-streams` with its store in files, which syncs each append. Both are served by uvicorn as it is, with
httptools on asyncio's own loop, and no log of accesses. **outlast** is a node on a server of ours, in a service.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from outlast import Stop


def say(port: int) -> None:
    sys.stdout.write(f"listening on {port}\n")
    sys.stdout.flush()


# A process imports what its arm needs.


def bare(_: Path) -> Any:  # noqa: ANN401 - an ASGI application
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    async def take(request: Request) -> Response:
        await request.body()
        return Response(status_code=204)

    return Starlette(routes=[Route("/v1/stream/{name}", take, methods=["PUT", "POST"])])


def rakaia(directory: Path) -> Any:  # noqa: ANN401 - an ASGI application
    from rakaia import create_app
    from rakaia.jsonl_store import JsonlStreamStore

    return create_app(JsonlStreamStore(directory))


async def serve(app: Any, port: int) -> None:  # noqa: ANN401 - an ASGI application
    """Serve by uvicorn as it is."""
    import uvicorn

    config = uvicorn.Config(
        app, port=port, loop="asyncio", http="httptools", lifespan="off", access_log=False, log_level="warning"
    )

    class Announced(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:  # noqa: ANN401 - as uvicorn has it
            await super().startup(sockets)
            say(port)

    await Announced(config).serve()


async def node(directory: Path, port: int) -> None:
    """Serve by a node on a server of ours, in a service."""
    import outlast
    from outlast.http import Limits, Server
    from outlast.streams import Node, Streams

    service = outlast.Service("bench")
    streams = Streams(directory)
    streams.attach(service)
    # All clients of the bench have one address.
    Server(Node(streams).attach(service), f"127.0.0.1:{port}", limits=Limits(connections_per_client_max=None)).attach(service)

    @service.task()
    async def announce(stop: Stop) -> None:
        say(port)
        await stop.wait()

    await service.run()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("arm", choices=["bare", "rakaia", "outlast"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True, help="where the streams are stored")
    options = parser.parse_args()
    options.directory.mkdir(exist_ok=True)
    if options.arm == "outlast":
        asyncio.run(node(options.directory, options.port))
    else:
        app = {"bare": bare, "rakaia": rakaia}[options.arm](options.directory)
        asyncio.run(serve(app, options.port))


if __name__ == "__main__":
    main()
