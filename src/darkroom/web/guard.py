"""Who may ask: this machine's own pages, or whoever has the token. It stands before everything else, and looks at no body. What it lets in is answered
inside the fence (`darkroom.fence`).

Host                     must be one that the studio answers to: a name that was bent to 127.0.0.1 (DNS rebinding) is none
Origin, Sec-Fetch-Site   another site's page can send requests but not read answers; it may do neither, but link to a page
X-Darkroom               every request that changes anything carries it; no form of another site can
token                    wherever the address is not this machine's own
Content-Length           before a byte is read
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from darkroom.fence import Fence, within
from darkroom.web.answer import told

Scope = dict[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

COOKIE = "darkroom"
SAFE = ("GET", "HEAD")
LARGEST = 1 << 20
"""Bytes of a request's body, uploads excepted, which have limits of their own."""
UPLOADS = "/api/uploads/"
OWN_NAMES = ("127.0.0.1", "localhost", "::1")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; font-src 'self'; frame-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Door:
    """What is let in."""

    host: str = "127.0.0.1"
    token: str = ""
    """"": none is asked for; only on loopback."""
    names: tuple[str, ...] = ()
    """Other names that the studio is called by, as behind a tunnel."""
    largest: int = LARGEST
    known: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        own = {self.host, *self.names, *(OWN_NAMES if is_loopback(self.host) else (*OWN_NAMES, socket.gethostname().lower()))}
        object.__setattr__(self, "known", frozenset(name.lower().strip("[]") for name in own))

    def answers_to(self, header: str) -> bool:
        """Whether a Host header names this studio. Elsewhere than on loopback any bare address will do: it cannot be bent."""
        name = _hostname(header)
        if name in self.known:
            return True
        if is_loopback(self.host):
            return False
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return False


def _hostname(header: str) -> str:
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


class Guard:
    """ASGI middleware."""

    def __init__(self, app: Any, door: Door, fence: Fence) -> None:
        self.app, self.door, self.fence = app, door, fence

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # no websocket is spoken here
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        refused = self._refused(scope, headers)
        if refused is None and self.door.token and not self._knows(scope, headers):
            refused = (401, "This studio asks for its token: it was printed where `darkroom studio` was started.")
        if refused is not None:
            await told(*refused, page=_wants_page(scope, headers))(scope, receive, _dressed(send))
            return
        limit = None if scope["path"].startswith(UPLOADS) else self.door.largest
        with within(self.fence):
            await self.app(scope, _bounded(receive, limit), _dressed(send))

    def _refused(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Why not: code and words."""
        method, path = scope["method"], scope["path"]
        if not self.door.answers_to(headers.get("host", "")):
            return 421, f"This studio does not answer to the name {_short(headers.get('host', ''))}. Start it with --name to allow one."
        if "\\" in path or "\0" in path or ".." in path.split("/"):
            return 400, "An address that leads upwards is not followed."
        if method not in (*SAFE, "POST", "PUT", "DELETE"):
            return 405, f"{_short(method)} is not spoken here."
        if (foreign := self._foreign(scope, headers)) is not None:
            return foreign
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            return 400, "Content-Length is no number."
        if not path.startswith(UPLOADS) and int(length) > self.door.largest:
            return 413, f"{int(length):,} bytes are too many here: at most {self.door.largest:,}."
        return None

    def _foreign(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Requests of other sites' pages."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        method = scope["method"]
        if origin is not None and not _same(origin, headers.get("host", ""), scope.get("scheme", "http")):
            return 403, f"A page of {_short(origin)} may not ask here."
        if method in SAFE:
            opens = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
            api = scope["path"].startswith("/api/")
            return None if site in (None, "same-origin", "none") or (opens and not api) else (403, "Another site's page may link to the studio, no more.")
        if site not in (None, "same-origin"):
            return 403, "Another site's page may not change anything here."
        login = scope["path"] == "/login" and (origin is not None or site == "same-origin")
        if headers.get("x-darkroom") != "1" and not login:
            return 403, "The header X-Darkroom: 1 is missing, which the studio's own pages send."
        return None

    def _knows(self, scope: Scope, headers: dict[str, str]) -> bool:
        if scope["path"] == "/login" or scope["path"].startswith("/static/"):
            return True
        given = headers.get("authorization", "").removeprefix("Bearer ")
        try:
            jar = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            jar = SimpleCookie()
        held = jar[COOKIE].value if COOKIE in jar else ""
        return any(same_token(text, self.door.token) for text in (given, held))


def same_token(given: str, token: str) -> bool:
    """Whether a token is the right one, in a time that tells nothing of where it differs."""
    return hmac.compare_digest(given.encode(), token.encode())


def token_of(query: str) -> str:
    """?token=... of an address."""
    return parse_qs(query).get("token", [""])[0]


def _same(origin: str, host: str, scheme: str) -> bool:
    try:
        parts = urlsplit(origin)
        return parts.scheme in (scheme, "https") and parts.netloc.lower() == host.lower() != ""
    except ValueError:
        return False


def _wants_page(scope: Scope, headers: dict[str, str]) -> bool:
    return scope["method"] in SAFE and not scope["path"].startswith("/api/") and "text/html" in headers.get("accept", "")


def _short(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:60])


def _bounded(receive: Receive, limit: int | None) -> Receive:
    """A body in pieces (chunked) says no length: it is counted as it comes."""
    if limit is None:
        return receive
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            from starlette.exceptions import HTTPException

            raise HTTPException(413, f"More than {limit:,} bytes are too many here.")
        return message

    return counted


def _dressed(send: Send) -> Send:
    """Every answer with the headers that keep browsers from guessing, framing and telling."""

    async def dress(message: Message) -> None:
        if message["type"] == "http.response.start":
            have = {key.lower() for key, _ in message["headers"]}
            more = [*HEADERS, (b"content-security-policy", POLICY.encode()), (b"cache-control", b"no-store")]
            message = {**message, "headers": [*message["headers"], *(pair for pair in more if pair[0] not in have)]}
        await send(message)

    return dress
