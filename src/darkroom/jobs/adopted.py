"""The dataset that a job begins with: brought up to date while the person watches, and nothing passed over in silence."""

from __future__ import annotations

from pathlib import Path

from darkroom.data.adopt import Changes, adopt, passed_over
from darkroom.data.manifest import Manifest
from darkroom.jobs.watch import Watcher


def adopted(folder: Path, watcher: Watcher) -> tuple[Manifest, Changes]:
    """`adopt`, with its progress and what it passed over told to the watcher. Raises DatasetError."""
    manifest, changes = adopt(folder, lambda done, total: watcher.move("reading", done, total))
    if words := passed_over(folder, changes.outside):
        watcher.say(words)
    return manifest, changes
