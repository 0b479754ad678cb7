"""What is in an adapter file or a textual inversion, and the same in another program's layout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.errors import AdapterError, OutputError
from darkroom.files import sha256_file, whole_folder
from darkroom.jobs.base import open_base

if TYPE_CHECKING:
    from darkroom.sdxl.adapters.inversion_files import Word
    from darkroom.sdxl.adapters.layouts import Layout
    from darkroom.sdxl.adapters.places import Catalogue

LARGE = 500_000_000
"""Bytes above which an adapter is shown by its header alone, unless norms are asked for: it is shown at once all the same."""


@dataclass(frozen=True)
class Conversion:
    """What is to be converted, and how. `out` None: beside the file, with the layout in its name.

    `word` calls a textual inversion otherwise, `bundle` is the LoRA that it is put into; `unbundle` takes the words out of a LoRA; `sidecar` is the
    preferred weight that A1111's side-car is to name (None: no side-car).
    """

    file: Path
    to: Layout
    out: Path | None = None
    base: str = ""
    word: str = ""
    bundle: Path | None = None
    unbundle: bool = False
    sidecar: float | None = None


def _trained_on(file: Path, base: str) -> str:
    """The base that was named, or pocket where the file says that it was trained on it."""
    from darkroom.sdxl.adapters.header import Header

    return base or ("pocket" if file.is_file() and Header.read(file).metadata.get("ss_sd_model_name") == "pocket" else "")


def catalogue_for(file: Path, base: str = "") -> Catalogue:
    """The modules that the file may name: those of `base`; empty: pocket's where the file says that it was trained on it, else SDXL 1.0's."""
    from darkroom.sdxl.adapters.places import Catalogue

    chosen = _trained_on(file, base)
    return Catalogue.of(open_base(chosen, "cpu", "fp32")) if chosen else Catalogue.of_sdxl()


def show_adapter(file: Path, base: str = "", norms: bool | None = None) -> dict[str, Any]:
    """Family, method, ranks, coverage, trigger words, norms by block, what is odd, and which program will load it. Raises AdapterError.

    `norms` None computes them for files up to LARGE. Of a textual inversion its words and vectors, against the vocabulary of `base` where that is named.
    """
    from darkroom.sdxl.adapters.inversion_files import holds_words
    from darkroom.sdxl.adapters.show import facts, word_facts
    from darkroom.sdxl.inversion import vocabulary, widths

    if not holds_words(file):
        return facts(file, catalogue_for(file, base), file.stat().st_size <= LARGE if norms is None else norms)
    if not (chosen := _trained_on(file, base)):
        return word_facts(file)
    model = open_base(chosen, "cpu", "fp32")
    return word_facts(file, widths(model), vocabulary(model), model.source)


def convert_adapter(asked: Conversion) -> dict[str, Any]:
    """Write an adapter or a textual inversion in another layout: every key matched, or nothing is written. Raises AdapterError or OutputError."""
    from darkroom.sdxl.adapters.inversion_files import Word, holds_words
    from darkroom.sdxl.adapters.layouts import read, tensors_in, write
    from darkroom.sdxl.adapters.metadata import is_negative, sidecar, trigger_words

    if holds_words(asked.file):
        return _convert_words(asked)
    if asked.bundle or asked.word:
        option = "--bundle" if asked.bundle else "--word"
        raise AdapterError(f"{asked.file}: is an adapter, and {option} is for a textual inversion: give that as the file, and with --bundle the LoRA.")
    out = _free(asked.out or asked.file.with_name(f"{asked.file.stem}-{asked.to}.safetensors"))
    adapter = read(asked.file, catalogue_for(asked.file, asked.base))
    words = [Word(name, vectors, (asked.file,), "bundled") for name, vectors in adapter.embeddings.items()] if asked.unbundle else []
    if asked.unbundle and not words:
        raise AdapterError(f"{asked.file}: bundles no embedding, and --unbundle has nothing to take out. Leave it out.")
    kept = replace(adapter, embeddings={}) if asked.unbundle else adapter
    tensors_in(kept, asked.to)  # what the layout cannot say is refused before anything is written
    apart = _write_words(out.with_name(f"{out.stem}-words"), words, "kohya" if asked.to == "kohya" else "diffusers") if words else []
    write(out, kept, asked.to, adapter.metadata)
    if asked.sidecar is not None:
        sidecar(out, trigger_words(adapter.metadata, asked.file), asked.sidecar, is_negative(adapter.metadata))
    return _done(asked, out, adapter.layout, len(adapter.changes), {word.name: word.count for word in words}, apart)


def _free(out: Path) -> Path:
    if out.exists():
        raise OutputError(f"{out}: is there already. Name another file with --out.")
    return out


def _done(asked: Conversion, out: Path, layout: str, modules: int, words: dict[str, int], apart: list[Path]) -> dict[str, Any]:
    digest = {"sha256": sha256_file(out)} if out.is_file() else {}
    files = {"files": [str(path) for path in apart]} if apart else {}
    return {"file": str(out), "layout": asked.to, "from": layout, "modules": modules, "words": words, **digest, **files}


def _convert_words(asked: Conversion) -> dict[str, Any]:
    """A textual inversion in another layout, or into a LoRA."""
    from darkroom.sdxl.adapters.inversion_files import read_words, write_word

    file = asked.file.resolve()
    if asked.unbundle or asked.sidecar is not None:
        option = "--unbundle" if asked.unbundle else "--sidecar"
        raise AdapterError(f"{asked.file}: is a textual inversion, and {option} is for adapters. Leave it out.")
    if asked.bundle:
        return _bundle(asked, asked.bundle)
    words = _renamed(read_words(file, catalogue_for(file, asked.base).words), asked.word)
    if asked.to == "peft":
        raise AdapterError(f"{asked.file}: is a textual inversion, and peft has no file for that. Choose --to kohya or --to diffusers.")
    counts = {word.name: word.count for word in words}
    if asked.out is not None and asked.out.suffix == ".safetensors" and asked.to == "kohya" and len(words) == 1:
        write_word(_free(asked.out), words[0], "kohya")
        return _done(asked, asked.out, words[0].layout, 0, counts, [])
    if asked.out is not None and asked.out.suffix == ".safetensors":
        raise AdapterError(f"{asked.out}: several files are to be written. Name a folder with --out.")
    folder = asked.out or file.with_name(f"{file.stem}-{asked.to}")
    return _done(asked, folder, words[0].layout, 0, counts, _write_words(folder, words, asked.to))


def _renamed(words: list[Word], name: str) -> list[Word]:
    if name and len(words) > 1:
        raise AdapterError(f"{words[0].files[0]}: brings {len(words)} words ({', '.join(word.name for word in words)}), and --word names one. Leave it out.")
    return [words[0].called(name)] if name else words


def _write_words(folder: Path, words: list[Word], to: Any) -> list[Path]:
    """Into a new folder: each a file under its name, or diffusers' two files, in a folder of their own where there are several words."""
    from darkroom.sdxl.adapters.inversion_files import write_word

    with whole_folder(folder) as part:
        for word in words:
            inner = f"{word.file_name}.safetensors" if to == "kohya" else word.file_name if len(words) > 1 else "."
            write_word(part / inner, word, to)
    return sorted(folder.rglob("*.safetensors"))


