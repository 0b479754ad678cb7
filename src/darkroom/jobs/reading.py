"""How a prompt is read, for whoever is typing it: spans with weights, tags, tokens. In milliseconds, without torch or a model."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from darkroom.errors import DarkroomError, PromptError
from darkroom.jobs.tokens import CHUNK, count_tokens
from darkroom.prompt import Span, negative_preset, read

LONGEST = 20_000
"""Characters of a prompt that is read while it is typed."""


@dataclass(frozen=True)
class Reading:
    """What was understood; `error` in words where it cannot be."""

    language: str = ""
    stages: tuple[dict[str, Any], ...] = ()
    """[{"from": first step, "spans": [{"text", "weight"}]}]: the first holds from step 0."""
    tags: tuple[dict[str, Any], ...] = ()
    """<lora:...>: name, weight, text_weight, and whether there is such a file."""
    tokens: int = 0
    """Of the first stage's words."""
    chunks: int = 1
    """How many times 75 tokens are read."""
    error: str = ""

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def reading(text: str, language: str = "auto", steps: int = 25, known: Collection[str] | None = None) -> Reading:
    """Read it as a picture's prompt is read. `known`: names that <lora:NAME> finds; None: not looked at. Never raises for what is written."""
    if len(text) > LONGEST:
        return Reading(error=f"{len(text):,} characters are more than a prompt has.")
    try:
        prompt = read(negative_preset(text), language)
        stages = tuple(
            {"from": first, "spans": [asdict(span) for span in spans]} for first, spans in _stages(prompt.source, prompt.language, prompt.timeline(steps))
        )
        tags = tuple(
            {"name": tag.name, "weight": tag.unet_weight, "text_weight": tag.text_weight, "known": known is None or tag.name in known} for tag in prompt.tags
        )
        tokens = count_tokens([prompt.words])[prompt.words] if prompt.words else 0
    except DarkroomError as error:
        return Reading(error=str(error))
    return Reading(prompt.language, stages, tags, tokens, max(1, -(-tokens // CHUNK)))


def adapter_names(workspace: Path) -> set[str]:
    """What <lora:NAME> finds in a workspace: stems of the files in adapters/."""
    return {path.stem for path in (workspace / "adapters").rglob("*.safetensors")}


def _stages(source: str, language: str, timeline: Any) -> Iterator[tuple[int, list[Span]]]:
    for first, subs in timeline:
        spans = [span for sub in subs for part in sub.parts for span in part]
        yield first, _of_compel(source) if language == "compel" else spans


def _of_compel(source: str) -> list[Span]:
    """compel's own reading. Raises PromptError."""
    try:
        found = _compel_parser().parse_conjunction(source)
        prompts = [prompt for one in found.prompts for prompt in getattr(one, "prompts", [one])]
        return [Span(fragment.text, float(fragment.weight)) for prompt in prompts for fragment in prompt.children if hasattr(fragment, "text")]
    except PromptError:
        raise
    except Exception as error:  # pyparsing promises no set of errors
        raise PromptError(f"compel cannot read this: {error}") from None


@functools.cache
def _compel_parser() -> Any:
    """compel's parser alone: the package itself would bring torch."""
    package = importlib.util.find_spec("compel")
    assert package is not None and package.submodule_search_locations
    spec = importlib.util.spec_from_file_location("darkroom_compel_parser", Path(package.submodule_search_locations[0]) / "prompt_parser.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PromptParser()
