"""Work on all cores is the same as work in one, and an item that kills its process costs itself alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from darkroom.jobs.cores import on_all_cores


def double(item: int) -> int:
    return 2 * item


def deadly(item: int) -> int:
    if item == 37:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def died(item: int) -> int:
    return -item


def test_everything_is_done_once() -> None:
    assert sorted(on_all_cores(double, range(100), died, workers=2)) == [2 * item for item in range(100)]
    assert list(on_all_cores(double, range(5), died)) == [0, 2, 4, 6, 8]
    assert list(on_all_cores(double, [], died)) == []


def test_an_item_that_kills_its_process_costs_itself_alone() -> None:
    found = sorted(on_all_cores(deadly, range(60), died, workers=2))
    assert found == sorted([-37, *(item for item in range(60) if item != 37)])


def test_a_script_without_a_main_guard_is_served_all_the_same(tmp_path: object) -> None:
    script = "from darkroom.jobs.cores import on_all_cores\nprint(sum(on_all_cores(abs, range(60), abs, workers=2)))"
    path = f"{tmp_path}/unguarded.py"
    with open(path, "w") as file:  # noqa: PTH123
        file.write(script)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=60)
    assert str(sum(range(60))) in done.stdout.split()


def test_workers_import_no_torch() -> None:
    """They are started for every screening: a second and 200 MB each would be felt."""
    code = "import sys, darkroom.jobs.looks, darkroom.jobs.contact; print(sorted({'torch', 'diffusers', 'transformers', 'cv2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
