"""What is in an adapter file, and the same adapter in another program's layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.errors import OutputError
from darkroom.files import sha256_file
from darkroom.jobs.base import open_base

if TYPE_CHECKING:
    from darkroom.sdxl.adapters.layouts import Layout
    from darkroom.sdxl.adapters.places import Catalogue


def catalogue_for(file: Path, base: str = "") -> Catalogue:
    """The modules that the file may name: those of `base`; empty: pocket's where the file says that it was trained on it, else SDXL 1.0's."""
    from darkroom.sdxl.adapters.header import Header
    from darkroom.sdxl.adapters.places import Catalogue

    if not base and Header.read(file).metadata.get("ss_sd_model_name") == "pocket":
        base = "pocket"
    return Catalogue.of(open_base(base, "cpu", "fp32")) if base else Catalogue.of_sdxl()


def show_adapter(file: Path, base: str = "", norms: bool = True) -> dict[str, Any]:
    """Family, method, ranks, coverage, trigger words, norms by block, and which program will load it. Raises AdapterError."""
    from darkroom.sdxl.adapters.show import facts

    return facts(file, catalogue_for(file, base), norms)


def convert_adapter(file: Path, to: Layout, out: Path, base: str = "") -> dict[str, Any]:
    """Write the adapter in another layout: every key matched, or nothing is written. Raises AdapterError or OutputError."""
    from darkroom.sdxl.adapters.layouts import read, write

    if out.exists():
        raise OutputError(f"{out}: is there already. Name another file with --out.")
    adapter = read(file, catalogue_for(file, base))
    write(out, adapter, to, adapter.metadata)
    return {"file": str(out), "layout": to, "from": adapter.layout, "modules": len(adapter.changes), "sha256": sha256_file(out)}
