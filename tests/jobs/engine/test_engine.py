"""What an engine promises, asked of each: order, bounds, and that a worker's death costs nothing but time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from darkroom.errors import ModelError, RunError
from darkroom.jobs.engine import Engine, Local
from support.works import Batches, Deadly, Failing, Squares, Threads, Untold, Watched, ray_here


@pytest.fixture(scope="module", params=["local", "ray"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "local":
        yield Local(2)
        return
    with ray_here() as found:
        yield found


@pytest.mark.parametrize("count", [0, 1, 7, 200])
def test_results_come_in_the_order_of_items(engine: Engine, count: int) -> None:
    assert list(engine.each(Squares(), iter(range(count)))) == [item * item for item in range(count)]


def test_shares_are_cut_alike_everywhere(engine: Engine) -> None:
    found = list(engine.each(Batches(), range(75)))
    assert [(first, size) for first, size, _ in found] == [(item // 8 * 8, min(8, 75 - item // 8 * 8)) for item in range(75)]
    assert os.getpid() not in {process for _, _, process in found}, "workers did it"


def test_no_more_is_under_way_than_keeps_workers_busy(engine: Engine) -> None:
    """Whoever takes results slowly is waited for: 4 shares a worker are given and not taken, and one is being handed out."""
    list(engine.each(Squares(), range(40)))  # until the workers are there nothing is handed out
    source, most = Watched(400), 0
    for taken, _ in enumerate(engine.each(Squares(), source)):
        most = max(most, source.taken - taken)
        time.sleep(0.002 if taken < 100 else 0)
    assert source.taken == 400 and 8 * 4 < most <= 8 * (4 * 2 + 1)


def test_a_killed_workers_share_is_done_again_and_nothing_is_lost_or_doubled(engine: Engine, tmp_path: Path) -> None:
    assert list(engine.each(Deadly((50, 130), tmp_path), range(200))) == list(range(200))
    assert {path.name for path in tmp_path.iterdir()} == {"50", "130"}, "both did kill"


def test_a_worker_may_die_while_its_results_are_looked_at(engine: Engine, tmp_path: Path) -> None:
    """Then it is handing out more that finds nobody there."""
    got = []
    for item in engine.each(Deadly((50, 130), tmp_path), range(200)):
        got.append(item)
        time.sleep(0.02 if item % 8 == 0 else 0)
    assert got == list(range(200)) and len(list(tmp_path.iterdir())) == 2


def test_an_item_that_always_kills_costs_itself_alone(engine: Engine) -> None:
    assert list(engine.each(Deadly((37, 38, 90)), range(120))) == [-item if item in (37, 38, 90) else item for item in range(120)]


def test_an_item_that_kills_and_was_not_foreseen_is_named(engine: Engine) -> None:
    got = []
    with pytest.raises(RunError, match=r"^37: its worker was killed each time"):
        for item in engine.each(Untold((37,)), range(120)):
            got.append(item)
    assert got == list(range(32)), "what came before it is there"


def test_an_error_comes_as_it_is_at_its_place(engine: Engine) -> None:
    got = []
    with pytest.raises(ModelError) as caught:
        for item in engine.each(Failing(100), range(200)):
            got.append(item)
    assert (str(caught.value), got) == ("stone.safetensors: is no model. Name one.", list(range(96)))
    with pytest.raises(RuntimeError, match="OddError: 1 and 2"):
        list(engine.each(Failing(100, "odd"), range(200)))


def test_whoever_stops_asking_leaves_a_working_engine(engine: Engine) -> None:
    flow = engine.each(Squares(pause=0.05), range(400))
    assert next(iter(flow)) == 0
    flow.close()  # type: ignore[attr-defined]
    assert list(engine.each(Squares(), range(100))) == [item * item for item in range(100)]


def test_all_of_a_lane_is_done_by_one_worker(engine: Engine) -> None:
    """In any order; there are two workers, so that lanes 0 and 2 are one. This process keeps lanes by doing all of them."""
    found = list(engine.each(Batches(mark="lanes"), range(200), lane=lambda item: item % 3, ordered=False))
    assert len(found) == 200
    processes = {first % 3 % 2: {process for other, _, process in found if other % 3 % 2 == first % 3 % 2} for first, _, _ in found}
    assert [len(some) for some in processes.values()] == [1, 1]
    assert len(set.union(*processes.values())) == (1 if isinstance(engine, Local) else 2)


def test_a_model_computes_with_as_many_threads_as_here(engine: Engine) -> None:
    """The last bits depend on it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert set(engine.each(Threads(), range(12))) == {2}
    finally:
        torch.set_num_threads(before)


def test_local_keeps_a_model_in_this_process_and_takes_one_share_at_a_time() -> None:
    """Unless workers are asked for; and it is opened once for works that are equal."""
    import os

    engine, source = Local(), Watched(20)
    work = Batches(share=4)
    object.__setattr__(work, "holds", True)
    flow = engine.each(work, source)
    assert next(iter(flow)) == (0, 4, os.getpid()) and source.taken == 4
    opened = engine.bench.opened
    list(engine.each(work, range(4)))
    assert engine.bench.opened is opened
    list(engine.each(Batches(share=4, mark="another"), range(4)))
    assert engine.bench.opened is not opened


def test_a_script_without_a_main_guard_is_served_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "unguarded.py"
    path.write_text("from darkroom.jobs.engine import Local\nfrom support.works import Squares\nprint(sum(Local(2).each(Squares(), range(60))))")
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=300, env={"PYTHONPATH": ":".join(sys.path)})
    assert str(sum(item * item for item in range(60))) in done.stdout.split()


def test_no_worker_outlives_the_one_that_asked(tmp_path: Path) -> None:
    """Killed -9 in the middle."""
    code = "from darkroom.jobs.engine import Local\nfrom support.works import Squares\n"
    code += "for item in Local(2).each(Squares(pause=0.2), range(10_000)): print(item, flush=True)"
    asker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": ":".join(sys.path)})
    assert asker.stdout is not None and asker.stdout.readline() == b"0\n"
    workers = psutil.Process(asker.pid).children()
    assert len(workers) >= 2
    asker.kill()
    asker.wait()
    deadline = time.monotonic() + 90
    while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_workers_import_no_torch_and_no_ray() -> None:
    """They are started for every screening: a second and 200 MB each would be felt."""
    code = "import sys, darkroom.jobs.looks, darkroom.jobs.contact, darkroom.jobs.bring, darkroom.jobs.duplicates, darkroom.jobs.engine; "
    code += "print(sorted({'torch', 'diffusers', 'transformers', 'cv2', 'ray'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "[]"
