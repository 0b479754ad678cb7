"""Which devices this machine has, told without opening torch: a page that waits ten seconds for its list is none."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path


@cache
def devices() -> tuple[dict[str, str], ...]:
    """{"name": "cuda:0", "title": "NVIDIA H200"} of each, the best first; the CPU is always there, and the last."""
    cpu = {"name": "cpu", "title": f"CPU, {os.cpu_count() or 1} cores"}
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return {"name": "mps", "title": "Apple GPU"}, cpu
    return (*({"name": f"cuda:{number}", "title": title} for number, title in enumerate(_cards())), cpu)


def _cards() -> list[str]:
    """NVIDIA's cards by name, as CUDA counts them here; none where the torch that is installed has no CUDA."""
    tool = shutil.which("nvidia-smi")
    if tool is None or not _built_for_cuda():
        return []
    command = [tool, "--query-gpu=name", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
    return seen([name.strip() for name in found if name.strip()], os.environ.get("CUDA_VISIBLE_DEVICES"))


def seen(cards: list[str], visible: str | None) -> list[str]:
    """Those that CUDA_VISIBLE_DEVICES leaves, in its order; it may name them by UUID too."""
    if visible is None:
        return cards
    chosen = [word.strip() for word in visible.split(",") if word.strip() and word.strip() != "-1"]
    return [cards[int(word)] if word.isdigit() and int(word) < len(cards) else f"GPU {word}" for word in chosen]


def _built_for_cuda() -> bool:
    """By the line `cuda: Optional[str] = '12.8'` of torch/version.py."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).with_name("version.py")
    lines = version.read_text(encoding="utf-8").splitlines() if version.is_file() else []
    return any(line.startswith("cuda") and "None" not in line.partition("=")[2] for line in lines)
