"""How much memory a device has, asked of the system alone: a page wants to know it, and must not load torch for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache

PATIENCE = 5.0
"""Seconds that nvidia-smi may take."""


@cache
def memory_mib(device: str) -> int | None:
    """MiB of the card, or of main memory for "cpu"; None where the system does not tell. Counts all of it, whoever uses it now."""
    kind, _, number = device.partition(":")
    match kind:
        case "cuda":
            return _card(number or "0")
        case "cpu" | "mps":
            return _main()
    return None


def _main() -> int | None:
    try:
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20)
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def _card(number: str) -> int | None:
    program = shutil.which("nvidia-smi")
    if program is None or not number.isdecimal():
        return None
    seen = [card.strip() for card in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if card.strip()]
    card = seen[int(number)] if int(number) < len(seen) else number  # a name as CUDA_VISIBLE_DEVICES has it: a number or a UUID
    command = [program, f"--id={card}", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return int(said) if said.isdecimal() else None
