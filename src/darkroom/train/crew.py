"""The processes of one training. Each takes its share of every batch, and all end up with the same weights; only the first one writes.

Started by `accelerate launch` or torchrun, which say in the environment how many they are. What a step learns does not depend on their number, but for
the order in which floating-point numbers are added up: every draw belongs to (seed, batch, picture), and a share's loss is weighed by its size.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Crew:
    """Process `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> Crew:
        """The crew that this process belongs to, by accelerate's rules (RANK, WORLD_SIZE, gloo on CPUs, nccl on GPUs); alone where nobody said otherwise."""
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        from accelerate import PartialState

        state = PartialState(cpu=not torch.cuda.is_available())
        return cls(state.process_index, state.num_processes)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, rows: Sequence[T]) -> Sequence[T]:
        """This process's part of a batch, which may be empty."""
        return rows[self.rank :: self.size]

    def add_up(self, tensors: Iterable[torch.Tensor]) -> None:
        """Each tensor becomes its sum over all processes, in place; as few messages as there are dtypes."""
        if self.size == 1:
            return
        kinds: dict[torch.dtype, list[torch.Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault(tensor.dtype, []).append(tensor)
        for group in kinds.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            torch.distributed.all_reduce(flat)
            for tensor, part in zip(group, torch.split(flat, [tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def agree(self, value: float) -> float:
        """The first process's value, in every process."""
        if self.size == 1:
            return value
        said = torch.tensor([value], dtype=torch.float64)
        said = said.cuda() if torch.distributed.get_backend() == "nccl" else said
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
        """Until all processes are here."""
        if self.size > 1:
            torch.distributed.barrier()
