"""Questions that a command answers without changing anything: asked in a process of its own, so that the server never loads a model.

facts = await ask(studio, ["train", "cat-lora", "--images", "cats", "--check"])
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from darkroom import errors
from darkroom.errors import DarkroomError, RunError
from darkroom.fence import variable
from darkroom.jobs.queue.launch import environment
from darkroom.web.studio import Studio

AT_ONCE = asyncio.Semaphore(2)
LONGEST = 180.0
"""Seconds."""


async def ask(studio: Studio, argv: Sequence[str], longest: float = LONGEST) -> dict[str, Any]:
    """What the command says with --json. Raises what the command complains of, as the same error; RunError where it takes too long or breaks."""
    async with AT_ONCE:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "darkroom", *argv, "--json", cwd=studio.grounds.workspace,
            env=environment() | variable(studio.grounds.roots) | {"OMP_NUM_THREADS": "1"},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            said, _ = await asyncio.wait_for(process.communicate(), longest)
        except TimeoutError:
            raise RunError(f"`darkroom {argv[0]}` has not answered in {longest:.0f} seconds. The machine may be busy: ask again.") from None
        finally:
            with suppress(ProcessLookupError):
                process.kill()
    return _answer(said, process.returncode or 0, argv[0])


def _answer(said: bytes, code: int, command: str) -> dict[str, Any]:
    try:
        tree = json.loads(said)
    except ValueError:
        raise RunError(f"`darkroom {command}` broke off with code {code}. Try it on the command line to see more.") from None
    if code:
        kind = getattr(errors, str(tree.get("kind")), RunError)
        found = kind if isinstance(kind, type) and issubclass(kind, DarkroomError) else RunError
        raise found(str(tree.get("error", f"`darkroom {command}` ended with code {code}.")))
    return dict(tree)
