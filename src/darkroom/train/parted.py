"""Checkpoints that every process writes a part of, as safetensors by torch.distributed.checkpoint, and that any number of processes reads, one too.

A folder `state` with a file for each process; which files belong to it, and that all are whole, is said in state.json, which the first process writes last.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from darkroom.errors import OutputError, RunError
from darkroom.fence import hand_over
from darkroom.train.crew import appears

if TYPE_CHECKING:
    from darkroom.train.crew import Crew
    from darkroom.train.loop import Trainer

STATE = "state"
FAILED = (OSError, ValueError, KeyError, RuntimeError, CheckpointException)


def write_parts(folder: Path, tensors: Mapping[str, torch.Tensor], crew: Crew) -> dict[str, int]:
    """Every process calls it with its rows, each knowing the whole (DTensor); what all have alike the first one writes. Each tells what it wrote.

    Returns all files and their sizes in bytes, for the marker. Raises OutputError in all of them, also where the first does not find what another wrote.
    """
    mine, writer = {name: tensor for name, tensor in tensors.items() if _numbers(tensor)}, _Writer(str(folder), save_distributed=True)
    with _quiet():
        try:
            save(mine, storage_writer=writer)
        except CheckpointException as error:
            rank, (first, _) = next(iter(error.failures.items()))
            raise OutputError(f"{folder}: process {rank} could not write its part of the checkpoint ({first}). Earlier checkpoints are whole.") from None
    written = {name: (folder / name).stat().st_size for name in sorted(writer.names)}
    told = {name: (size, who) for who, parts in map(json.loads, crew.told(json.dumps([crew.name, written]))) for name, size in parts.items()}
    with crew.as_one():
        if crew.first:
            _check_there(folder, told)
    return {name: size for name, (size, _) in told.items()}


class _Writer(HuggingFaceStorageWriter):
    """Knows which files this process has written."""

    def __init__(self, path: str, save_distributed: bool) -> None:
        super().__init__(path, save_distributed=save_distributed)
        self.names: set[str] = set()

    def write_data(self, plan: Any, planner: Any) -> Any:
        """Called once in each process."""
        done = super().write_data(plan, planner)
        self.names |= {result.storage_data.relative_path for result in done.wait()}
        return done


def _check_there(folder: Path, told: Mapping[str, tuple[int, str]]) -> None:
    """Raises OutputError for a file that another process wrote and that is not found here, or not as it was written."""
    for name, (size, who) in told.items():
        if not appears(folder / name, size):
            raise OutputError(
                f"{folder / name}: {who} wrote {size} bytes, and they are not here. No checkpoint was made; earlier ones are whole. All machines of a "
                "divided training must see one folder, under the same path: choose it with --out on a disk that they share."
            )


def shapes_of(folder: Path) -> dict[str, tuple[torch.dtype, torch.Size]]:
    """Number format and whole shape of every tensor of a checkpoint's folder, parted or not. Raises RunError."""
    with _damaged(folder):
        found: Any = HuggingFaceStorageReader(hand_over(str(_place(folder)))).read_metadata().state_dict_metadata
        if not found:
            raise ValueError("it holds no tensors")
        return {name: (told.properties.dtype, told.size) for name, told in found.items()}


def read_parts(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Fill tensors, whole ones or rows that know the whole, each process for itself. Raises RunError."""
    mine = {name: tensor for name, tensor in tensors.items() if _numbers(tensor)}
    with _quiet(), _damaged(folder):
        load(mine, storage_reader=HuggingFaceStorageReader(hand_over(str(_place(folder)))), no_dist=True)


def read_whole(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a parted checkpoint, whole, in main memory. Raises RunError."""
    found = {name: torch.empty(size, dtype=dtype) for name, (dtype, size) in shapes_of(folder).items()}
    read_parts(folder, found)
    return found


def read_rows(folder: Path, trainer: Trainer) -> dict[str, torch.Tensor]:
    """This process's rows of a checkpoint, parted or not, under the names of `Trainer.state`. Raises RunError."""
    found: dict[str, torch.Tensor] = {}
    wanted: dict[str, torch.Tensor] = {}
    for name, (dtype, size) in shapes_of(folder).items():
        rows = trainer.rows_of(name)
        if rows is not None and size == rows.shape:
            found[name], wanted[name] = rows.room(dtype)
        elif name.startswith(("weights.", "optimizer.")):
            found[name] = wanted[name] = torch.empty(size, dtype=dtype)
    read_parts(folder, wanted)
    return found


def _place(folder: Path) -> Path:
    return folder / STATE if (folder / STATE).is_dir() else folder


def _numbers(tensor: Any) -> int:
    """How many numbers of a tensor this process has."""
    return int((tensor.to_local() if hasattr(tensor, "to_local") else tensor).numel())


@contextmanager
def _damaged(folder: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (*FAILED, SafetensorError) as error:
        told = str(error).strip().split("\n")[-1]
        raise RunError(f"{folder}: this checkpoint is damaged ({told}). Delete it to go on from the one before.") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """torch warns that one process alone reads, which is what is meant."""
    logger = logging.getLogger("torch.distributed.checkpoint")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)
