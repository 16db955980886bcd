"""Serve the page to this machine, and to nobody else."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import threading
import time
import webbrowser
import zlib
from collections.abc import Callable, Mapping
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
    label_studio: bool = False,
) -> None:
    """Serve the page of the campaign in a folder until Ctrl-C.

    `options` are those of `Session`. Without a port it is always
    the same one for a campaign, as long as it is free: then the browser still knows the
    page's settings. With `label_studio` the server is an ML backend of Label Studio as
    well, below a path that nobody can guess. An address lets one browser in, within a
    minute; each line on the standard input has another one printed.
    """
    try:
        import uvicorn
        from starlette.applications import Starlette
        from starlette.routing import Mount

        from ..label_studio.backend import Backend
        from .app import make_app
        from .guard import ONE_TIME_SECONDS
        from .protocol import LimitedProtocol
    except ImportError as error:
        raise ImportError(
            f"The page needs a package that is not there ({error}): "
            'pip install "skadma[label]"'
        ) from error
    from .session import Session

    with _listen(port, folder.absolute()) as listener, ExitStack() as ends:
        number = listener.getsockname()[1]
        session = Session(folder, options)
        ends.callback(session.close)
        app: Any
        app, guard = make_app(session, number)

        def make_address() -> str:
            return f"http://{ADDRESS}:{number}/#{guard.make_one_time_token()}"

        address = make_address()
        print(address, flush=True)
        print(
            "The address serves once, within a minute; Enter prints another. Ctrl-C "
            "ends the server; each label is safe at once.",
            flush=True,
        )
        if hasattr(signal, "SIGTTIN"):  # read in the background: no line, and no stop
            signal.signal(signal.SIGTTIN, signal.SIG_IGN)
        _in_thread(_print_addresses, make_address)
        if browser:
            page = session.campaign.folder / f"open-page-{number}.html"
            ends.callback(page.unlink, missing_ok=True)
            _in_thread(_open_browser, page, address, ONE_TIME_SECONDS)
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
            http=LimitedProtocol,
            loop="asyncio",
            timeout_graceful_shutdown=2,
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
        print("Ended.", flush=True)


def _in_thread(function: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=function, args=arguments, daemon=True).start()


def _print_addresses(make_address: Callable[[], str]) -> None:
    """Print an address for each line on the standard input."""
    with suppress(OSError, ValueError, AttributeError):  # there may be none
        stdin = sys.stdin.fileno()
        while os.read(stdin, 4096):
            print(make_address(), flush=True)


def _open_browser(page: Path, address: str, seconds: float) -> None:
    """Open the browser at an address that the machine's other users cannot read.

    They see the command line of a browser; so there is the name of a file that leads to
    the address, for as long as its token serves.
    """
    with suppress(OSError, webbrowser.Error):  # the address is printed, too
        page.unlink(missing_ok=True)
        file = os.open(page, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w") as text:
            text.write(
                '<!DOCTYPE html><meta charset="utf-8"><title>skadma label</title>'
                f'<meta http-equiv="refresh" content="0; url={address}">'
                f'<a href="{address}">Label</a>'
            )
        webbrowser.open(page.as_uri())
        time.sleep(seconds)
        page.unlink(missing_ok=True)


def _listen(port: int | None, folder: Path) -> socket.socket:
    usual = 20000 + zlib.crc32(str(folder).encode()) % 20000
    for number in (usual, 0) if port is None else (port,):
        with suppress(OSError, OverflowError):  # the latter: there is no such port
            return socket.create_server((ADDRESS, number), backlog=100)
    raise OSError(
        f"Port {port} is taken or not allowed. Give another one with --port, or none."
    )
