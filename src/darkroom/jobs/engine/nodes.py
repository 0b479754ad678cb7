"""Whether a cluster's nodes will do: the same Darkroom everywhere, and the same files under the same path."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from darkroom.errors import DatasetError, OutputError, RunError

ANSWER = 60.0
"""Seconds for each node to answer."""
Told = dict[str, str]


def same_code(ray: Any, mine: Told, address: str) -> None:
    """That each node has this machine's Darkroom, by version and by the hash of its source. Raises RunError, which says what each has."""
    told = _asked(ray, _code(), address)
    others = {node: found for node, found in told.items() if found != mine}
    if others:
        lines = "\n".join(f"  {node}: {version(found)}" for node, found in others.items())
        raise RunError(
            f"--engine {address}: {len(others)} of {len(told)} nodes have another Darkroom than this machine ({version(mine)}):\n{lines}\n"
            "Results could differ from place to place. Install the same one on each node (`pip install sdxl-darkroom==...`, or the same checkout)."
        )


def same_folder(ray: Any, folder: Path, address: str) -> None:
    """That each node sees what is written into the folder here. Raises DatasetError with the nodes that do not, OutputError."""
    folder, word = folder.resolve(), secrets.token_hex(8)
    probe = folder / f".darkroom-probe-{word}"
    try:
        probe.write_text(word, encoding="ascii")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}. Workers are shown by a file there that it is the same folder.") from None
    try:
        told = _asked(ray, _seen(str(probe)), address)
    finally:
        probe.unlink(missing_ok=True)
    blind = {node: found["why"] for node, found in told.items() if found.get("word") != word}
    if blind:
        lines = "\n".join(f"  {node}: {why}" for node, why in blind.items())
        raise DatasetError(
            f"{folder}: {len(blind)} of {len(told)} nodes of {address} do not see this folder:\n{lines}\n"
            "Workers read and write files themselves: mount the folder under this path on each node (NFS or the like), or use --engine local."
        )


def code_here() -> Told:
    """Which Darkroom this process runs."""
    return _code()()


def _asked(ray: Any, question: Callable[[], Told], address: str) -> dict[str, Told]:
    """What each living node that can work answers, by its name. Raises RunError for one that does not."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    asked = ray.remote(num_cpus=0, max_retries=0)(question)
    refs = {}
    for node in alive:
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        refs[f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']}, {node['NodeID'][:8]})"] = asked.options(scheduling_strategy=strategy).remote()
    if not refs:
        raise RunError(f"--engine {address}: no node of the cluster has a CPU for work. Add one with `ray start --address=...`, or use --engine local.")
    found = {}
    for name, ref in refs.items():
        try:
            found[name] = ray.get(ref, timeout=ANSWER)
        except ray.exceptions.RayError as error:
            why = f"did not answer in {ANSWER:.0f} seconds" if isinstance(error, ray.exceptions.GetTimeoutError) else f"failed: {str(error).splitlines()[-1]}"
            raise RunError(f"--engine {address}: node {name} {why}. Take it out of the cluster or mend it, and run the command again.") from None
    return found


def _code() -> Callable[[], Told]:
    """A function that travels as code, not by its name: a node without Darkroom must be able to answer too."""

    def code() -> Told:
        import hashlib
        import importlib.util
        import re
        from pathlib import Path

        found = importlib.util.find_spec("darkroom")  # not imported: a broken one would not answer
        if found is None or found.origin is None:
            return {"version": "", "digest": ""}
        root, digest = Path(found.origin).parent, hashlib.sha256()
        for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
        version = re.search(r'__version__ = "(.+)"', Path(found.origin).read_text("utf-8"))
        return {"version": version[1] if version else "unknown", "digest": digest.hexdigest()[:12]}

    return code


def _seen(probe: str) -> Callable[[], Told]:
    """Likewise."""

    def seen() -> Told:
        from pathlib import Path

        try:
            return {"word": Path(probe).read_text("ascii"), "why": "it has another folder under this path"}
        except OSError as error:
            return {"why": "no such folder there" if not Path(probe).parent.is_dir() else f"another folder under this path ({error.strerror})"}

    return seen


def version(told: Told) -> str:
    """For a person."""
    return f"{told['version']}, source {told['digest']}" if told["version"] else "none"
