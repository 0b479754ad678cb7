"""The processes of one training. Each takes its share of every batch, and all end up with the same weights; only the first one writes.

Started by `--processes` (`jobs/processes.py`), `accelerate launch` or torchrun, which say in the environment how many they are. What a step learns does not
depend on their number, but for the order in which floating-point numbers are added up: every draw belongs to (seed, batch, picture), and a share's loss is
weighed by its size.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TypeVar

import torch

from darkroom.errors import RecipeError, RunError

T = TypeVar("T")
LAUNCHER = "DARKROOM_LAUNCHER"
"""The environment's word for the process that started this one: `--processes` sets it."""
PATIENCE = timedelta(hours=12)
"""How long one process waits for another: the first draws pictures of a class, and previews, alone. One that died is not waited for: its connections close."""
MESSAGE = 1 << 28
"""Bytes that are added up at once: gradients of a whole SDXL, 10 GiB, are not all copied a second time."""


class CrewLost(RunError):
    """Another process of the training has ended, and this one cannot go on without it."""


@dataclass(frozen=True)
class Crew:
    """Process `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> Crew:
        """The crew that this process belongs to, by accelerate's rules (RANK, WORLD_SIZE, gloo on CPUs, nccl on GPUs); alone where nobody said otherwise.

        Call it before a model is opened: from then on "cuda" is this process's own card. Raises RecipeError where there is none for it, and CrewLost.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        from accelerate import PartialState

        _check_cards()
        with _in_words():
            state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
        _follow(int(os.environ.get(LAUNCHER, "0")))
        return cls(state.process_index, state.num_processes)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, rows: Sequence[T]) -> Sequence[T]:
        """This process's part of a batch, which may be empty."""
        return rows[self.rank :: self.size]

    def add_up(self, tensors: Iterable[torch.Tensor]) -> None:
        """Each tensor becomes its sum over all processes, in place; in few messages, one dtype each. Raises CrewLost."""
        if self.size == 1:
            return
        for group in _bundles(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            with _in_words():
                torch.distributed.all_reduce(flat)
            for tensor, part in zip(group, torch.split(flat, [tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def agree(self, value: float) -> float:
        """The first process's value, in every process. Raises CrewLost."""
        if self.size == 1:
            return value
        said = torch.tensor([value], dtype=torch.float64)
        said = said.cuda() if torch.distributed.get_backend() == "nccl" else said
        with _in_words():
            torch.distributed.broadcast(said, 0)
        return float(said.item())

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Within the block the first process comes first, and the others find what it has made."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def wait(self) -> None:
        """Until all processes are here. Raises CrewLost."""
        if self.size > 1:
            with _in_words():
                torch.distributed.barrier()


def _bundles(tensors: Iterable[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Tensors of one dtype, in their order, up to MESSAGE bytes together."""
    kinds: dict[torch.dtype, list[torch.Tensor]] = {}
    for tensor in tensors:
        kind = kinds.setdefault(tensor.dtype, [])
        if kind and sum(each.nbytes for each in kind) + tensor.nbytes > MESSAGE:
            yield kinds.pop(tensor.dtype)
            kind = kinds.setdefault(tensor.dtype, [])
        kind.append(tensor)
    yield from kinds.values()


@contextmanager
def _in_words() -> Iterator[None]:
    """What the transport says of a lost process (a RuntimeError of many lines) becomes a CrewLost."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        told = str(error).split("\n")[0]
        raise CrewLost(
            f"Process {os.environ.get('RANK', '?')} of {os.environ['WORLD_SIZE']} has lost the others ({told}). Checkpoints are whole: go on with "
            "`darkroom resume RUN`, by any number of processes."
        ) from None


def _check_cards() -> None:
    rank, cards = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if torch.cuda.is_available() and rank >= cards and os.environ.get("ACCELERATE_USE_CPU", "").lower() != "true":
        raise RecipeError(
            f"Process {rank + 1} of this machine finds {cards} GPU{'s' if cards > 1 else ''}, and each process wants its own. Start {cards}, or train on the "
            'CPU with device = "cpu".'
        )


@cache
def _follow(launcher: int) -> None:
    """Once the launcher is gone, killed say, this process is told to stop, as by Ctrl-C: the step is finished and all is saved."""

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    if launcher and os.name == "posix":  # Windows gives an orphan no other parent
        threading.Thread(target=watch, daemon=True).start()
