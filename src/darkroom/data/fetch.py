"""One file from the network: http, https, stores alone; certificates always verified; redirects, bytes, seconds bounded; tried again where that may help."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from darkroom import __version__
from darkroom.data.hosts import LONGEST_WAIT, TOLD_TO_WAIT, Hosts, pause, retry_after
from darkroom.data.part import begin, write
from darkroom.data.proof import Proof, Unusable
from darkroom.data.stored import bucket, is_stored, stored
from darkroom.errors import RecipeError

if TYPE_CHECKING:
    import httpx2

REDIRECTS = 10
STALL = 20.0
"""Seconds without a byte after which a server is given up."""
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 509, 520, 521, 522, 523, 524, 529})
"""Answers that another time may change; 52x are those of a content network in front of a server that is down."""
OPT_OUT = frozenset({"noai", "noimageai"})
HEADERS = {"User-Agent": f"darkroom/{__version__}", "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}


Check = Callable[[Path], Awaitable[Proof]]


class Elsewhere(Exception):
    """A redirect to a host that is not ours to ask."""

    def __init__(self, url: str, seen: tuple[str, ...]) -> None:
        super().__init__(url)
        self.url, self.seen = url, seen


@dataclass(frozen=True)
class Limits:
    """What a download may cost."""

    jobs: int = 16
    """Downloads at a time."""
    per_host: int = 6
    """Downloads at a time from one host."""
    timeout: float = 120.0
    """Seconds for one try at one file, from the first word to the last byte."""
    max_bytes: int = 64_000_000
    retries: int = 3
    """Tries after the first."""
    first_pause: float = 1.0
    """Seconds before the second try, doubled before each further one."""


class Fetcher:
    """Downloads that share connections and manners. Use it as `async with Fetcher(limits, check) as net`; nothing is set up before the first download."""

    def __init__(self, limits: Limits, check: Check) -> None:
        self.limits, self.check = limits, check
        self.hosts = Hosts(limits.jobs, limits.per_host)
        self.client: httpx2.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.client is not None:
            await self.client.aclose()

    def _connected(self) -> httpx2.AsyncClient:
        """The client, which verifies certificates against the system's authorities, or those of SSL_CERT_FILE. Raises RecipeError."""
        import httpx2

        if self.client is None:
            timeout = httpx2.Timeout(min(STALL, self.limits.timeout), pool=None)
            pool = httpx2.Limits(max_connections=None, max_keepalive_connections=self.limits.jobs, keepalive_expiry=10)
            no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
            try:
                self.client = httpx2.AsyncClient(headers=HEADERS, timeout=timeout, limits=pool, cookies=no_cookies)
            except (OSError, ValueError, ImportError) as error:
                raise RecipeError(f"The environment's SSL_CERT_FILE, SSL_CERT_DIR or HTTPS_PROXY cannot be used: {error}. Correct it or unset it.") from None
        return self.client

    async def fetch(
        self, address: str, to: Path, before: tuple[str, ...] = (), ours: Callable[[str], bool] = lambda host: True
    ) -> tuple[str, Proof]:  # fmt: skip
        """Bring the bytes of the URL into the file: the status, "200", and what the check found. Raises Unusable; OutputError where it cannot be written.

        The check holds the row's turn, so that files do not pile up that nobody has checked. `before` are the addresses that redirected here; a redirect to
        a host that is not `ours` is raised as Elsewhere.
        """
        for attempt in range(1, self.limits.retries + 2):
            try:
                return await self._once(address, to, before, ours)
            except Unusable as why:
                if not why.temporary or why.reason == TOLD_TO_WAIT or attempt > self.limits.retries:
                    raise
            await asyncio.sleep(pause(self.limits.first_pause, attempt, address))
        raise AssertionError("the last try returns or raises")

    async def _once(self, address: str, to: Path, before: tuple[str, ...], ours: Callable[[str], bool]) -> tuple[str, Proof]:
        """One try, through all its redirects."""
        if is_stored(address):
            return await self._from_store(address, to)
        url, seen = _url(address), [*before, address]
        while True:
            async with self.hosts.slot(url.host):
                following = await self._hop(url, to)
                if isinstance(following, str):
                    return following, await self._checked(to, following)
            if str(following) in seen:
                raise Unusable("redirects in a circle", f"back to {following}")
            if len(seen) > REDIRECTS:
                raise Unusable("too many redirects", f"more than {REDIRECTS}")
            if not ours(following.host):
                raise Elsewhere(str(following), tuple(seen))
            seen.append(str(following))
            url = following

    async def _from_store(self, address: str, to: Path) -> tuple[str, Proof]:
        async with self.hosts.slot(bucket(address)):
            try:
                async with asyncio.timeout(self.limits.timeout):
                    status = await stored(address, to, self.limits.max_bytes)
            except TimeoutError:
                raise Unusable("timed out", f"no whole file in {self.limits.timeout:g} seconds", temporary=True) from None
            return status, await self._checked(to, status)

    async def _checked(self, to: Path, status: str) -> Proof:
        try:
            return await self.check(to)
        except Unusable as why:
            raise Unusable(why.reason, why.detail, why.temporary, status) from None

    async def _hop(self, url: httpx2.URL, to: Path) -> str | httpx2.URL:
        """One request: the status where the file came, or where to go on. Turns what the client raises into Unusable."""
        import httpx2

        try:
            async with asyncio.timeout(self.limits.timeout), self._connected().stream("GET", url) as response:
                return await self._answer(response, to)
        except (TimeoutError, httpx2.TimeoutException) as error:
            waited = self.limits.timeout if isinstance(error, TimeoutError) else min(STALL, self.limits.timeout)
            what = "no whole file" if isinstance(error, TimeoutError) else "no answer or no byte"
            raise Unusable("timed out", f"{what} in {waited:g} seconds", temporary=True) from None
        except httpx2.ConnectError as error:
            raise _unreachable(error) from None
        except (httpx2.UnsupportedProtocol, httpx2.InvalidURL, httpx2.LocalProtocolError, UnicodeError, OverflowError) as error:
            raise Unusable("no address that can be asked", str(error)) from None
        except (httpx2.TransportError, httpx2.StreamError) as error:
            raise Unusable("broken off", str(error) or type(error).__name__, temporary=True) from None
        except OSError as error:  # what the client does not wrap
            raise Unusable("broken off", str(error), temporary=True) from None
        except httpx2.HTTPError as error:
            raise Unusable("an answer that cannot be read", str(error)) from None

    async def _answer(self, response: httpx2.Response, to: Path) -> str | httpx2.URL:
        code = response.status_code
        if response.is_redirect:
            return _redirect(response)
        if code != 200:
            raise self._refusal(response)
        if OPT_OUT & {word.strip() for word in response.headers.get("x-robots-tag", "").lower().replace(":", ",").split(",")}:
            raise Unusable("opted out of AI", f"X-Robots-Tag: {response.headers['x-robots-tag']}", status="200")
        await self._body(response, to)
        return str(code)

    async def _body(self, response: httpx2.Response, to: Path) -> None:
        most, size = self.limits.max_bytes, 0
        length = response.headers.get("content-length", "")
        if length.isdigit() and int(length) > most:
            raise Unusable("too large", f"{int(length):,} bytes; at most {most:,} (--max-size)", status="200")
        with begin(to) as file:
            async for piece in response.aiter_bytes():
                size += len(piece)
                if size > most:
                    raise Unusable("too large", f"more than {most:,} bytes (--max-size)", status="200")
                write(file, piece, to)

    def _refusal(self, response: httpx2.Response) -> Unusable:
        """What an answer other than 200 means; a host that asks for a wait is given it."""
        code, host = response.status_code, response.url.host
        temporary = code in AGAIN
        asked = retry_after(response.headers.get("retry-after")) if code in (429, 503) else None
        if asked is not None:
            self.hosts.close(host, asked)
            if asked > LONGEST_WAIT:
                return Unusable(TOLD_TO_WAIT, f"{host}: HTTP {code}, for {asked:.0f} seconds; `--retry` after that", True, str(code))
        return Unusable(f"HTTP {code}", response.reason_phrase, temporary, str(code))