def _bundle(asked: Conversion, lora: Path) -> dict[str, Any]:
    from darkroom.sdxl.adapters.inversion_files import read_words
    from darkroom.sdxl.adapters.layouts import read, write

    out = _free(asked.out or lora.with_name(f"{lora.stem}-bundled.safetensors"))
    adapter = read(lora, catalogue_for(lora, asked.base))
    words = _renamed(read_words(asked.file, adapter.catalogue.words), asked.word)
    if twice := next((word.name for word in words if word.name in adapter.embeddings), None):
        raise AdapterError(f'{lora}: bundles the word "{twice}" already. Give the new one another name with --word, or take the old one out with --unbundle.')
    write(out, replace(adapter, embeddings=adapter.embeddings | {word.name: word.vectors for word in words}), asked.to, adapter.metadata)
    return _done(asked, out, words[0].layout, len(adapter.changes), {word.name: word.count for word in words}, [])


def converted(done: dict[str, Any]) -> list[str]:
    """What `convert_adapter` did, for a terminal."""
    parts = [f"{done['modules']} modules"] if done["modules"] else []
    parts += [f'the word "{name}" ({count} vector{"" if count == 1 else "s"})' for name, count in done["words"].items()]
    return [f"{done['file']}  {done['from']} -> {done['layout']}, {', '.join(parts)}", *(f"  {file}" for file in done.get("files", ()))]
