"""Manners towards servers: what a Retry-After means, and pauses that grow, differ between rows and are the same every time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from darkroom.data.hosts import LONGEST_WAIT, pause, retry_after


@pytest.mark.parametrize(
    ("header", "seconds"), [("120", 120), (" 0 ", 0), ("99999999999999", 999999999), ("soon", None), ("", None), (None, None), ("-5", None), ("1.5", None)]
)
def test_seconds(header: str | None, seconds: float | None) -> None:
    assert retry_after(header) == seconds


@pytest.mark.parametrize(("ahead", "expected"), [(90, 90), (-90, 0)])
def test_a_date(ahead: int, expected: float) -> None:
    begun = datetime.now(UTC)
    when = begun + timedelta(seconds=ahead)
    for header in (format_datetime(when, usegmt=True), when.strftime("%A, %d-%b-%y %H:%M:%S GMT"), when.strftime("%a %b %d %H:%M:%S %Y")):
        found, passed = retry_after(header), (datetime.now(UTC) - begun).total_seconds()
        assert found is not None and expected - passed - 1 <= found <= expected, f"RFC 9110's three forms, of whole seconds: {header}"


def test_pauses_grow_and_spread_and_repeat() -> None:
    rows = [f"https://a/{n}.png" for n in range(50)]
    for attempt in range(1, 4):
        pauses = [pause(1.0, attempt, row) for row in rows]
        assert all(2 ** (attempt - 1) * 0.5 <= each <= 2 ** (attempt - 1) * 1.5 for each in pauses)
        assert max(pauses) - min(pauses) > 0.5 * 2 ** (attempt - 1), "rows that failed at once do not come back at once"
        assert pauses == [pause(1.0, attempt, row) for row in rows]
    assert pause(1.0, 20, rows[0]) == LONGEST_WAIT