def _url(address: str) -> httpx2.URL:
    import httpx2

    try:
        url = httpx2.URL(f"https:{address}" if address.startswith("//") else address)
    except httpx2.InvalidURL as error:
        raise Unusable("no address that can be asked", str(error)) from None
    if url.scheme not in ("http", "https") or not url.host:
        raise Unusable("no address that can be asked", f"{url.scheme or 'no scheme'}: http, https and stores as s3:// are read")
    if not 0 < (url.port or 80) < 65536:
        raise Unusable("no address that can be asked", f"there is no port {url.port}")
    return url


def _redirect(response: httpx2.Response) -> httpx2.URL:
    """Where the answer leads. Never to another scheme than http and https, and from https never to http."""
    code, here, location = response.status_code, response.url, response.headers["location"]
    try:
        there = _url(str(here.join(location)))
    except Unusable as why:
        raise Unusable("a redirect that is not followed", f"to {location[:200]}: {why.detail}", status=str(code)) from None
    except Exception as error:  # InvalidURL, and what a library makes of an address made to hurt
        raise Unusable("a redirect that is not followed", f"to {location[:200]!r}: {error}", status=str(code)) from None
    if here.scheme == "https" and there.scheme == "http":
        raise Unusable("a redirect that is not followed", f"from https to {str(there)[:200]}, which is not verified", status=str(code))
    return there


def _unreachable(error: Exception) -> Unusable:
    """Why no connection came about. A certificate that does not verify will not verify the next time either."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Unusable("certificate does not verify", str(getattr(cause, "verify_message", "") or cause))
        cause = cause.__cause__ or cause.__context__
    return Unusable("no connection", str(error), temporary=True)
