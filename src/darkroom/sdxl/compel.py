"""Prompts in compel's language, read and weighted by the compel library itself: (phrase)++, ("a", "b").and(), ("a", "b").blend(0.3, 0.7)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from darkroom.device import quiet_libraries
from darkroom.errors import PromptError
from darkroom.prompt import Span
from darkroom.prompt.languages import compel_words
from darkroom.prompt.parts import checked, clip
from darkroom.sdxl.reader import Reader, alias, whole_words
from darkroom.sdxl.text import Text
from darkroom.sdxl.weighting import chunks, side_by_side

DEEPEST = 20
"""Brackets open at once. compel's grammar recurses about a hundred calls for each, and Python's limit is a thousand."""


@dataclass(frozen=True)
class Phrase:
    """A text of .and() (one behind the other, `weight` each) or of .blend() (one over the other, `blend` each)."""

    weight: float
    blend: float | None
    spans: tuple[Span, ...]


def compel_text(readers: Sequence[Reader], source: str) -> Text:
    """states (1, 77 * n, C) equal to compel.CompelForSDXL's, and pooled (1, P).

    compel pools the raw text, with its marks as if they were words; here the words alone are pooled. Raises PromptError for what compel cannot read.
    """
    source, parsed = parse(readers, source)
    columns = [_states(reader, parsed) for reader in readers]
    words = chunks(readers[-1].tokens, ((Span(compel_words(source), 1.0),),))[0]
    pooled = readers[-1].hidden(words.ids)[1]
    assert pooled is not None
    states = side_by_side(readers, columns)
    if not torch.isfinite(states).all():
        raise PromptError(f'"{clip(source)}": its weights leave no finite numbers. Weights of a blend must not add up to 0.')
    return Text(states, pooled)


def parse(readers: Sequence[Reader], source: str) -> tuple[str, Any]:
    """The source with safe stand-ins for the words of textual inversions, and compel's own Conjunction. Raises PromptError."""
    with quiet_libraries():  # it imports all of diffusers
        from compel import PromptParser  # type: ignore[import-untyped]

    source = stand_in(readers, source)
    _check_depth(source)
    parser = PromptParser()
    try:
        with _packrat():
            if ".and(" in source or ".add(" in source:
                parser.conjunction.parse_string(source, parse_all=True)  # compel itself drops what stands behind .and() without a word
            found = parser.parse_conjunction(source)
    except Exception as error:  # pyparsing's, compel's own, RecursionError, OverflowError: whatever its grammar raises is about the prompt
        raise PromptError(f'"{clip(source)}": compel cannot read it ({clip(str(error).partition(chr(10))[0], 120)}). {WAY_OUT}') from None
    if any(getattr(prompt, "wants_cross_attention_control", False) for prompt in found.prompts):
        raise PromptError(f'"{clip(source)}": .swap() changes attention while a picture is drawn, which Darkroom does not do. Write the new word itself.')
    if found.lora_weights:
        raise PromptError(f'"{clip(source)}": withLora() names an adapter, and in Darkroom that is <lora:name:weight>.')
    if not found.prompts:
        raise PromptError(f'"{clip(source)}": compel finds no words in it. {WAY_OUT}')
    for phrase in phrases(found):
        for span in phrase.spans:
            checked(span.weight, span.text)
        checked(phrase.weight if phrase.blend is None else phrase.blend, source)
    return source, found


WAY_OUT = "Check brackets and quotes, or read it otherwise: --language plain or a1111."


def stand_in(readers: Sequence[Reader], source: str) -> str:
    """The words of textual inversions as letters and digits: compel's grammar would take "<cat-toy>" or "bad.v2" apart."""
    names = readers[-1].tokens.names
    if not names:
        return source
    return whole_words(names).sub(lambda found: alias(names.index(found[0])), source)


def phrases(conjunction: Any) -> list[Phrase]:
    """What compel understood, flat: each text of each conjunction or blend with its weighted spans."""
    found = []
    for prompt, weight in zip(conjunction.prompts, conjunction.weights, strict=True):
        blended = hasattr(prompt, "normalize_weights")
        for inner, share in zip(prompt.prompts, prompt.weights, strict=True) if blended else ((prompt, None),):
            found.append(Phrase(float(weight), share, tuple(Span(child.text, float(child.weight)) for child in inner.children)))
    return found


def provider_of(reader: Reader) -> Any:
    """compel for one encoder, set up as CompelForSDXL sets it up."""
    from compel import Compel, ReturnedEmbeddingsType

    kind = ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
    return Compel(tokenizer=reader.tokens, text_encoder=reader, returned_embeddings_type=kind, truncate_long_prompts=False)


def _states(reader: Reader, conjunction: Any) -> torch.Tensor:
    try:
        with quiet_libraries():
            states: torch.Tensor = provider_of(reader).build_conditioning_tensor_for_conjunction(conjunction)[0]
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:  # compel looks tokens up by their text, and an empty or odd span defeats it
        raise PromptError(f"compel cannot weight this prompt ({clip(str(error), 120)}). {WAY_OUT}") from error
    return states


def _check_depth(source: str) -> None:
    depth = 0
    for previous, character in zip(" " + source, source, strict=False):
        if previous != "\\":
            depth = max(0, depth + (character == "(") - (character == ")"))
        if depth > DEEPEST:
            raise PromptError(f'"{clip(source)}": more than {DEEPEST} brackets are open at once. Write one weight instead, such as (word)1.3.')


@contextmanager
def _packrat() -> Iterator[None]:
    """pyparsing with a memory: without it compel's grammar takes five times as long for each bracket inside another (5 s for six)."""
    import pyparsing

    if pyparsing.ParserElement._packratEnabled:
        yield
        return
    pyparsing.ParserElement.enable_packrat(cache_size_limit=None)
    try:
        yield
    finally:
        pyparsing.ParserElement.disable_memoization()
