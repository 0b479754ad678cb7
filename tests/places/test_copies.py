"""Working copies on memory://: only what changed travels, markers go last, and what changed on both sides is never overwritten."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from darkroom import files, places
from darkroom.errors import PlaceError
from darkroom.places import store
from darkroom.places.copy import Copy
from darkroom.places.sync import PUSHING, rank

RUN = {
    "recipe.toml": b"r", "facts.json": b"{}", "log.jsonl": b"{}\n", "steps/000002/state.json": b"{}", "steps/000002/state.safetensors": b"s" * 100,
    "steps/000002/adapter.safetensors": b"a" * 50, "previews/000002_0.png": b"p",
}  # fmt: skip


class Heard:
    """What was said and moved."""

    def __init__(self) -> None:
        self.said, self.moved = list[str](), list[tuple[str, int, int]]()

    def say(self, text: str) -> None:
        self.said.append(text)

    def move(self, what: str, done: int, total: int, note: str = "") -> None:
        self.moved.append((what, done, total))


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`machine("b")` goes to another machine: another cache, nothing in mind."""

    def go(name: str) -> None:
        monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / name))
        places._compared.clear()

    go("a")
    return go


def write(folder: Path, what: dict[str, bytes]) -> None:
    for name, data in what.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def there(memory: Any, folder: str = "/run/") -> dict[str, bytes]:
    return {name.removeprefix(folder): memory.cat_file(name) for name in memory.store if name.startswith(folder)}


