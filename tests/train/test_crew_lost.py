"""A crew that loses a process says so, and what it adds up goes in messages of a bounded size."""

import os
import socket
import subprocess
import sys
import time

import psutil
import pytest
import torch

from darkroom.errors import RecipeError
from darkroom.jobs.processes import free_port
from darkroom.train import crew
from darkroom.train.crew import Crew, CrewLost

LEFT_ALONE = """
import os, torch
from darkroom.train.crew import Crew, CrewLost
crew = Crew.join()
crew.add_up([torch.ones(3)])
if crew.first:
    try:
        crew.add_up([torch.ones(3)])
    except CrewLost as lost:
        print(lost, flush=True)
os._exit(0)
"""


def started(code: str, rank: int, port: int, **told: str) -> subprocess.Popen[bytes]:
    """One of two processes on this machine."""
    env = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), **told}
    return subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_who_is_left_alone_says_so_at_once():
    """Two processes (gloo); one ends after the first sum."""
    with free_port() as port:
        both = [started(LEFT_ALONE, rank, port) for rank in range(2)]
        said, wrong = (part.decode() for part in both[0].communicate(timeout=300))
        both[1].communicate(timeout=300)
    assert said.startswith("Process 0 of 2 has lost the others (") and "darkroom resume RUN" in said and "Traceback" not in wrong, said + wrong
    assert len(said.splitlines()) == 1


def test_messages_are_of_one_dtype_and_bounded(monkeypatch):
    monkeypatch.setattr(crew, "MESSAGE", 40)
    tensors = [torch.ones(4), torch.ones(8, dtype=torch.bfloat16), torch.ones(6), torch.ones(1), torch.ones(100), torch.ones(2)]
    found = list(crew._bundles(tensors))
    assert [[len(tensor) for tensor in group] for group in found] == [[4, 6], [1], [100], [8], [2]]
    assert all(len({tensor.dtype for tensor in group}) == 1 for group in found)


def test_memory_that_runs_out_is_no_lost_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(torch.OutOfMemoryError), crew._in_words():
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(CrewLost, match=r"lost the others \(Connection closed by peer\)"), crew._in_words():
        raise RuntimeError("Connection closed by peer\nat pair.cc")


def test_a_mistake_of_ours_is_no_lost_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), Crew(0, 2).heard():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(CrewLost, match=r"has lost the others \(Connection closed by peer \[127\.0\.0\.1\]:57202\)\."), Crew(0, 2).heard():
        raise RuntimeError(
            "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:544] Connection closed by peer [127.0.0.1]:57202. This is typically caused by"
        )
    with pytest.raises(CrewLost, match="has lost the others"), Crew(0, 2).heard():
        raise torch.distributed.DistBackendError("unhandled system error")


JOIN = """
import os
from darkroom.errors import RunError
from darkroom.train.crew import Crew
print("begun", flush=True)
try:
    Crew.join()
except RunError as error:
    print(type(error).__name__, error, sep="|", flush=True)
os._exit(0)
"""


def test_a_port_that_another_program_has_is_told():
    """As under torchrun, whose port the person chooses."""
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        said, wrong = (part.decode() for part in started(JOIN, 0, port).communicate(timeout=300))
    assert f"RunError|127.0.0.1:{port}, where the processes of the training are to meet, is taken by another program. Choose another port" in said, said + wrong
    assert "has lost the others" not in said and "Traceback" not in wrong


def test_a_port_is_kept_for_the_crew_alone():
    """The first process listens at it while the launcher keeps others away."""
    with free_port() as port:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        store = torch.distributed.TCPStore("127.0.0.1", port, 1, is_master=True)
        store.set("met", "yes")
        assert store.get("met") == b"yes"


def test_an_orphan_that_never_met_the_others_ends():
    """Its launcher was killed before they met, and one of them with it: nobody will come, and it must not wait for 12 hours."""
    with free_port() as port:
        code = "import subprocess, sys, os, time; print(subprocess.Popen([sys.executable, '-c', os.environ['JOIN']]).pid, flush=True); time.sleep(600)"
        told = {"JOIN": JOIN.replace("Crew.join()", "os.environ['DARKROOM_LAUNCHER'] = str(os.getppid()); Crew.join()")}
        parent = started(code, 0, port, **told)
        orphan = psutil.Process(int(parent.stdout.readline()))
        assert parent.stdout.readline() == b"begun\n"
        time.sleep(1)
        assert orphan.is_running()
        parent.kill()
        psutil.wait_procs([orphan], timeout=60)
        assert not orphan.is_running()


def test_more_processes_than_cards_are_refused(monkeypatch):
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(RecipeError, match=r"Process 3 of this machine finds 2 GPUs.*Start 2"):
        Crew.join()
