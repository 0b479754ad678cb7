"""Trainings over several machines: what each must see, what is told where one does not, and that the first alone writes.

Two machines are two network namespaces with disks of their own (Linux, root); slow, since each process imports everything anew.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from darkroom import pocket
from darkroom.errors import RunError
from darkroom.jobs.processes import free_port
from darkroom.jobs.train import _check_alike, _check_shared, prepare, run_training
from darkroom.train.crew import Crew
from darkroom.train.recipe import load_recipe
from darkroom.train.run import Run
from support.crews import brief, full, weights

SETTINGS = (
    "train.length=4 steps", "train.save_every=2 steps", "preview.steps=2", "device=cpu", "data.batch_size=2", "data.resolution=32", "train.fused=false",
    "optimizer.kind=adamw", "optimizer.rate=1e-4", "optimizer.eps=1e-6", "optimizer.warmup=0", "train.save_dtype=fp32", "train.gradient_checkpointing=false",
)  # fmt: skip
FSDP = """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
fsdp_config:
  fsdp_version: 2
  fsdp_reshard_after_forward: false
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_transformer_layer_cls_to_wrap: BasicTransformerBlock,ResnetBlock2D
  fsdp_cpu_ram_efficient_loading: true
  fsdp_state_dict_type: SHARDED_STATE_DICT
