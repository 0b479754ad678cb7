"""`darkroom caption`: read what captions there are, take over what another program's settings say, write new ones; and a table of all in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from darkroom.jobs.adopted import adopted
from darkroom.jobs.caption.config import caption_from_config
from darkroom.jobs.caption.report import lines, table
from darkroom.jobs.caption.run import Captioning, caption_dataset
from darkroom.jobs.engine import Engine
from darkroom.jobs.watch import Silent, Watcher


def caption(
    folder: Path, wanted: Captioning | None = None, config: Path | None = None, device: str = "auto", watcher: Watcher | None = None, first: int = 0,
    engine: Engine | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What was done, and the captions that there are then. `first` > 0 writes nothing. Raises DatasetError, RecipeError, ModelError, OutputError."""
    watcher, done = watcher or Silent(), dict[str, Any]()
    manifest = None
    if config is not None:
        manifest, done["config"] = caption_from_config(folder, config, watcher, write=not first)
    if wanted is not None:
        manifest, done["captioning"] = caption_dataset(folder, wanted, device, watcher, first, engine)
    if manifest is None:
        manifest, _ = adopted(folder, watcher)
    return {"dataset": str(folder)} | done | ({} if first else {"captions": table(manifest)})


__all__ = ["Captioning", "caption", "caption_dataset", "caption_from_config", "lines", "table"]
