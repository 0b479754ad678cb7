"""The processes of one training. Each takes its share of every batch, and all end up with the same weights; only the first one writes.

Started by `--processes` (`jobs/processes.py`), `accelerate launch` or torchrun, which say in the environment how many they are. What a step learns does not
depend on their number, but for the order in which floating-point numbers are added up: every draw belongs to (seed, batch, picture), and a share's loss is
weighed by its size.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import torch

from darkroom.errors import DarkroomError, RecipeError, RunError
from darkroom.files import write_text
from darkroom.methods.zeroed import library
from darkroom.train.launch import said

T = TypeVar("T")
LAUNCHER = "DARKROOM_LAUNCHER"
"""The environment's word for the process that started this one: `--processes` sets it."""
PATIENCE = timedelta(hours=12)
"""How long one process waits for another: the first draws pictures of a class, and previews, alone. One that died is not waited for: its connections close."""
TRANSPORT = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "ProcessGroup")
ALONE = 130
"""The code of a process whose launcher ended before the training began."""
SETTLING = 5.0
"""Seconds until a file that one machine wrote is there for another, if they share a disk at all."""
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

        Call it before a model is opened: from then on "cuda" is this process's own card. Raises RecipeError where there is none for it, RunError.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        from accelerate import PartialState

        _check_cards()
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"  # transformers would give all processes but the first a model without numbers
        if said("ACCELERATE_USE_DEEPSPEED"):
            library("cpu" if said("ACCELERATE_USE_CPU") else "auto")  # accelerate imports it, and reports a missing one by a traceback
        met = _follow(int(os.environ.get(LAUNCHER, "0")))
        with _meeting():
            state = PartialState(cpu=said("ACCELERATE_USE_CPU") or not torch.cuda.is_available(), timeout=PATIENCE)
        met.set()
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

    def told(self, words: str) -> list[str]:
        """What each process says, in every process. Raises CrewLost."""
        if self.size == 1:
            return [words]
        found = [""] * self.size
        with _in_words():
            torch.distributed.all_gather_object(found, words)
        return found

    @contextmanager
    def as_one(self) -> Iterator[None]:
        """What fails in the block for one process fails for all: it raises its own error, and the others CrewLost with its words."""
        try:
            yield
        except DarkroomError as error:
            self.told(f"{self.name}: {error}")
            raise
        if words := [said for said in self.told("") if said]:
            raise CrewLost(f"{words[0]} (Told by the other{'s' if len(words) > 1 else ''} of {self.size} processes; nothing goes on without it.)")

    def handed_out(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The first process's tensors, in main memory of every process. Raises CrewLost."""
        listed = json.dumps([(name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)) for name, tensor in tensors.items()])
        found = {}
        for name, dtype, shape in json.loads(self.told(listed if self.first else "")[0]):
            sent = tensors[name] if self.first else torch.empty(shape, dtype=getattr(torch, dtype))
            sent = sent.cuda() if torch.distributed.get_backend() == "nccl" else sent.contiguous()
            with _in_words():
                torch.distributed.broadcast(sent, 0)
            found[name] = sent.cpu()
        return found

    def sees(self, folder: Path) -> bool:
        """Whether all processes find in this folder what the first one puts there: whether their machines share a disk. Raises CrewLost, OutputError."""
        if self.size == 1:
            return True
        token = folder / f".crew-{uuid4().hex}" if self.first else folder
        with self.as_one():
            if self.first:
                write_text(token, "")
        there = folder / self.told(token.name)[0]
        found = appears(there)
        seen = all(word == "yes" for word in self.told("yes" if found else "no"))
        if self.first:
            there.unlink(missing_ok=True)
        return seen

    @property
    def beside(self) -> Crew:
        """Those of the same machine alone, who share work that other machines cannot see."""
        return _Beside(int(os.environ.get("LOCAL_RANK", self.rank)), int(os.environ.get("LOCAL_WORLD_SIZE", self.size)))

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Within the block what the transport says of a lost process is a CrewLost, wherever a computation waits for others (FSDP2's hooks do, everywhere)."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not _of_transport(error):
                raise
            with _in_words():
                raise

    @property
    def name(self) -> str:
        """ "process 3 of 8 on HOST"."""
        return f"process {self.rank} of {self.size} on {socket.gethostname()}"

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


class _Beside(Crew):
    def wait(self) -> None:
        """Other machines have another number of processes: who needs all of them waits with the whole crew."""


def appears(place: Path, size: int | None = None) -> bool:
    """Whether a file is there, and of that size, or comes to be within the time in which network disks tell each other."""
    deadline = time.monotonic() + SETTLING
    while not place.exists() or (size is not None and place.stat().st_size != size):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


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
        raise CrewLost(
            f"Process {os.environ.get('RANK', '?')} of {os.environ['WORLD_SIZE']} has lost the others ({_first_line(error)}). Checkpoints are whole: go on "
            "with `darkroom resume RUN`, by any number of processes."
        ) from None


def _of_transport(error: RuntimeError) -> bool:
    """Whether gloo or nccl says it."""
    return isinstance(error, torch.distributed.DistError) or any(word in str(error) for word in TRANSPORT)


def _check_cards() -> None:
    rank, cards = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if torch.cuda.is_available() and rank >= cards and not said("ACCELERATE_USE_CPU"):
        raise RecipeError(
            f"Process {rank + 1} of this machine finds {cards} GPU{'s' if cards > 1 else ''}, and each process wants its own. Start {cards}, or train on the "
            'CPU with device = "cpu".'
        )


@contextmanager
def _meeting() -> Iterator[None]:
    """What the transport says where the processes do not find each other becomes a RunError."""
    try:
        yield
    except RuntimeError as error:
        if not _of_transport(error):
            raise
        place = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
        if "EADDRINUSE" in str(error):
            raise RunError(
                f"{place}, where the processes of the training are to meet, is taken by another program. Choose another port: --master_port of torchrun, "
                "--main_process_port of accelerate launch."
            ) from None
        raise CrewLost(
            f"Process {os.environ.get('RANK', '?')} of {os.environ['WORLD_SIZE']} did not find the others at {place} ({_first_line(error)})."
        ) from None


def _first_line(error: RuntimeError) -> str:
    """gloo begins with a line of its source, and ends with jokes."""
    return re.sub(r"^\[\S*\] ", "", str(error).split("\n")[0]).split(". This is typically")[0]


@cache
def _follow(launcher: int) -> threading.Event:
    """Once the launcher is gone, killed say, this process is told to stop, as by Ctrl-C: the step is finished and all is saved.

    Until it has met the others, which the caller tells by the event, it hears nothing, and others may never come: it ends at once.
    """
    met = threading.Event()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(0.5)
        if not met.is_set():
            os._exit(ALONE)
        os.kill(os.getpid(), signal.SIGINT)

    if launcher and os.name == "posix":  # Windows gives an orphan no other parent
        threading.Thread(target=watch, daemon=True).start()
    return met