machine_rank: 0
mixed_precision: 'no'
num_machines: 1
num_processes: 2
use_cpu: true
"""


@dataclass(frozen=True)
class Overheard(Crew):
    """One of a crew whose others say what they are given to say."""

    others: list[str] = field(default_factory=list)
    shared: bool = True

    def told(self, words: str) -> list[str]:
        return [words, *(self.others or [words])]

    def sees(self, folder: Path) -> bool:
        return self.shared


def test_a_machine_with_other_pictures_is_told_before_training(quick):
    model, plan = prepare(quick)
    said: list[str] = []

    class Listening(Overheard):
        def told(self, words: str) -> list[str]:
            said.append(words)
            return [words]

    _check_alike(Listening(0, 2), quick, model, plan)
    theirs = json.loads(said[0])[1] | {"pictures or captions": "0" * 64, "Darkroom": "1" * 64}
    with pytest.raises(RunError, match=r"process 1 of 2 on beta does not have the same Darkroom, nor the same pictures or captions as process 0 of 2 on "):
        _check_alike(Overheard(0, 2, [json.dumps(["process 1 of 2 on beta", theirs])]), quick, model, plan)


def test_a_folder_that_not_all_see_is_told_where_all_write(quick, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    apart = Overheard(0, 2, shared=False)
    _check_shared(tmp_path, quick, apart)
    with pytest.raises(RunError, match=r"not all machines of this training see this folder.*on a disk that all share"):
        _check_shared(tmp_path, full(brief(quick), sharding="fsdp"), apart)


TOGETHER = """
import os, sys, torch
from pathlib import Path
from darkroom.errors import DatasetError
from darkroom.train.crew import Crew, CrewLost
crew = Crew.join()
mine, shared = Path(sys.argv[1]) / f"disk{crew.rank}", Path(sys.argv[1])
print(crew.told(f"I am {crew.rank}"), crew.sees(shared), crew.sees(mine), len(list(mine.iterdir())), sep="|")
out = crew.handed_out({"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7), "c": torch.ones(2, dtype=torch.bfloat16)} if crew.first else {})
print({name: tensor.tolist() for name, tensor in out.items()}, out["c"].dtype, sep="|")
try:
    with crew.as_one():
        if crew.rank == 1:
            raise DatasetError("no pictures.")
except (DatasetError, CrewLost) as error:
    print(type(error).__name__, error, sep="|")
sys.stdout.flush()
os._exit(0)
"""


def test_what_processes_tell_each_other(tmp_path):
    """Two of them (gloo): words, tensors, whether they share a disk, and one's mistake, which all are told."""
    told = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    for rank in range(2):
        (tmp_path / f"disk{rank}").mkdir()
    command = [sys.executable, "-c", TOGETHER, str(tmp_path)]
    with free_port() as port:
        told |= {"MASTER_PORT": str(port)}
        both = [
            subprocess.Popen(command, env={**told, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for rank in range(2)
        ]
        said = [process.communicate(timeout=300) for process in both]
    lines = [out.decode().splitlines() for out, _ in said]
    assert lines[0][0] == lines[1][0] == "['I am 0', 'I am 1']|True|False|0", said
    assert lines[0][1] == lines[1][1] == "{'a': [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], 'b': 7, 'c': [1.0, 1.0]}|torch.bfloat16"
    assert lines[1][2] == "DatasetError|no pictures."
    assert lines[0][2].startswith("CrewLost|process 1 of 2 on ") and "no pictures. (Told by the other of 2 processes" in lines[0][2]


# ---- two machines -------------------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """A network namespace, whose folder `here` is another disk than the other machine's, unless they share it."""

    number: int
    here: Path
    disk: Path
    share: bool

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        mount = [] if self.share or not self.number else ["unshare", "-m", "bash", "-c", f'mount --bind {self.disk} {self.here} && exec "$0" "$@"']
        told = {**os.environ, "GLOO_SOCKET_IFNAME": f"dark{self.number}", "ACCELERATE_USE_CPU": "true", "DARKROOM_CACHE": str(self.here / "cache")}
        whole = ["ip", "netns", "exec", f"dark{self.number}", *mount, *command]
        return subprocess.Popen(whole, env=told | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.fixture
def machines(tmp_path):
    """Call with whether they share a disk: two machines joined by a cable, each with the demo's pictures."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces want Linux, root and iproute2")
    cable = """ip netns add dark0 && ip netns add dark1 && ip link add dark0 netns dark0 type veth peer name dark1 netns dark1
    for n in 0 1; do ip -n dark$n addr add 10.77.1.$((n + 1))/24 dev dark$n && ip -n dark$n link set dark$n up && ip -n dark$n link set lo up; done"""
    if subprocess.run(["bash", "-ec", cable], capture_output=True, check=False).returncode:
        _unplug()
        pytest.skip("network namespaces are not permitted here")

    def make(share: bool) -> list[Machine]:
        for disk in (tmp_path / "here", tmp_path / "disk"):
            shutil.copytree(pocket.CATS / "train", disk / "cats")
        return [Machine(number, tmp_path / "here", tmp_path / "disk", share) for number in range(2)]

    yield make
    _unplug()


def _unplug() -> None:
    for number in range(2):
        subprocess.run(["ip", "netns", "del", f"dark{number}"], capture_output=True, check=False)


def _torchrun(machine: Machine, *arguments: str) -> list[str]:
    cluster = ["--nnodes", "2", "--node_rank", str(machine.number), "--nproc_per_node", "1", "--master_addr", "10.77.1.1", "--master_port", "29811"]
    return [sys.executable, "-m", "torch.distributed.run", *cluster, "-m", "darkroom", *arguments]


def _training(here: Path, *settings: str) -> list[str]:
    return ["train", "full", "--images", str(here / "cats"), "--subject", "TOK cat", "--out", str(here / "run"), *_set(*SETTINGS, *settings)]


def _set(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def _ended(started: list[subprocess.Popen[bytes]]) -> list[str]:
    said = []
    for process in started:
        with suppress(subprocess.TimeoutExpired):
            said.append(process.communicate(timeout=400)[0].decode(errors="replace"))
        process.kill()
    return said


@pytest.mark.slow
def test_two_machines_without_a_common_disk_learn_what_one_process_learns(machines, tmp_path):
    """The second one has the pictures and never sees the run folder, neither in training nor when the run is gone on with."""
    pair, here = machines(False), tmp_path / "here"
    said = _ended([machine.start(*_torchrun(machine, *_training(here))) for machine in pair])
    assert (here / "run" / "model").is_dir() and not (tmp_path / "disk" / "run").exists(), said
    recipe = load_recipe("full", SETTINGS, data={"images": str(here / "cats"), "subject": "TOK cat"})
    one, two = weights(run_training(recipe, tmp_path / "one")), weights(Run.open(here / "run"))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-6
    shutil.rmtree(here / "run" / "model")
    shutil.rmtree(here / "run" / "steps" / "000004")
    said = _ended([machine.start(*_torchrun(machine, "resume", str(here / "run"))) for machine in pair])
    again = weights(Run.open(here / "run"))
    assert all(torch.equal(two[name], again[name]) for name in two), said


@pytest.mark.slow
def test_two_machines_that_divide_a_model(machines, tmp_path):
    """With a common disk each writes its part; without one both are told, and nothing is trained."""
    apart = machines(False)
    said = _ended([machine.start(*_torchrun(machine, *_training(tmp_path / "here", "train.sharding=fsdp"))) for machine in apart])
    assert all("not all machines of this training see this folder" in each for each in said), said
    assert not (tmp_path / "here" / "run" / "recipe.toml").exists()
    pair = [Machine(number, tmp_path / "here", tmp_path / "disk", True) for number in range(2)]
    said = _ended([machine.start(*_torchrun(machine, *_training(tmp_path / "here", "train.sharding=fsdp"))) for machine in pair])
    assert len(list((tmp_path / "here" / "run" / "steps" / "000004" / "state").iterdir())) == 2, said


@pytest.mark.slow
def test_accelerates_configuration_divides(tmp_path):
    """`accelerate launch --config_file` with FSDP2 on one machine, and FSDP1, which is refused in words."""
    told = {**os.environ, "OMP_NUM_THREADS": "1"}
    for version, found in (("1", "Set fsdp_version: 2"), ("2", "learned ")):
        config = tmp_path / f"fsdp{version}.yaml"
        changed = FSDP if version == "2" else FSDP.replace("fsdp_version: 2", "fsdp_version: 1").replace("after_forward: false", "after_forward: FULL_SHARD")
        config.write_text(changed)
        words = _training(tmp_path)
        words[words.index("--images") + 1] = str(pocket.CATS / "train")
        with free_port() as port:
            command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config), "--main_process_port", str(port)]
            done = subprocess.run([*command, "-m", "darkroom", *words], env=told, capture_output=True, timeout=400, check=False)
        assert found in (done.stdout + done.stderr).decode(errors="replace"), done.stderr.decode(errors="replace")[-3000:]
    assert len(list((tmp_path / "run" / "steps" / "000004" / "state").iterdir())) == 2
