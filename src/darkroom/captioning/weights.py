"""Where captioners' weights come from: a local folder, or the hub. And errors of loading in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from darkroom.device import quiet_transformers
from darkroom.errors import ModelError
from darkroom.fence import hand_over


@contextmanager
def loading(source: str, what: str) -> Iterator[None]:
    """While a library loads a model: no bars, and a ModelError that says what was to be loaded."""
    if not Path(source).exists() and (source.count("/") != 1 or source[:1] in "/.~"):
        raise ModelError(f"{source}: there is no such folder, and it is no hub id, which is written OWNER/NAME. Name a folder that holds a {what}.")
    try:
        with quiet_transformers():
            hand_over(source)
            yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" in str(error).lower():
            raise ModelError(f"{source}: does not fit into memory ({_first(error)}). Take a smaller {what}, or --device cpu.") from None
        raise ModelError(
            f"{source}: no {what} can be loaded from it: {_first(error)} Give a folder that holds one, or a hub id (which needs the network once)."
        ) from None


def fetch(source: str, file: str, what: str) -> Path:
    """A file of a local folder, or of a hub repository. Raises ModelError."""
    folder = Path(source)
    if folder.is_dir():
        if not (folder / file).is_file():
            raise ModelError(f"{source}: holds no {file}, so it is no {what}. Name the folder that has it.")
        return folder / file
    from huggingface_hub import hf_hub_download

    with loading(source, what):
        return Path(hf_hub_download(source, file))


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".") + "."
