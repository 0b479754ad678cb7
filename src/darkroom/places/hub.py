"""`hf://`: a repository of the hub, where each write is a commit. All files of a push go into one: seen whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from darkroom.places.address import asked, protocol
from darkroom.places.store import reached


def is_hub(address: str) -> bool:
    """Whether it lies on the hub."""
    return protocol(address) == "hf"


def commit(puts: Mapping[str, Path], gone: Sequence[str]) -> None:
    """Put local files at their addresses and take others away, in one commit to their repository. Raises PlaceError."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    def inside(address: str) -> str:
        return str(system.resolve_path(reached(address)[1]).path_in_repo)

    every = [*puts, *gone]
    system, path = reached(every[0])
    where = system.resolve_path(path)
    operations = [*(CommitOperationAdd(inside(each), file) for each, file in puts.items()), *(CommitOperationDelete(inside(each)) for each in gone)]
    message = f"{len(puts)} files by Darkroom"
    to = {"repo_type": where.repo_type, "revision": where.revision, "commit_message": message}
    asked(every[0], "written", lambda: system._api.create_commit(where.repo_id, operations, **to))
    system.invalidate_cache()
