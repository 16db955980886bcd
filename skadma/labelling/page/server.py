"""Serve the page to this machine, and to nobody else."""

from __future__ import annotations

import secrets
import socket
import threading
import webbrowser
import zlib
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

ADDRESS = "127.0.0.1"


def serve(
    folder: Path,
    options: Mapping[str, Any],
    *,
    port: int | None = None,
    browser: bool = True,
    keys: Mapping[str, str] | None = None,
    repeat: float = 0,
    label_studio: bool = False,
) -> None:
    """Serve the page of the campaign in a folder until Ctrl-C.

    `options`, `keys` and `repeat` are those of `Session`. Without a port it is always
    the same one for a campaign, as long as it is free: then the browser still knows the
    page's settings. With `label_studio` the server is an ML backend of Label Studio as
    well, below a path that nobody can guess.
    """
    try:
        import uvicorn
        from starlette.applications import Starlette
        from starlette.routing import Mount

        from ..label_studio.backend import Backend
        from .app import make_app
    except ImportError as error:
        raise ImportError(
            f"The page needs a package that is not there ({error}): "
            'pip install "skadma[label]"'
        ) from error
    from .session import Session

    with _listen(port, folder.absolute()) as listener, ExitStack() as ends:
        number = listener.getsockname()[1]
        token = secrets.token_urlsafe(32)
        session = Session(folder, options, keys=keys, repeat=repeat)
        ends.callback(session.close)
        address = f"http://{ADDRESS}:{number}/#{token}"
        print(address, flush=True)
        print("Ctrl-C ends it. Each label is safe at once.", flush=True)
        if browser:
            threading.Thread(
                target=webbrowser.open, args=(address,), daemon=True
            ).start()
        app: Any = make_app(session, number, token)
        if label_studio:
            hosts = [f"{ADDRESS}:{number}", f"localhost:{number}"]
            backend = Backend(folder, hosts=hosts, **options)
            ends.callback(backend.close)
            path = f"/label-studio/{secrets.token_urlsafe(32)}"
            mounts = [Mount(path, routes=backend.routes()), Mount("", app)]
            app = Starlette(routes=mounts)
            print(f"For Label Studio: http://{ADDRESS}:{number}{path}", flush=True)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,  # it would hold names of pictures
            server_header=False,
            ws="none",
            http="h11",
            loop="asyncio",
            limit_concurrency=64,
            timeout_graceful_shutdown=2,
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
        print("Ended.", flush=True)


def _listen(port: int | None, folder: Path) -> socket.socket:
    usual = 20000 + zlib.crc32(str(folder).encode()) % 20000
    last: OSError | None = None
    for number in (usual, 0) if port is None else (port,):
        try:
            return socket.create_server((ADDRESS, number), backlog=100)
        except OSError as error:
            last = error
    raise OSError(
        f"Port {port} is taken or not allowed ({last}). Give another one with --port, "
        "or none."
    ) from last
