"""The reference page: every key of a recipe, of a captioner and of a screening check, with type, default, meaning and the source of the default.

All of it is read from the specs, so that it cannot say anything else than the code; `make reference` writes docs/reference.md, and a test compares.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from darkroom.captioning import Captioner
from darkroom.data.checks import Check
from darkroom.train.recipe import Recipe
from darkroom.values import Duration

WORD = re.compile(
    r"\d{4}[a-z]?\b|diffusers|sd-scripts|kohya|OneTrainer|ai-toolkit|SimpleTuner|torch|transformers|accelerate|LyCORIS|peft|bitsandbytes|prodigyopt|schedulefree|"
    r"pytorch_optimizer|wandb|TensorBoard|SDXL|Stable Diffusion|A1111|ComfyUI|OpenAI|CLIP|BLIP|SmilingWolf|cloneofsimo|OpenCV|Darkroom|"
    r"the paper|authors'|poster guide|docs/log|Google's"
)
"""What a source of a default names: a paper's year, a program, a measurement."""
NEUTRAL = ('""', "[]", "{}", "false", "0", "none", "must be given", "its own")
"""Defaults that ask for nothing, so that nobody needs to have advised them."""
NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", Duration: '"N steps" or "N epochs"', NoneType: "nothing"}
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


@dataclass(frozen=True)
class Entry:
    """One key."""

    key: str
    type: str
    default: str
    meaning: str
    source: str
    """Where the default comes from; "" where the description names nothing."""


@dataclass(frozen=True)
class Section:
    """The keys of one table, or of one kind of it."""

    path: str
    kind: str
    about: str
    entries: tuple[Entry, ...]

    @property
    def title(self) -> str:
        """As TOML writes it."""
        kind = f'kind = "{self.kind}"' if self.kind else ""
        return " ".join(word for word in (f"[{self.path}]" if self.path else "", kind) if word) or "the recipe's own keys"

    @property
    def anchor(self) -> str:
        """What links lead to."""
        return "-".join(word.replace(".", "-").replace("_", "-") for word in (self.path, self.kind) if word) or "recipe"


def recipe_sections() -> list[Section]:
    """Every table of a recipe, in its order; of a tagged union each kind. What stands at two places is told at the first."""
    return list(_sections(Recipe, "", "", {}))


def captioner_sections() -> list[Section]:
    """What `darkroom caption --with KIND --set key=value` knows."""
    return [_section(cls, "", _kind(cls), {}) for cls in _models(Captioner)]


def check_sections() -> list[Section]:
    """What `darkroom screen --set KIND.key=value` knows."""
    return [_section(cls, "", _kind(cls), {}) for cls in _models(Check)]


Places = dict[type[BaseModel], str]


def _sections(cls: type[BaseModel], path: str, kind: str, places: Places) -> Iterator[Section]:
    below = [(name, _models(info.annotation)) for name, info in cls.model_fields.items()]
    fresh = [(f"{path}.{name}".lstrip("."), model, _kind(model) if len(inner) > 1 else "") for name, inner in below for model in inner if model not in places]
    places.update({model: Section(place, kind_below, "", ()).anchor for place, model, kind_below in fresh})
    yield _section(cls, path, kind, places)
    for place, model, kind_below in fresh:
        yield from _sections(model, place, kind_below, places)


def _section(cls: type[BaseModel], path: str, kind: str, places: Places) -> Section:
    kept = [(name, info) for name, info in cls.model_fields.items() if name != "kind"]
    return Section(path, kind, " ".join((cls.__doc__ or "").split()), tuple(_entry(name, info, places) for name, info in kept))


def _entry(name: str, info: FieldInfo, places: Places) -> Entry:
    models, text = _models(info.annotation), " ".join((info.description or "").split())
    if not models:
        return Entry(name, _type(info), _value(info), text, source(text))
    if len(models) == 1:
        about = text or " ".join((models[0].__doc__ or "").split())
        return Entry(name, f"[a table](#{places[models[0]]})", "its own", about, source(about))
    links = ", ".join(f"[{_kind(model)}](#{places[model]})" for model in models)
    return Entry(name, f"a table: {links}", f'kind = "{_kind(type(info.default))}"', text, source(text))


def source(description: str) -> str:
    """Where a default comes from: the parentheses of the description that name a paper, a program or a measurement, or else the sentence that does."""
    inner = [found for found in re.findall(r"\(([^()]*(?:\([^()]*\)[^()]*)*)\)", description) if WORD.search(found)]
    outer = [found.strip(" .") for found in re.split(r"(?<=[.:;])\s", description) if re.search(r"poster guide|docs/log|Google's", found)]
    return "; ".join(inner or outer)


def _kind(cls: type[BaseModel]) -> str:
    return str(cls.model_fields["kind"].default) if "kind" in cls.model_fields else ""


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def _type(info: FieldInfo) -> str:
    """In words, with its bounds: whole number ≥ 1."""
    bounds = [f"{sign} {_plain(getattr(rule, word))}" for rule in info.metadata for word, sign in SIGNS.items() if getattr(rule, word, None) is not None]
    return ", ".join([_spoken(info.annotation), *bounds])


