"""Captions by a fixed sentence with names in braces, filled from the picture's row."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator

from darkroom.captioning.exhibit import Exhibit
from darkroom.data.manifest import Row
from darkroom.errors import DatasetError, RecipeError, did_you_mean
from darkroom.spec import Spec


class Template(Spec):
    """One sentence for all: "a photo of {subject}", "a {genre} poster, {title}"."""

    kind: Literal["template"] = "template"
    template: str = Field(
        "a photo of {subject}",
        min_length=1,
        description="Names in braces are {subject}, {name} and {folder} of the file, a column of the table it came from, or who wrote a caption, as {blip}.",
    )
    subject: str = Field("", description='What the pictures show, trigger word first: "TOK cat".')
    batch: int = Field(256, ge=1, description="Pictures between two saves.")

    @field_validator("template")
    @classmethod
    def _readable(cls, text: str) -> str:
        for name in names(text):
            if not name or not name.replace("_", "").replace(" ", "").replace("-", "").isalnum():
                raise ValueError(f'"{{{name}}}" is no name: write {{subject}} or {{title}}, and {{{{ for a brace')
        return text

    def open(self, device: str, rows: Sequence[Row]) -> TemplateWriter:
        """Raises RecipeError where a name in braces is unknown to every row."""
        known = {"subject", "name", "folder"} | {key for row in rows for key in (*row.captions, *row.extra)}
        for name in names(self.template):
            if name not in known:
                raise RecipeError(f'--with template: no picture knows "{{{name}}}".{did_you_mean(name, known)} Known: {", ".join(sorted(known))}.')
        if "subject" in names(self.template) and not self.subject.strip() and not any("subject" in row.extra for row in rows):
            raise RecipeError(f'--with template: "{self.template}" wants a subject. Give it with --subject "TOK cat", or another sentence with --template.')
        return TemplateWriter(self)


def names(text: str) -> list[str]:
    """The names in braces. Raises ValueError for a brace that stands alone, and for anything but a name between two."""
    found = []
    for _, name, form, conversion in string.Formatter().parse(text):
        if form or conversion:
            raise ValueError(f'"{{{name}...}}" says how to write a value: names alone can stand in braces')
        if name is not None:
            found.append(name)
    return found


class TemplateWriter:
    """Fills the sentence. It never looks at a picture."""

    looks = False

    def __init__(self, spec: Template) -> None:
        self.spec, self.batch = spec, spec.batch
        self._names = Counter(names(spec.template))

    def write(self, exhibits: Sequence[Exhibit]) -> list[str]:
        """Raises DatasetError where a row has nothing to put for a name."""
        return [self._filled(exhibit.row) for exhibit in exhibits]

    def _filled(self, row: Row) -> str:
        folder, _, name = row.file.rpartition("/")
        known = {"subject": self.spec.subject.strip(), "name": name.rpartition(".")[0], "folder": folder.rpartition("/")[2], **row.captions, **row.extra}
        if missing := [name for name in self._names if not known.get(name, "").strip()]:
            raise DatasetError(f"{row.file}: has nothing to put for {', '.join(f'{{{name}}}' for name in missing)}.")
        return self.spec.template.format_map(known)
