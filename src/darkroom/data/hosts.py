"""Manners towards servers: how many requests at a time, how long to wait when one says so, when to ask again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from darkroom.data.proof import Unusable
from darkroom.values import seed_for

LONGEST_WAIT = 60.0
"""Seconds that a row waits at most, for a server that asks for it or between two tries; a server that asks for more is left alone for this run."""
TOLD_TO_WAIT = "the server asks to wait"


class Hosts:
    """So many requests at a time in all and to each host, and none to a host before the time it asked for."""

    def __init__(self, jobs: int, per_host: int) -> None:
        self.per_host = per_host
        self.all = asyncio.Semaphore(jobs)
        self.slots: dict[str, asyncio.Semaphore] = {}
        self.closed_until: dict[str, float] = {}

    @contextlib.asynccontextmanager
    async def slot(self, host: str) -> AsyncIterator[None]:
        """Wait for a turn with the host. Raises Unusable where the host asked for a longer wait than a run allows."""
        async with self.slots.setdefault(host, asyncio.Semaphore(self.per_host)):
            await self._open(host)
            async with self.all:
                yield

    async def _open(self, host: str) -> None:
        while (wait := self.closed_until.get(host, 0.0) - time.monotonic()) > 0:
            if wait > LONGEST_WAIT:
                raise Unusable(TOLD_TO_WAIT, f"{host}: for {wait:.0f} more seconds; `--retry` after that", temporary=True)
            await asyncio.sleep(wait)

    def close(self, host: str, seconds: float) -> None:
        """Ask nothing of the host for so long."""
        self.closed_until[host] = max(self.closed_until.get(host, 0.0), time.monotonic() + seconds)


def retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or as an HTTP date (RFC 9110, 10.2.3); None where it says nothing that can be understood."""
    if not header:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


def pause(first: float, attempt: int, address: str) -> float:
    """Seconds before try number `attempt` + 1: doubled with each, times 0.5 to 1.5 as the address decides, so that rows do not come back all at once."""
    spread = 0.5 + (seed_for(0, "collect pause", address, attempt) % 10_000) / 10_000
    return min(LONGEST_WAIT, first * 2.0 ** (attempt - 1) * spread)