def _spoken(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _spoken(inner[0])
    if origin is Literal:
        return "one of " + ", ".join(_plain(value) for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_spoken(part) for part in inner if part is not NoneType))
    if origin is tuple:
        return f"list of {_plural(inner[0])}" if len(inner) == 2 and inner[1] is Ellipsis else f"{len(inner)} {_plural(inner[0])}"
    if origin in (list, frozenset, set):
        return f"list of {_plural(inner[0])}"
    if origin is dict:
        return f"table of {_plural(inner[1])} by name"
    return NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _plural(annotation: Any) -> str:
    return {str: "texts", int: "whole numbers", float: "numbers"}.get(annotation, _spoken(annotation))


def _value(info: FieldInfo) -> str:
    default = info.get_default(call_default_factory=True, validated_data={})
    return "must be given" if default is PydanticUndefined else _plain(default)


def _plain(value: Any) -> str:
    """As TOML writes it."""
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.10g}" if value == int(value) and abs(value) < 1e6 else f"{value:g}"
        case tuple() | list() | frozenset() | set():
            return f"[{', '.join(_plain(part) for part in value)}]"
        case dict():
            return "{" + ", ".join(f"{key} = {_plain(part)}" for key, part in value.items()) + "}"
        case str() | Duration():
            return f'"{value}"'
        case None:
            return "none"
        case _:
            return str(value)


# ---- the page -------------------------------------------------------------------------------------------------------------------------------------------

HEAD = """# Reference

Every key that Darkroom reads, generated from the code by `make reference`; do not edit. An unknown key is an error that names the nearest one.
The last column says where a default comes from: the paper, or the program whose default or advice it is. Where it is empty the default is Darkroom's own
choice, most often "off"; [those that ask for something](#own) are listed at the end.

A recipe is TOML: `darkroom recipes` lists those that come with Darkroom, `darkroom recipes NAME` prints one to be copied. Any key can be set for one run:
`--set train.length="1000 steps" --set method.rank=32`. Of a table with kinds, `kind` chooses one, and the other keys are that kind's own.
"""
PARTS = (
    ("Recipes", recipe_sections, ""),
    ("Captioners", captioner_sections, "Chosen with `darkroom caption FOLDER --with KIND`, their keys set with `--set key=value`.\n"),
    (
        "Screening checks",
        check_sections,
        "Those of `darkroom screen FOLDER`, their keys set with `--set KIND.key=value`; `--with` and `--without` choose them.\n",
    ),
)
PREFIX = {"Captioners": "caption", "Screening checks": "screen"}


def unsourced() -> list[tuple[str, str]]:
    """Keys whose default asks for something while their description names no source of it: name ("train.save_every") and anchor."""
    return [
        (".".join(word for word in (prefix, section.path, section.kind, entry.key) if word), f"{_anchor(prefix, section)}.{entry.key}")
        for title, sections, _ in PARTS for section in sections() for entry in section.entries for prefix in [PREFIX.get(title, "")]
        if not entry.source and entry.default not in NEUTRAL and not entry.type.startswith("a table")
    ]  # fmt: skip


def page() -> str:
    """The whole page as Markdown."""
    contents, body = [], []
    for title, sections, intro in PARTS:
        found = sections()
        prefix = PREFIX.get(title, "")
        contents.append(f"- **{title}**: " + ", ".join(f"[{_short(one)}](#{_anchor(prefix, one)})" for one in found))
        body += [f"\n## {title}\n", *([intro] if intro else []), *(_told(prefix, one) for one in found)]
    own = ", ".join(f"[{name}](#{anchor})" for name, anchor in unsourced())
    body.append(f'\n<a id="own"></a>\n## Defaults of Darkroom\'s own\n\nThey are not off, and neither a paper nor another program is named for them: {own}.')
    return "\n".join([HEAD, *contents, *body]).rstrip() + "\n"


def _short(section: Section) -> str:
    return " ".join(word for word in (section.path, section.kind) if word) or "own keys"


def _anchor(prefix: str, section: Section) -> str:
    return "-".join(word for word in (prefix, section.anchor) if word)


def _told(prefix: str, section: Section) -> str:
    head = [f'<a id="{_anchor(prefix, section)}"></a>\n### {_escaped_title(section)}\n']
    about = [f"{section.about}\n"] if section.about else []
    if not section.entries:
        return "\n".join([*head, *about, "No keys of its own.\n"])
    rows = [
        "| key | type | default | what it does | default from |",
        "|---|---|---|---|---|",
        *(_row(_anchor(prefix, section), one) for one in section.entries),
    ]
    return "\n".join([*head, *about, *rows, ""])


def _escaped_title(section: Section) -> str:
    return section.title if section.title.startswith("the ") else f"`{section.title}`"


def _row(anchor: str, entry: Entry) -> str:
    default = entry.default if entry.default in ("its own", "must be given") else f"`{entry.default}`"
    cells = (f'<a id="{anchor}.{entry.key}"></a>`{entry.key}`', re.sub("([≥≤<>]) ", r"\1&nbsp;", entry.type), default, entry.meaning, entry.source)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def told() -> dict[str, Any]:
    """The same as JSON."""
    return {title.lower(): [asdict(section) | {"title": section.title} for section in sections()] for title, sections, _ in PARTS}
