"""Stage 0: render the training pictures once, as one array of bytes and one list of scenes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import world


@dataclass
class Album:
    pictures: np.ndarray  # (N, 64, 64, 3) uint8
    scenes: list[world.Scene]
    subjects: list[world.Subject]

    def captions(self, indices: np.ndarray, seed: int, epoch: int) -> list[str]:
        return [world.caption(self.scenes[i], self.subjects, np.random.default_rng([seed, int(i), epoch, 2])) for i in indices]

    def labels(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Class numbers of every attribute, for the auxiliary heads of the text stage."""
        chosen = [self.scenes[i] for i in indices]
        tables = {
            "style": list(world.STYLES),
            "colour": list(world.COLOURS),
            "size": list(world.SIZES),
            "place": list(world.PLACES),
            "spoil": ["", *world.SPOILS],
        }
        labels = {name: np.array([table.index(getattr(s, name)) for s in chosen]) for name, table in tables.items()}
        return labels | {"noun": np.array([s.subject for s in chosen])}


def make(work: Path, packages: Path, seed: int, count: int) -> Album:
    chosen = world.subjects(json.loads((packages / "emojibase-data/en/data.json").read_text("utf-8")))
    array, listing = work / f"album-{seed}-{count}.npy", work / f"album-{seed}-{count}.jsonl"
    if not listing.exists():
        sprites = world.load_sprites(packages, chosen)
        pictures = np.lib.format.open_memmap(array, "w+", np.uint8, (count, world.SIDE, world.SIDE, 3))
        lines = []
        for index in range(count):
            picture, scene = world.render(sprites, seed, index)
            pictures[index] = np.asarray(picture)
            lines.append(json.dumps(asdict(scene)))
        pictures.flush()
        listing.write_text("\n".join(lines))
    rows = (json.loads(line) for line in listing.read_text().splitlines())
    scenes = [world.Scene(**(row | {"crop": tuple(row["crop"])})) for row in rows]
    return Album(np.load(array, mmap_mode="r"), scenes, chosen)
