"""Whether the packages that parse and write HTTP are installed, in a version that has what we build on."""

from __future__ import annotations

import importlib
from typing import Final

USED: Final = ("_start_asgi_task", "connection_lost", "connection_made", "data_received", "on_body", "on_headers_complete")
"""The methods of uvicorn's protocol that are replaced or called here. One that is not public may go with any version."""


def check() -> None:
    """Raise `ImportError`, with the next step, unless a server can be made."""
    try:
        importlib.import_module("httptools")
        protocol = importlib.import_module("uvicorn.protocols.http.httptools_impl").HttpToolsProtocol
    except ImportError as exc:
        msg = f"outlast.http.Server needs uvicorn and httptools ({exc}): pip install 'outlast[server]'"
        raise ImportError(msg, name=exc.name) from exc
    missing = [name for name in USED if not hasattr(protocol, name)]
    if missing:
        version = importlib.import_module("uvicorn").__version__
        msg = f"uvicorn {version} is not one that outlast.http.Server knows ({', '.join(missing)}): pip install 'uvicorn==0.54.*'"
        raise ImportError(msg)
