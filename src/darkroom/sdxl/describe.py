"""What a model makes of a prompt, as data: spans, weights, tokens, chunks, stages, and what the pooled text does not see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from darkroom.prompt import Part, Prompt, Span, Sub
from darkroom.prompt.languages import compel_words
from darkroom.sdxl.compel import parse, phrases, provider_of
from darkroom.sdxl.inversion import Embedding
from darkroom.sdxl.model import SDXL
from darkroom.sdxl.reader import Reader, readers_of
from darkroom.sdxl.text import check_clip_skip
from darkroom.sdxl.weighting import CHUNK, Chunk, chunks

Facts = dict[str, Any]


def describe(model: SDXL, prompt: Prompt, steps: int, embeddings: Sequence[Embedding] = (), clip_skip: int = 0) -> Facts:
    """The prompt as JSON-able facts, in the tokens of encoder 2 (encoder 1 has the same words).

    A stage holds texts (AND), a text holds parts (BREAK; with compel the texts of .and() and .blend()), a part holds spans. `beyond` is what lies behind
    the first 75 tokens: the states hold it, the pooled text does not. `length` is the states' own: 77, or a multiple of it.
    Raises PromptError as `condition` does.
    """
    check_clip_skip(model, clip_skip)
    reader = readers_of(model, embeddings)[-1]
    names = [embedding.name for embedding in embeddings]
    stages: list[Facts] = []
    seen: set[int] = set()
    for first, subs in prompt.timeline(steps):
        texts = [_text(reader, prompt, sub) for sub in subs]
        seen.update(i for text in texts for i in text.pop("ids"))
        stages.append({"first_step": first, "texts": texts})
    return {
        "source": prompt.source,
        "language": prompt.language,
        "words": prompt.words,
        "steps": steps,
        "clip_skip": clip_skip,
        "adapters": [{"name": tag.name, "text_weight": tag.text_weight, "unet_weight": tag.unet_weight} for tag in prompt.tags],
        "embeddings": [{"name": name, "used": bool(seen & set(reader.tokens.new[name]))} for name in names],
        "stages": stages,
    }


def _text(reader: Reader, prompt: Prompt, sub: Sub) -> Facts:
    if prompt.language == "compel":
        return _compel(reader, prompt.source)
    found = chunks(reader.tokens, sub.parts)
    parts = [{"weight": 1.0, "blend": None, "spans": _spans(reader, part)} for part in sub.parts]
    return _facts(reader, sub.weight, parts, found, found)


def _compel(reader: Reader, source: str) -> Facts:
    """compel's own chunks, and those of the bare words, whose first one is pooled."""
    source, parsed = parse([reader], source)
    texts = phrases(parsed)
    parts = [{"weight": text.weight, "blend": text.blend, "spans": _spans(reader, text.spans)} for text in texts]
    provider = provider_of(reader).conditioning_provider
    counted: list[Chunk] = []
    counts = []
    for text in texts:
        ids, weights, _ = provider.get_token_ids_and_expand_weights([s.text for s in text.spans], [s.weight for s in text.spans], device="cpu")
        counts.append(len(ids) // (CHUNK + 2))
        counted += [_unframed(reader, ids[i : i + CHUNK + 2].tolist(), weights[i : i + CHUNK + 2].tolist()) for i in range(0, len(ids), CHUNK + 2)]
    pooled = chunks(reader.tokens, ((Span(compel_words(source), 1.0),),))
    lies_over = any(text.blend is not None for text in texts)  # blended texts lie over one another, all others side by side
    return _facts(reader, 1.0, parts, counted, pooled) | ({"length": max(counts) * (CHUNK + 2)} if lies_over else {})


def _unframed(reader: Reader, ids: list[int], weights: list[float]) -> Chunk:
    end = ids.index(reader.tokens.eos_token_id)
    return Chunk(tuple(ids[1:end]), tuple(weights[1:end]))


def _facts(reader: Reader, weight: float, parts: list[Facts], found: list[Chunk], pooled: list[Chunk]) -> Facts:
    beyond = [i for chunk in pooled[1:] for i in chunk.ids]
    return {
        "weight": weight,
        "parts": parts,
        "tokens": sum(len(chunk.ids) for chunk in found),
        "chunks": [len(chunk.ids) for chunk in found],
        "length": len(found) * (CHUNK + 2),
        "beyond": reader.tokens.text_of(beyond),
        "ids": [i for chunk in found for i in chunk.ids],
    }


def _spans(reader: Reader, part: Part) -> list[Facts]:
    tokens = reader.tokens
    rows = []
    for span in part:
        ids = [i for unit in tokens.units(span.text) for i in unit]
        rows.append({"text": tokens.named(span.text), "weight": span.weight, "count": len(ids), "tokens": tokens.convert_ids_to_tokens(ids)})
    return rows
