"""What a run learned, by the run's name: RUN, or RUN@500 for its checkpoint of step 500, as the file that is drawn with."""

from __future__ import annotations

from pathlib import Path

from darkroom.errors import AdapterError
from darkroom.methods.chosen import ADAPTER
from darkroom.methods.full import MODEL

STATE = "state.safetensors"
NETWORK = "controlnet"
"""What `methods.controlnet` makes."""


def adapter_of(said: str) -> str:
    """The adapter of a run's folder, of "RUN@500" or of a folder that holds one; any other name as it is. Raises AdapterError."""
    folder = _folder(said)
    if folder is None:
        return said
    _check_worn(folder, said, "an adapter")
    if not (folder / ADAPTER).exists() and (words := _words(folder)):
        raise AdapterError(f"{said}: learned a new word, not an adapter. Give it with --embedding {words[0]}")
    return str(_there(folder / ADAPTER, said))


def word_of(said: str) -> str:
    """The new word of a run's folder or of "RUN@500" (of pivotal tuning the adapter that bundles it); any other name as it is. Raises AdapterError."""
    folder = _folder(said)
    if folder is None or not _in_run(folder):
        return said
    _check_worn(folder, said, "a new word")
    if words := _words(folder):
        return str(words[0])
    adapter = _there(folder / ADAPTER, said)
    if not _bundles(adapter):
        raise AdapterError(f"{said}: learned an adapter, not a new word. Give it with --adapter {said}")
    return str(adapter)


def steps_of(run: Path) -> list[int]:
    """Steps whose checkpoints a run has, by their folders' names."""
    return sorted(int(path.name) for path in (run / "steps").glob("[0-9]*") if path.name.isdecimal())


def _folder(said: str) -> Path | None:
    """The folder that is meant: a run's checkpoint, or the folder itself; None for the name of a file."""
    run, at, step = said.rpartition("@")
    if not (at and step.isdecimal() and Path(run).is_dir()):
        return Path(said) if Path(said).is_dir() else None
    known = steps_of(Path(run))
    if int(step) not in known:
        raise AdapterError(f"{run}: has no checkpoint of step {step}. It has: {', '.join(map(str, known)) or 'none'}.")
    return Path(run) / "steps" / f"{int(step):06d}"


def _in_run(folder: Path) -> bool:
    """Whether it is a run's folder, or that of a checkpoint; an export, which has a card, is none."""
    run = folder.parent.parent if folder.parent.name == "steps" else folder
    return (run / "recipe.toml").is_file() and (run / "facts.json").is_file() and not (run / "README.md").exists()


def _words(folder: Path) -> list[Path]:
    """Files of new words that lie in a run or a checkpoint; other folders are read as what they hold."""
    return sorted(path for path in folder.glob("*.safetensors") if path.name not in (STATE, ADAPTER)) if _in_run(folder) else []


def _bundles(adapter: Path) -> bool:
    """Whether the words of pivotal tuning lie in an adapter's file."""
    from darkroom.sdxl.adapters.header import Header
    from darkroom.sdxl.adapters.keys import BUNDLED

    return any(BUNDLED.fullmatch(name) for name in Header.read(adapter).names)


def _check_worn(folder: Path, said: str, what: str) -> None:
    """That the run learned something that a model wears. Raises AdapterError."""
    if (folder / MODEL / "model_index.json").is_file():
        raise AdapterError(f"{said}: learned a whole model, not {what}. Draw with it as the base: --base {said}")
    if (folder / NETWORK).is_dir():
        raise AdapterError(f"{said}: learned a ControlNet, not {what}. Draw with it: --control {folder / NETWORK}=PICTURE")


def _there(file: Path, said: str) -> Path:
    """The file, if there is one. Raises AdapterError, which says what there is instead."""
    folder = file.parent
    if file.exists() or not _in_run(folder):
        return file
    known = steps_of(folder)
    way_out = f", or take a checkpoint, as in {said}@{known[-1]}. It has: {', '.join(map(str, known))}" if known else "; it has no checkpoint yet"
    raise AdapterError(f"{said}: is not finished. Go on with `darkroom resume {said}`{way_out}.")
