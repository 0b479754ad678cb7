"""What tests of merging and comparing share: the pocket model, its weights left in their files."""

from __future__ import annotations

import pytest

from darkroom import pocket
from darkroom.sdxl.unread import Unread


@pytest.fixture(scope="module")
def base():
    return Unread.open(pocket.folder(), name="pocket")


@pytest.fixture(scope="module")
def catalogue(base):
    return base.catalogue
