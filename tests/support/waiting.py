"""Waiting for what another process or thread does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def until(what: Callable[[], Any], seconds: float = 300.0) -> Any:
    """What it answers once that is true. The limit guards against hanging; a slow machine is no mistake."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come to it in time"
        time.sleep(0.02)
    return found
