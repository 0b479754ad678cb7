"""How the studio answers: JSON for scripts, a page for people, and every mistake in words."""

from __future__ import annotations

import html
import json
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from darkroom.errors import DarkroomError
from darkroom.fence import Outside
from darkroom.files import finite
from darkroom.web.grounds import Refused

PLAIN = {404: "There is nothing at this address.", 405: "This cannot be asked of this address."}


class Answer(JSONResponse):
    """JSON; NaN and infinity, which it does not have, become null, and bytes of a file's name that are no UTF-8 become "?"."""

    def render(self, content: Any) -> bytes:
        return json.dumps(finite(content), ensure_ascii=False, default=str, allow_nan=False, separators=(",", ":")).encode(errors="replace")


def told(code: int, message: str, kind: str = "Refused", page: bool = False) -> Response:
    """A mistake: {"error": MESSAGE, "kind": KIND}, or a plain page that says it."""
    message = message.encode(errors="replace").decode()  # a file's name need not be Unicode
    if page:
        login = '<form method="post" action="/login"><input name="token" type="password" aria-label="Token" autofocus><button>Open</button></form>'
        words = f"<h1>Darkroom</h1><p>{html.escape(message)}</p>{login if code == 401 else ''}"
        head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/static/darkroom.css">'
        return HTMLResponse(f'<!doctype html><html lang="en"><title>Darkroom</title>{head}<main class="plain">{words}</main></html>', code)
    return Answer({"error": message, "kind": kind}, code)


async def on_mistake(request: Request, error: Exception) -> Response:
    """The user's mistakes and what is refused, with their code; what nobody foresaw is a fault of ours."""
    match error:
        case Refused() | Outside():
            code, kind = 403, "Refused"
        case DarkroomError():
            code, kind = 400, type(error).__name__
        case HTTPException():
            code, kind = error.status_code, "Refused"
        case _:
            code, kind = 500, "Fault"
    message = PLAIN.get(code, error.detail) if isinstance(error, HTTPException) else str(error)
    if code == 500:
        message = f"This is a fault of Darkroom, not yours: {type(error).__name__}: {error}"
    return told(code, message, kind, page=not request.url.path.startswith("/api/") and "text/html" in request.headers.get("accept", ""))


async def body(request: Request) -> dict[str, Any]:
    """The JSON object that was sent. Raises Refused."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refused("A request with a body says Content-Type: application/json.")
    try:
        tree = json.loads(await request.body())
        json.dumps(tree, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise Refused("The body holds half a character: a text must be whole Unicode.") from None
    except (ValueError, RecursionError):
        raise Refused("The body is no JSON.") from None
    if not isinstance(tree, dict):
        raise Refused("The body must be a JSON object.")
    return tree


def text(tree: dict[str, Any], key: str, default: str | None = None, longest: int = 10_000) -> str:
    """A text of the body. Raises Refused where it is missing, none or too long."""
    value = tree.get(key, default)
    if not isinstance(value, str):
        raise Refused(f'"{key}" must be a text.')
    if len(value) > longest:
        raise Refused(f'"{key}" has {len(value):,} characters: at most {longest:,}.')
    return value


def texts(tree: dict[str, Any], key: str, most: int = 10_000) -> list[str]:
    """A list of texts of the body. Raises Refused."""
    value = tree.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) and len(item) <= 10_000 for item in value):
        raise Refused(f'"{key}" must be a list of texts.')
    if len(value) > most:
        raise Refused(f'"{key}" has {len(value):,} items: at most {most:,}.')
    return value


def number(tree: dict[str, Any], key: str, default: int, least: int, most: int) -> int:
    """A whole number of the body, or of a query, within bounds. Raises Refused."""
    value = tree.get(key, default)
    if isinstance(value, str) and value.lstrip("-").isdecimal() and len(value) < 12:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Refused(f'"{key}" must be a whole number from {least} to {most}.')
    return value
