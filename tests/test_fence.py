"""The fence around what pages order: what it lets through, what it stops, and that there is none around a person's own command."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path

import pytest

from darkroom.fence import GROUNDS, WHY, Fence, Outside, hand_over, leads_out, let, variable, within

SECRET = "the neighbour's secret"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace beside a neighbour, with links that lead out of it, in it, and in circles. The folder for temporary files is neither's."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    work, neighbour = tmp_path / "work", tmp_path / "neighbour"
    for folder in (work / "inner", neighbour / "deep", tmp_path / "cache"):
        folder.mkdir(parents=True)
    for file in (neighbour / "secret.txt", neighbour / "deep" / "secret.txt"):
        file.write_text(SECRET)
    (work / "own.txt").write_text("own")
    for name, target in {
        "file": neighbour / "secret.txt", "folder": neighbour, "chain": work / "folder", "up": Path("../neighbour"), "mine": work / "own.txt", "loop": work,
        "inner/out.txt": neighbour / "secret.txt", "round": work / "round", "absent": neighbour / "nothing.txt",
    }.items():  # fmt: skip
        (work / name).symlink_to(target)
    return tmp_path


@pytest.fixture
def fence(place: Path) -> Iterator[Fence]:
    found = Fence.around([place / "work"])
    with within(found):
        yield found


OUT = (
    "work/file", "work/folder/secret.txt", "work/folder/deep/secret.txt", "work/chain/secret.txt", "work/up/secret.txt", "work/inner/out.txt",
    "work/loop/file", "work/loop/loop/folder/secret.txt", "neighbour/secret.txt", "work/../neighbour/secret.txt", "work/inner/../../neighbour/secret.txt",
    "work/folder/../neighbour/secret.txt", "work-and-more/secret.txt", "work/absent", "secret.txt",
)  # fmt: skip


@pytest.mark.parametrize("name", OUT)
def test_nothing_outside_is_opened_however_it_is_named(place: Path, fence: Fence, name: str) -> None:
    for path in (f"{place}/{name}", f"/proc/self/root{place}/{name}", f"{os.path.relpath(place)}/{name}"):
        for mode in ("r", "w", "a", "x"):
            with pytest.raises(Outside), Path(path).open(mode):
                pass
        with pytest.raises(Outside):
            os.close(os.open(path, os.O_RDONLY))
        assert leads_out(path)
        with pytest.raises(Outside, match="--folder"):
            let(Path(path))


@pytest.mark.parametrize("name", ["own.txt", "mine", "loop/own.txt", "loop/loop/mine", "inner/../own.txt", "folder/../work/own.txt"])
def test_what_is_inside_is_opened_by_any_of_its_names(place: Path, fence: Fence, name: str) -> None:
    assert Path(f"{place}/work/{name}").read_text() == "own"
    assert let(Path(f"{place}/work/{name}")) == place / "work" / "own.txt", "the real path, in which no link is left"
    assert not leads_out(f"{place}/work/{name}")


TOUCHES: dict[str, Callable[[Path], object]] = {
    "listdir": lambda place: os.listdir(place / "work" / "folder"),  # noqa: PTH208  what others call
    "iterdir": lambda place: list((place / "neighbour").iterdir()),
    "scandir": lambda place: os.scandir(place / "work" / "up"),
    "mkdir": lambda place: (place / "work" / "folder" / "new").mkdir(),
    "rename out": lambda place: (place / "work" / "own.txt").rename(place / "neighbour" / "own.txt"),
    "rename in": lambda place: (place / "work" / "folder" / "secret.txt").rename(place / "work" / "x.txt"),
    "replace": lambda place: (place / "work" / "own.txt").replace(place / "work" / "folder" / "secret.txt"),
    "unlink": lambda place: (place / "work" / "folder" / "secret.txt").unlink(),
    "rmdir": lambda place: (place / "work" / "folder" / "deep").rmdir(),
    "hard link": lambda place: os.link(place / "neighbour" / "secret.txt", place / "work" / "hard.txt"),
    "hard link by a link": lambda place: os.link((place / "work" / "file").resolve(), place / "work" / "hard.txt"),
    "link": lambda place: (place / "work" / "new").symlink_to(place / "neighbour"),
    "link upwards": lambda place: (place / "work" / "inner" / "new").symlink_to("../../neighbour"),
    "truncate": lambda place: os.truncate(place / "work" / "file", 0),
    "chdir": lambda place: os.chdir(place / "work" / "folder"),
    "sqlite": lambda place: sqlite3.connect(place / "work" / "folder" / "x.sqlite"),
}


@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES.keys())
def test_nothing_outside_is_listed_made_moved_or_removed(place: Path, fence: Fence, touch: Callable[[Path], object]) -> None:
    with pytest.raises(Outside):
        touch(place)


def test_a_link_itself_is_the_workspaces_own(place: Path, fence: Fence) -> None:
    (place / "work" / "file").rename(place / "work" / "renamed")
    (place / "work" / "renamed").unlink()
    (place / "work" / "new").symlink_to(place / "work" / "own.txt")
    assert (place / "work" / "new").read_text() == "own"


def test_programs_find_their_own_things(place: Path, fence: Fence) -> None:
    assert Path(os.__file__).read_bytes() and Path(pytest.__file__).read_bytes() and Path("/proc/self/status").read_text()
    with tempfile.NamedTemporaryFile() as file, Path(os.devnull).open("w"):
        assert Path(file.name).exists()
    (place / "cache" / "x").write_text("kept")
    assert let(place / "cache" / "x").read_text() == "kept"
    assert sqlite3.connect(":memory:").execute("select 1").fetchone() == (1,)
    with pytest.raises(Outside):
        let(Path(os.__file__))  # nobody's picture or caption


def test_places_that_the_environment_names_may_link_to_where_they_like(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub's cache is links, people move it to another disk by a link, and an environment of Python may lie beside the pictures."""
    elsewhere = place / "disk"
    for folder in (elsewhere / "blobs", elsewhere / "snapshot", place / "work" / "venv" / "lib"):
        folder.mkdir(parents=True)
    (elsewhere / "blobs" / "1").write_text("weights")
    (elsewhere / "snapshot" / "model.safetensors").symlink_to("../blobs/1")
    (place / "hub").symlink_to(elsewhere)
    (place / "work" / "venv" / "lib" / "module.py").symlink_to(place / "neighbour" / "secret.txt")
    monkeypatch.setenv("HF_HOME", str(place / "hub"))
    monkeypatch.setenv("PATH", os.pathsep.join((os.environ["PATH"], str(place / "work" / "venv"))))
    monkeypatch.setenv("PHOTOS_DIR", str(place))  # holds the workspace, and all beside it: no program's own
    with within(Fence.around([place / "work"])):
        for name in ("hub", "disk"):
            assert hand_over(place / name / "snapshot" / "model.safetensors").read_text() == "weights"
        assert (place / "work" / "venv" / "lib" / "module.py").read_text() == SECRET
        with pytest.raises(Outside):
            let(place / "work" / "venv" / "lib" / "module.py")
        with pytest.raises(Outside):
            (place / "neighbour" / "secret.txt").read_text()


