"""What the oracle tests share."""

from __future__ import annotations

import logging
from typing import Any

import pytest


@pytest.fixture(scope="module")
def lycoris() -> Any:
    found = pytest.importorskip("lycoris")
    logging.getLogger("LyCORIS").setLevel(logging.ERROR)
    return found
