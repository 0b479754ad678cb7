"""A training whose run lies at s3://: killed on one machine, gone on with on another, pruned, refused; what it gives is what a local one gives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("moto", reason="moto[server] is a development dependency")
pytest.importorskip("s3fs", reason="s3fs is the extra [s3]")

from darkroom import places, pocket
from darkroom.cli.main import run
from support import s3

pytestmark = pytest.mark.usefixtures("machine")

SOURCE = Path(pocket.__file__).parents[2]
SETTINGS = ("train.save_every=2 steps", "preview.steps=2", "preview.every=100 steps", "device=cpu", "data.batch_size=2", "method.rank=4")
LINE = ["train", "demo", "--images", "s3://machines/cats", "--subject", "TOK cat", *(word for setting in SETTINGS for word in ("--set", setting))]


@pytest.fixture(scope="module", autouse=True)
def served() -> Iterator[s3.Gate]:
    with s3.gated("machines") as gate:
        for file in (pocket.CATS / "train").iterdir():
            s3.client().upload_file(str(file), "machines", f"cats/{file.name}")
        yield gate


def body(key: str) -> bytes:
    return s3.body("machines", key)


def train(*more: str) -> int:
    return run([*LINE, *more])


def test_a_killed_machine_is_gone_on_with_elsewhere_from_the_last_pushed_checkpoint(served: s3.Gate, machine: Any, tmp_path: Path) -> None:
    """Killed while it pushes the third."""
    served.rules.append(lambda method, path: "hang" if method == "PUT" and "/run/steps/000006/" in path else "")
    line = [sys.executable, "-m", "darkroom", *LINE, "--out", "s3://machines/run", "--set", "train.length=8 steps"]
    with (tmp_path / "said").open("wb") as said:
        first = subprocess.Popen(line, stdout=said, stderr=said, env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"})
        deadline = time.monotonic() + 300
        while "run/steps/000004/state.json" not in s3.keys("machines") and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        first.send_signal(signal.SIGKILL)
        first.wait()
    served.rules.clear()
    assert first.returncode == -signal.SIGKILL, (tmp_path / "said").read_text()
    pushed = sorted(key for key in s3.keys("machines", "run/steps/") if key.endswith("state.json"))
    assert pushed == ["000002/state.json", "000004/state.json"]
    machine("b")
    assert run(["resume", "s3://machines/run"]) == 0
    machine("c")
    assert train("--out", "whole", "--set", "train.length=8 steps") == 0
    assert body("run/adapter.safetensors") == Path("whole/adapter.safetensors").read_bytes(), "not what a training gives that nobody killed"
    assert body("run/steps/000008/state.safetensors") == Path("whole/steps/000008/state.safetensors").read_bytes()
    assert set(s3.keys("machines", "run/")) == {path.relative_to("whole").as_posix() for path in Path("whole").rglob("*") if path.is_file()}


def test_the_first_machine_comes_back_and_overwrites_nothing(machine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """It trained on while its line was dead; in the meantime another one finished the run."""
    assert train("--set", "train.length=2 steps", "--out", "s3://machines/two") == 0
    with pytest.raises(KeyboardInterrupt), places.writing("s3://machines/two") as folder:
        (folder / "log.jsonl").write_text("ours\n")
        s3.client().put_object(Bucket="machines", Key="two/log.jsonl", Body=b"theirs\n")
        raise KeyboardInterrupt
    capsys.readouterr()
    assert run(["resume", "s3://machines/two"]) == 2
    assert "changed in the store since it was fetched, and here as well: log.jsonl. Nothing was overwritten" in capsys.readouterr().err
    assert body("two/log.jsonl") == b"theirs\n"


def test_pruned_checkpoints_go_from_the_store_too(machine: Any) -> None:
    assert train("--set", "train.length=6 steps", "--set", "train.keep=1", "--out", "s3://machines/kept") == 0
    assert {key.split("/")[0] for key in s3.keys("machines", "kept/steps/")} == {"000006"}


def test_no_right_to_write_is_told_before_the_first_step(served: s3.Gate, capsys: pytest.CaptureFixture[str]) -> None:
    served.rules.append(lambda method, path: "refuse" if method == "PUT" else "")
    try:
        assert train("--set", "train.length=2 steps", "--out", "s3://machines/forbidden") == 2
    finally:
        served.rules.clear()
    told = capsys.readouterr().err
    assert "s3://machines/forbidden" in told
    assert "may not be written: the store refused" in told
    assert "training" not in told.replace("trainings", "")
