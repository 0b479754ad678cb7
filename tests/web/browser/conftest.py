"""A real Chromium, and a studio on loopback for it. Without Chromium (`make browser`) these tests are skipped."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from darkroom.web.studio import Studio

ARGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for a file's tests: while Playwright runs, no other test of this process could have an event loop."""
    if not CHROMIUM:
        pytest.skip("no Chromium here: `make browser` installs one")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=list(ARGS))
        yield opened
        opened.close()


@dataclass(frozen=True)
class Opened:
    """A studio that answers."""

    studio: Studio
    address: str
    workspace: Path


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """A studio of an empty workspace, in a thread of this process; its jobs are ended with it."""
    import uvicorn

    from darkroom.web.app import create_app
    from darkroom.web.grounds import Grounds
    from darkroom.web.guard import Door
    from darkroom.web.studio import Studio

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    studio = Studio(Grounds.of(workspace, []), Door())
    server = uvicorn.Server(uvicorn.Config(create_app(studio), port=0, log_level="warning", ws="none", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 120
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Opened(studio, f"http://127.0.0.1:{port}", workspace)
    end_jobs(studio)
    server.should_exit = True
    thread.join(60)


def end_jobs(studio: Studio) -> None:
    """Nothing of a test goes on after it."""
    for job in studio.line.list(200):
        if job["state"] in ("waiting", "running"):
            studio.line.cancel(job["id"])
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and any(job["state"] == "running" for job in studio.line.list(200)):
        time.sleep(0.1)


@pytest.fixture
def page(browser: Browser, opened: Opened) -> Iterator[Page]:
    """A page that fails its test where the browser complains of anything."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, base_url=opened.address)
    made = context.new_page()
    complaints: list[str] = []
    made.on("pageerror", lambda error: complaints.append(str(error)))
    made.on("console", lambda message: complaints.append(message.text) if message.type == "error" and "Failed to load resource" not in message.text else None)
    made.set_default_timeout(300_000)  # guards against hanging; a slow machine is no mistake
    yield made
    context.close()
    assert complaints == []
