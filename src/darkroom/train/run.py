"""The run folder: recipe.toml, facts.json, log.jsonl, steps/000100/, previews/, adapter.safetensors. Whole at every moment."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.errors import OutputError, RunError
from darkroom.fence import hand_over
from darkroom.files import link_equal, sha256_bytes, sha256_file, writable_folder, write_json, write_text
from darkroom.spec import read_toml
from darkroom.train.recipe import Recipe

if TYPE_CHECKING:
    import torch

LEFT = (".*.part", ".*.gone", ".crew-*")
"""Names of what is being written, taken away, or looked for by the processes of a crew."""


@dataclass(frozen=True)
class Checkpoint:
    """One folder below steps/: the adapter as it was, and all that an exact resume needs."""

    folder: Path

    @property
    def step(self) -> int:
        return int(self.folder.name)

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors and facts. Raises RunError where the folder is damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        facts = self.facts
        if self.parted:
            from darkroom.train.parted import read_whole

            return read_whole(self.folder), facts
        try:
            return load_file(hand_over(self.folder / "state.safetensors")), facts
        except (OSError, ValueError, SafetensorError) as error:
            raise RunError(f"{self.folder}: this checkpoint is damaged ({error}). Delete it to go on from the one before.") from None

    @property
    def facts(self) -> dict[str, Any]:
        """All of it that are no tensors. Raises RunError."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{self.folder}: this checkpoint is damaged ({error}). Delete it to go on from the one before.") from None
        for name, size in found.get("parts", {}).items():
            part = self.folder / "state" / name
            if not part.is_file() or part.stat().st_size != size:
                raise RunError(f"{part}: is missing, or not of the {size} bytes that were written. Delete {self.folder} to go on from the checkpoint before.")
        return found

    @property
    def parted(self) -> bool:
        """Whether several processes each wrote a part of it."""
        return (self.folder / "state").is_dir()

    @property
    def digest(self) -> str:
        """A name for its tensors: the hash of their file, or over those of all parts."""
        if not self.parted:
            return sha256_file(self.folder / "state.safetensors")
        return sha256_bytes("".join(sha256_file(part) for part in sorted((self.folder / "state").iterdir())).encode())

    @property
    def whole(self) -> bool:
        """Whether all of it was written."""
        return (self.folder / "state.json").is_file() and (self.parted or (self.folder / "state.safetensors").is_file())


