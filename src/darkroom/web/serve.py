"""`darkroom studio`: the address is taken, said, and served until Ctrl-C. Jobs that run go on without it."""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from darkroom.errors import OutputError, RecipeError
from darkroom.files import writable_folder

PORT = 7860
"""Where people look for a page of this field: A1111's and gradio's."""
NEEDED = ("uvicorn", "starlette")
SHORTEST = 12
"""Characters of a token."""


@dataclass(frozen=True)
class Opening:
    """Where the studio is opened, and for whom."""

    workspace: Path
    folders: tuple[Path, ...] = ()
    host: str = "127.0.0.1"
    port: int = PORT
    token: str = ""
    names: tuple[str, ...] = ()


def serve(opening: Opening, ready: Callable[[str], None]) -> None:
    """Serve until it is stopped; `ready` is told the address once it is open. Raises RecipeError, OutputError."""
    try:
        import uvicorn

        from darkroom.web.app import create_app
        from darkroom.web.grounds import Grounds
        from darkroom.web.guard import Door, is_loopback
        from darkroom.web.studio import Studio
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        raise RecipeError(f"the studio needs {error.name}, which is not installed: pip install 'sdxl-darkroom[studio]'.") from None
    token = opening.token
    if token and len(token) < SHORTEST:
        raise RecipeError(f"--token: {len(token)} characters can be guessed. Take {SHORTEST} or more, or leave it out: one is made where it is needed.")
    if not token and not is_loopback(opening.host):
        token = secrets.token_urlsafe(24)
    folder = writable_folder(opening.workspace, "FOLDER")
    studio = Studio(Grounds.of(folder, list(opening.folders)), Door(opening.host, token, opening.names))
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(studio), log_level="warning", server_header=False, date_header=False, proxy_headers=False, ws="none", access_log=False,
            limit_concurrency=256, timeout_keep_alive=15, h11_max_incomplete_event_size=32 << 10, timeout_graceful_shutdown=2,
        )
    )  # fmt: skip
    logging.getLogger("uvicorn.error").addFilter(lambda record: "Invalid HTTP request" not in record.getMessage())
    with _bound(opening.host, opening.port) as bound:
        name = f"[{opening.host}]" if ":" in opening.host else opening.host
        port = bound.getsockname()[1]
        ready(f"http://{name}:{port}/" + (f"login?token={token}" if token else ""))
        server.run(sockets=[bound])


def _bound(host: str, port: int) -> socket.socket:
    """The address, taken. Raises OutputError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise OutputError(f"{host}:{port}: cannot be opened: {error.strerror}. Another studio may be there; choose another with --port, 0 for any.") from None
    bound.listen(128)
    return bound