def lie(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_what_was_written_here_lies_there_and_comes_back_elsewhere(memory: Any, machine: Any) -> None:
    with places.writing("memory://run") as folder:
        write(folder, RUN)
    assert there(memory) == RUN
    machine("b")
    assert lie(places.near("memory://run")) == RUN
    assert places.near("memory://run/steps/000002/state.json").read_bytes() == b"{}"


def test_only_what_changed_travels(memory: Any, machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with places.writing("memory://run") as folder:
        write(folder, RUN)
    put: list[str] = []
    plain = store._put
    monkeypatch.setattr(store, "_put", lambda system, source, path, scheme: (put.append(path), plain(system, source, path, scheme)))
    with places.writing("memory://run") as folder:
        write(folder, {"log.jsonl": b"{}\n{}\n", "shown/loss.png": b"l"})
    assert sorted(put) == ["/run/log.jsonl", "/run/shown/loss.png"]
    got: list[str] = []
    fetch = store.fetch
    machine("b")
    places.near("memory://run")
    memory.pipe_file("/run/log.jsonl", b"{}\n" * 3)
    memory.rm_file("/run/shown/loss.png")
    places._compared.clear()
    monkeypatch.setattr(places, "fetch", lambda address, path, seen: (got.append(address), fetch(address, path, seen)))
    assert lie(places.near("memory://run"))["log.jsonl"] == b"{}\n" * 3
    assert got == ["memory://run/log.jsonl"]
    assert not (places.near("memory://run") / "shown" / "loss.png").exists()


def test_markers_come_last_and_go_first(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    plain, away = store._put, store._removed
    monkeypatch.setattr(store, "_put", lambda system, source, path, scheme: (order.append(path), plain(system, source, path, scheme)))
    with places.writing("memory://run") as folder:
        write(folder, RUN | {"adapter.safetensors": b"a"})
    names = [name.removeprefix("/run/") for name in order]
    assert names[-4:] == ["steps/000002/state.json", "facts.json", "adapter.safetensors", "recipe.toml"]
    monkeypatch.setattr(store, "_removed", lambda system, path: (order.append(path), away(system, path)))
    order.clear()
    with places.writing("memory://run") as folder:
        for path in (folder / "steps" / "000002").iterdir():
            path.unlink()
    gone = [name for name in order if "/steps/" in name]
    assert gone[0].endswith("state.json")
    assert len(gone) == 3
    assert not any(name.startswith("steps/") for name in there(memory))


def test_ranks_of_what_readers_go_by() -> None:
    names = {"recipe.toml", "facts.json", "adapter.safetensors", "steps/000001/adapter.safetensors", "ds/manifest.parquet"}
    turns = ["previews/1.png", "steps/000001/state.json", "facts.json", "adapter.safetensors", "manifest.parquet", "report.html"]
    assert [rank(name, names) for name in turns] == [0, 1, 2, 3, 4, 5]
    assert rank("steps/000001/adapter.safetensors", names) == 0
    assert rank("model/unet/x.safetensors", names) == 3
    assert rank("trial.json", names) < rank("report.html", names)


def test_what_others_laid_there_is_never_taken_away(memory: Any) -> None:
    with places.writing("memory://run") as folder:
        write(folder, RUN)
    with places.writing("memory://run") as folder:
        memory.pipe_file("/run/notes.txt", b"another's")
        memory.pipe_file("/run/previews/000002_0.png", b"another's picture")
        (folder / "previews" / "000002_0.png").unlink()
    assert there(memory)["notes.txt"] == b"another's"
    assert there(memory)["previews/000002_0.png"] == b"another's picture"


def test_two_writers_are_a_conflict_and_nothing_is_lost(memory: Any, machine: Any) -> None:
    with places.writing("memory://run") as folder:
        write(folder, RUN)
    with (
        pytest.raises(PlaceError, match=r"changed in the store.*and here as well: log\.jsonl\. Nothing was overwritten"),
        places.writing("memory://run") as folder,
    ):
        memory.pipe_file("/run/log.jsonl", b"theirs, newer")
        write(folder, {"log.jsonl": b"ours", "new.txt": b"ours too"})
    assert there(memory)["log.jsonl"] == b"theirs, newer"
    assert "new.txt" not in there(memory)
    assert lie(folder)["log.jsonl"] == b"ours"
    places._compared.clear()
    with pytest.raises(PlaceError, match="Nothing was overwritten"):  # the next command does not overwrite it either
        places.near("memory://run")
    assert lie(folder)["log.jsonl"] == b"ours"
    machine("b")
    assert lie(places.near("memory://run"))["log.jsonl"] == b"theirs, newer"


def test_both_writing_the_same_is_no_conflict(memory: Any) -> None:
    with places.writing("memory://run") as folder:
        memory.pipe_file("/run/a.txt", b"equal")
        write(folder, {"a.txt": b"equal", "b.txt": b"b"})
    assert there(memory) == {"a.txt": b"equal", "b.txt": b"b"}


def test_a_push_that_breaks_off_goes_on(memory: Any, machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, done = store._put, list[str]()

    def broken(system: Any, source: Path, path: str, scheme: str) -> None:
        if len(done) == 3:
            raise ConnectionError("the line is dead")
        plain(system, source, path, scheme)
        done.append(path)

    monkeypatch.setattr(store, "_put", broken)
    with pytest.raises(PlaceError, match="cannot be reached") as caught, places.writing("memory://run") as folder:
        write(folder, RUN)
    assert str(folder.parent) in str(caught.value)
    assert len(there(memory)) == 4, "three files and the notice of a push"
    machine("b")
    heard = Heard()
    places.near("memory://run", heard)
    assert any("has not ended: it may be half there" in line for line in heard.said)
    assert not (places.near("memory://run") / "recipe.toml").exists(), "a marker without its content"
    machine("a")
    done.clear()
    monkeypatch.setattr(store, "_put", lambda system, source, path, scheme: (plain(system, source, path, scheme), done.append(path)))
    with places.writing("memory://run"):
        pass
    assert len(done) == len(RUN) - 3, "what was there already was put again"
    assert there(memory) == RUN


def test_work_that_fails_is_pushed_all_the_same(memory: Any) -> None:
    with pytest.raises(ZeroDivisionError), places.writing("memory://run") as folder:
        write(folder, {"a.txt": b"a"})
        raise ZeroDivisionError
    assert there(memory) == {"a.txt": b"a"}


def test_one_machine_has_one_writer_and_readers_see_its_work(memory: Any) -> None:
    with places.writing("memory://run") as folder:
        write(folder, RUN)
        with pytest.raises(PlaceError, match="another darkroom command"), places.writing("memory://run"):
            pass
        assert places.near("memory://run/facts.json") == folder / "facts.json"
        assert places.near("memory://run") == folder


def test_a_checkpoint_is_pushed_while_the_rest_waits(memory: Any) -> None:
    with places.writing("memory://demo") as folder:
        write(folder / "run", RUN)
        write(folder, {"trial/part.png": b"half"})
        assert places.push_near(folder / "run") == len(RUN)
        assert there(memory, "/demo/") == {f"run/{name}": data for name, data in RUN.items()}
    assert places.push_near(folder / "run") == 0, "nobody is writing there"
    assert places.push_near(Path("/nowhere")) == 0


def test_a_store_that_fails_at_a_checkpoint_does_not_end_the_training(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    heard, plain = Heard(), store._put
    with places.writing("memory://run") as folder:
        write(folder, RUN)
        monkeypatch.setattr(store, "_put", lambda *_: (_ for _ in ()).throw(ConnectionError("gone for a while")))
        assert places.push_near(folder, heard) == 0
        assert any("not pushed: memory://run" in line for line in heard.said)
        monkeypatch.setattr(store, "_put", plain)
    assert there(memory) == RUN


def test_a_file_and_what_is_written_beside_it(memory: Any, machine: Any) -> None:
    with places.writing("memory://out/x.safetensors") as path:
        assert not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        path.with_suffix(".json").write_text("{}")
        path.with_name(".x.safetensors.abc.part").write_bytes(b"unfinished")
    assert there(memory, "/out/") == {"x.safetensors": b"x", "x.json": b"{}"}
    machine("b")
    assert places.near("memory://out/x.safetensors").read_bytes() == b"x"
    assert lie(places.near("memory://out")) == {"x.safetensors": b"x", "x.json": b"{}"}


def test_what_is_told_and_written_names_the_address(memory: Any, tmp_path: Path) -> None:
    with places.writing("memory://run") as folder:
        write(folder, RUN)
    assert files.told(f"see {folder / 'adapter.safetensors'}.") == "see memory://run/adapter.safetensors."
    files.write_json(tmp_path / "x.json", {"run": str(folder)})
    assert (tmp_path / "x.json").read_text() == '{\n  "run": "memory://run"\n}\n'
    assert files.told("places/0123456789abcdef and others") == "places/0123456789abcdef and others"


def test_a_reader_mirrors_the_store(memory: Any) -> None:
    """A copy that nobody is writing is a cache: what was changed in it by accident does not stay."""
    memory.pipe_file("/cats/1.png", b"one")
    folder = places.near("memory://cats")
    write(folder, {"1.png": b"scribbled", "extra.png": b"no picture of this set"})
    places._compared.clear()
    assert lie(places.near("memory://cats")) == {"1.png": b"one"}


def test_a_glance_has_headers_and_sizes(memory: Any) -> None:
    import json

    header = json.dumps({"w": {"dtype": "F32", "shape": [100_000], "data_offsets": [0, 400_000]}, "__metadata__": {"x": "y" * 100_000}}).encode()
    whole = len(header).to_bytes(8, "little") + header + b"\1" * 400_000
    memory.pipe_file("/runs/a/adapter.safetensors", whole)
    memory.pipe_file("/runs/a/log.jsonl", b"x" * 200_000)
    memory.pipe_file("/runs/a/picture.png", b"x" * 200_000)
    folder = places.glance("memory://runs")
    from safetensors import safe_open

    with safe_open(folder / "a" / "adapter.safetensors", framework="np") as opened:
        assert opened.get_slice("w").get_shape() == [100_000]
    assert (folder / "a" / "log.jsonl").read_bytes() == b"x" * 200_000
    assert (folder / "a" / "picture.png").stat().st_size == 200_000
    assert not any((folder / "a" / "picture.png").read_bytes())
    assert (places.near("memory://runs") / "a" / "adapter.safetensors").read_bytes() == whole, "a glance was taken for the thing"


def test_a_copy_knows_what_it_is_of(memory: Any) -> None:
    memory.pipe_file("/cats/1.png", b"one")
    folder = places.near("memory://cats/")
    assert Copy.around(folder / "1.png") == Copy("memory://cats")
    assert Copy.around(Path.home()) is None
    assert PUSHING not in places.listing("memory://cats")
    assert places.listing("memory://cats")["1.png"].size == 3
    assert places.read_range("memory://cats/1.png", 1, 3) == b"ne"
    with places.open_binary("memory://cats/1.png") as file:
        assert file.read() == b"one"


def test_what_a_long_command_made_goes_every_few_minutes(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "EVERY", 0.05)
    with places.writing("memory://trial") as folder:
        write(folder, {"pictures/1.png": b"one"})
        deadline = time.monotonic() + 120
        while "/trial/pictures/1.png" not in memory.store and time.monotonic() < deadline:
            time.sleep(0.02)
        assert "/trial/pictures/1.png" in memory.store, "a machine taken away now would lose it"
        write(folder, {"trial.json": b"{}"})
    assert there(memory, "/trial/") == {"pictures/1.png": b"one", "trial.json": b"{}"}


def test_a_marker_that_is_written_meanwhile_waits(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may speak of contents that came after the look at the folder."""
    plain = store._put
    with places.writing("memory://set") as folder:
        write(folder, {"pictures/1.png": b"one", "manifest.parquet": b"1"})

        def meanwhile(system: Any, source: Path, path: str, scheme: str) -> None:
            plain(system, source, path, scheme)
            write(folder, {"pictures/2.png": b"two", "manifest.parquet": b"1 and 2"})

        monkeypatch.setattr(store, "_put", meanwhile)
        places.push_near(folder)
        assert set(there(memory, "/set/")) == {"pictures/1.png"}
        monkeypatch.setattr(store, "_put", plain)
    assert there(memory, "/set/") == {"pictures/1.png": b"one", "pictures/2.png": b"two", "manifest.parquet": b"1 and 2"}


def test_the_hub_gets_one_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """hf://: a repository in memory in place of the hub's, by huggingface_hub's own operations; each write of its file system would be a commit."""
    from types import SimpleNamespace

    from darkroom.places import hub, sync

    repository, commits = {"old.txt": b"old", "README.md": b"card"}, list[dict[str, Any]]()

    def create_commit(repo_id: str, operations: Any, **more: Any) -> None:
        commits.append({"repo": repo_id, **more})
        for one in operations:
            if type(one).__name__ == "CommitOperationDelete":
                repository.pop(one.path_in_repo)
            else:
                with one.as_file() as file:
                    repository[one.path_in_repo] = file.read()

    def resolve(path: str) -> Any:
        kind, owner, name, *inner = path.split("/")
        return SimpleNamespace(repo_id=f"{owner}/{name}", repo_type=kind.rstrip("s"), revision="main", path_in_repo="/".join(inner))

    def listed(address: str) -> dict[str, Any]:
        return {name: store.Seen(len(data), files.sha256_bytes(data)) for name, data in sorted(repository.items())}

    system = SimpleNamespace(_api=SimpleNamespace(create_commit=create_commit), resolve_path=resolve, invalidate_cache=lambda: None, async_impl=False)
    monkeypatch.setattr(hub, "reached", lambda address: (system, address.removeprefix("hf://")))
    monkeypatch.setattr(places, "listing", listed)
    monkeypatch.setattr(sync, "seen", lambda address: listed("").get(address.removeprefix("hf://datasets/us/cats/")))
    monkeypatch.setattr(sync, "parallel", lambda address: 1)
    monkeypatch.setattr(places, "fetch", lambda address, path, seen: write(path.parent, {path.name: repository[path.name]}))
    with places.writing("hf://datasets/us/cats") as folder:
        assert lie(folder) == repository
        write(folder, {"1.png": b"one", "README.md": b"new card"})
        (folder / "old.txt").unlink()
    assert commits == [{"repo": "us/cats", "repo_type": "dataset", "revision": "main", "commit_message": "2 files by Darkroom"}]
    assert repository == {"1.png": b"one", "README.md": b"new card"}


def test_a_spec_brought_near_and_written_again_names_the_address(memory: Any, tmp_path: Path) -> None:
    from darkroom.train.recipe import Recipe

    memory.pipe_file("/cats/1.png", b"one")
    memory.pipe_file("/held/2.png", b"two")
    tree = {"data": {"images": "memory://cats", "subject": "TOK cat"}, "validation": {"pictures": "memory://held"}, "base": "us/model"}
    recipe = Recipe.from_tree(tree, "test")
    found = recipe.near("validation.pictures")
    assert (Path(found.data.images) / "1.png").read_bytes() == b"one"
    assert (found.validation.pictures, found.base) == ("memory://held", "us/model")
    files.write_text(tmp_path / "recipe.toml", found.to_toml())
    assert (tmp_path / "recipe.toml").read_text() == recipe.to_toml()
    assert Recipe.from_tree({"base": "us/model"}, "test").near() == Recipe.from_tree({"base": "us/model"}, "test")