@dataclass(frozen=True)
class Run:
    """A training on disk."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, recipe: Recipe, facts: dict[str, Any]) -> Run:
        """A new run folder. Raises OutputError where it cannot be written or holds a run already."""
        if (folder / "recipe.toml").exists():
            raise OutputError(f"{folder}: holds a run already. Go on with `darkroom resume {folder}`, or choose another folder with --out.")
        if folder.is_dir() and any(not _unborn(path) for path in folder.iterdir()):
            raise OutputError(f"{folder}: is not empty, and is no run of Darkroom. Choose another folder with --out.")
        writable_folder(folder)
        write_json(folder / "facts.json", facts)
        write_text(folder / "recipe.toml", recipe.to_toml())  # last: what has a recipe is a run, and can be gone on with
        return cls(folder)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """An existing one. Raises RunError."""
        if not (folder / "recipe.toml").is_file() or not (folder / "facts.json").is_file():
            raise RunError(f"{folder}: is no run folder (recipe.toml or facts.json is missing). `darkroom train` makes one.")
        return cls(folder)

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return Recipe.from_tree(read_toml(self.folder / "recipe.toml"), str(self.folder / "recipe.toml"))

    @property
    def facts(self) -> dict[str, Any]:
        """Versions, hardware, hashes, results."""
        found: dict[str, Any] = json.loads((self.folder / "facts.json").read_text(encoding="utf-8"))
        return found

    @property
    def finished(self) -> bool:
        """Whether the last step was taken, what was learned is written, and the receipt says so."""
        return self.product.exists() and "result" in self.facts

    @property
    def product(self) -> Path:
        """The file or folder that a finished run holds."""
        return self.folder / self.recipe.product

    def checkpoints(self) -> list[Checkpoint]:
        """Whole ones, oldest first. A half-written one has another name and is never seen."""
        found = [Checkpoint(p) for p in sorted((self.folder / "steps").glob("[0-9]*")) if p.is_dir() and p.name.isdigit()]
        return [checkpoint for checkpoint in found if checkpoint.whole]

    def save(self, step: int, tensors: dict[str, torch.Tensor], facts: dict[str, Any], write_product: Callable[[Path], None]) -> Checkpoint:
        """Write a checkpoint beside the others and rename it into place. Raises OutputError; what was there before stays."""
        from safetensors.torch import save_file

        part = self.begin(step)
        with self.writing(step):
            save_file(tensors, part / "state.safetensors")
        return self.end(step, facts, write_product)

    def begin(self, step: int) -> Path:
        """An empty folder for a checkpoint's files, which is none before `end`. Raises OutputError."""
        part = self.unfinished(step)
        with self.writing(step):
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
        return part

    def unfinished(self, step: int) -> Path:
        """The folder of a checkpoint that is being written."""
        return self.folder / "steps" / f".{step:06d}.part"

    def end(self, step: int, facts: dict[str, Any], write_product: Callable[[Path], None]) -> Checkpoint:
        """The folder that `begin` gave gets what is still missing, and is a checkpoint. Raises OutputError."""
        final, part = self.folder / "steps" / f"{step:06d}", self.unfinished(step)
        with self.writing(step):
            write_json(part / "state.json", {"step": step, **facts})
            write_product(part / self.recipe.product)
            self.share(part / self.recipe.product)
            gone = _aside(final)
            part.rename(final)
        shutil.rmtree(gone, ignore_errors=True)
        return Checkpoint(final)

    @contextmanager
    def writing(self, step: int) -> Iterator[None]:
        """What cannot be written in the block leaves nothing behind: a disk that was full has room for what others write. Raises OutputError."""
        part = self.unfinished(step)
        try:
            yield
        except OutputError:
            shutil.rmtree(part, ignore_errors=True)
            raise
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            final = part.with_name(part.name.removeprefix(".").removesuffix(".part"))
            raise OutputError(f"{final}: the checkpoint could not be written ({error.strerror or error}). Earlier checkpoints are whole.") from None

    def share(self, product: Path) -> None:
        """Files of a product that is a folder become links to equal ones of the newest checkpoint: what nothing learned lies on the disk once."""
        if saved := self.checkpoints():
            link_equal(product, saved[-1].folder / self.recipe.product)

    def prune(self, keep: int) -> None:
        """Take away all checkpoints but the newest `keep` and the best by held-out loss; 0 keeps all."""
        best = self.best()
        for checkpoint in self.checkpoints()[: -keep or None] if keep else ():
            if checkpoint.step != best:
                shutil.rmtree(_aside(checkpoint.folder))

    def sweep(self) -> None:
        """Take away what killed processes left half written or half taken away. Nobody else may be training the run (`hold.held`)."""
        for folder in (self.folder, self.folder / "steps", self.folder / "previews"):
            for left in [path for pattern in LEFT for path in folder.glob(pattern)]:
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)

    def best(self) -> int | None:
        """The step with the lowest held-out loss among those that have a checkpoint; None where none was measured."""
        saved = {checkpoint.step for checkpoint in self.checkpoints()}
        measured = [(row["validation"], row["step"]) for row in self.read_log() if "validation" in row and row["step"] in saved]
        return min(measured)[1] if measured else None

    def log(self, row: dict[str, Any]) -> None:
        """Append one line to log.jsonl."""
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """The log, without a last line that a kill cut in two."""
        path = self.folder / "log.jsonl"
        rows = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
        return rows

    def forget_after(self, step: int) -> None:
        """Drop log lines of steps that will be taken again."""
        rows = [row for row in self.read_log() if row["step"] <= step]
        write_text(self.folder / "log.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _aside(folder: Path) -> Path:
    """Give a checkpoint a name under which it is none, at once: half of one never is. What was left under that name by a kill is taken away."""
    gone = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    if folder.exists():
        folder.rename(gone)
    return gone


def _unborn(path: Path) -> bool:
    """Whether a file is what a run leaves behind that was killed before it was one."""
    return path.name == "facts.json" or (path.name.startswith((".facts.json", ".recipe.toml")) and path.name.endswith(".part"))