def test_folders_within_are_removed_whole_and_links_are_not_followed(place: Path, fence: Fence) -> None:
    import shutil

    shutil.rmtree(place / "work" / "inner")
    assert not (place / "work" / "inner").exists()
    with within(Fence.around([place])):
        assert (place / "neighbour" / "secret.txt").read_text() == SECRET


def test_a_model_is_handed_over_with_all_below_it(place: Path, fence: Fence) -> None:
    model = place / "work" / "model"
    (model / "unet").mkdir(parents=True)
    (model / "unet" / "a.safetensors").write_bytes(b"x")
    index = model / "unet" / "a.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors"}}))
    assert hand_over(model) == model and hand_over("owner/name") == "owner/name"
    for names in ({"x": "../../../neighbour/secret.txt"}, {"x": str(place / "neighbour" / "secret.txt")}):
        index.write_text(json.dumps({"weight_map": names}))
        with pytest.raises(Outside):
            hand_over(model)
    index.unlink()
    with within(Fence.around([place])):
        (model / "unet" / "b.safetensors").symlink_to(place / "neighbour" / "secret.txt")
    with pytest.raises(Outside):
        hand_over(str(model))
    with pytest.raises(Outside):
        hand_over(model / "unet" / "b.safetensors")


def test_two_grounds_and_their_links_to_each_other(place: Path) -> None:
    with within(Fence.around([place / "work", place / "neighbour"])):
        assert (place / "work" / "folder" / "secret.txt").read_text() == SECRET
        assert not leads_out(place / "work" / "file")


def test_threads_that_are_asked_are_inside_and_others_are_not(place: Path, fence: Fence) -> None:
    def read() -> str:
        return (place / "neighbour" / "secret.txt").read_text()

    with pytest.raises(Outside):
        asyncio.run(asyncio.to_thread(read))
    with ThreadPoolExecutor(1) as pool, pytest.raises(Outside):
        pool.submit(copy_context().run, read).result()


def test_outside_of_the_block_there_is_no_fence(place: Path) -> None:
    with within(Fence.around([place / "work"])):
        pass
    assert (place / "work" / "file").read_text() == SECRET
    assert let(place / "work" / "file") == place / "work" / "file" and not leads_out(place / "neighbour")


def test_the_mistake_is_one_in_words_and_comes_out_of_other_processes() -> None:
    mistake = pickle.loads(pickle.dumps(Outside("cats/a.png")))
    assert isinstance(mistake, OSError) and str(mistake) == str(Outside("cats/a.png")) and mistake.strerror == WHY
    assert "cats/a.png" in str(mistake) and "darkroom studio --folder" in str(mistake)


READ = """
import multiprocessing, sys
from pathlib import Path
def look(path):
    import darkroom
    try:
        return Path(path).read_text()
    except OSError as error:
        return type(error).__name__
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(look(sys.argv[1]), pool.apply(look, (sys.argv[1],)), sep="|")
"""


@pytest.mark.parametrize("inside", [True, False])
def test_a_process_hears_of_it_and_so_do_those_that_it_starts(place: Path, inside: bool) -> None:
    (place / "work" / "read.py").write_text(READ)
    said = variable([place / "work"]) if inside else {}
    environment = {name: value for name, value in os.environ.items() if name != GROUNDS} | said | {"TMPDIR": str(place / "temporary")}
    command = [sys.executable, str(place / "work" / "read.py"), str(place / "work" / "file")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=place / "work", timeout=120, check=True)
    assert done.stdout.strip() == ("Outside|Outside" if inside else f"{SECRET}|{SECRET}"), done.stderr
