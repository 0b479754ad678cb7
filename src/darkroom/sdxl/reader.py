"""A tokenizer and its text encoder, and for a while the new words of textual inversions. Nothing of the model changes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch

from darkroom.errors import AdapterError
from darkroom.sdxl.inversion import Embedding
from darkroom.sdxl.model import SDXL
from darkroom.sdxl.text import Text, encode

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer


class Tokens:
    """The tokenizer, with an id beyond the vocabulary for each vector of a new word. compel takes it for a tokenizer of transformers."""

    def __init__(self, tokenizer: CLIPTokenizer, counts: dict[str, int], first_new: int) -> None:
        self.tokenizer = tokenizer
        self.bos_token_id, self.eos_token_id, self.pad_token_id = (int(i) for i in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id))
        self.model_max_length = int(tokenizer.model_max_length)
        self.comma = int(tokenizer.convert_tokens_to_ids(",</w>"))
        self.first_new = first_new
        self.new: dict[str, tuple[int, ...]] = {}
        self.shown: list[str] = []
        self.names = list(counts)
        for number, (name, count) in enumerate(counts.items()):
            ids = tuple(range(first_new + len(self.shown), first_new + len(self.shown) + count))
            self.new |= {name: ids, alias(number): ids}
            self.shown += [f"{name}[{index + 1}/{count}]" for index in range(count - 1)] + [f"{name}[{count}/{count}]</w>" if count > 1 else f"{name}</w>"]
        self.pattern = whole_words(self.new) if counts else None

    def units(self, text: str) -> list[tuple[int, ...]]:
        """The ids of a text without the marks at its ends; the ids of a new word are together in one tuple."""
        found: list[tuple[int, ...]] = []
        for piece in self.pattern.split(text) if self.pattern else [text]:
            if piece in self.new:
                found.append(self.new[piece])
            else:
                ids = self.tokenizer(piece, add_special_tokens=False, truncation=False, verbose=False).input_ids
                found += [(int(token),) for token in ids]
        return found

    def fitting(self, text: str) -> list[int]:
        """The ids of a text that one chunk holds: what is longer is cut, before a new word of which a part would be cut."""
        found: list[int] = []
        for unit in self.units(text):
            if len(found) + len(unit) > self.model_max_length - 2:
                break
            found += unit
        return found

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, list[list[int]]]:
        """As compel calls it: whole texts between their marks, nothing cut and nothing filled up."""
        return {"input_ids": [[self.bos_token_id, *(i for unit in self.units(text) for i in unit), self.eos_token_id] for text in texts]}

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """Tokens as the vocabulary spells them. "</w>" ends a word: compel splits long texts there, hence never inside a new word."""
        return [self.shown[i - self.first_new] if i >= self.first_new else str(self.tokenizer.convert_ids_to_tokens(i)) for i in ids]

    def named(self, text: str) -> str:
        """The text with the words themselves where stand-ins are."""
        for number, name in enumerate(self.names):
            text = text.replace(alias(number), name)
        return text

    def text_of(self, ids: Sequence[int]) -> str:
        """The words that tokens came from, as near as the tokenizer knows."""
        runs = [(new, list(run)) for new, run in groupby(ids, key=lambda i: i >= self.first_new)]
        return " ".join(" ".join(self.convert_ids_to_tokens(run)).replace("</w>", "") if new else str(self.tokenizer.decode(run)).strip() for new, run in runs)


def alias(number: int) -> str:
    """A stand-in for the new word with this number that no language of prompts can take apart."""
    return f"darkroomword{number}x"


def whole_words(names: Iterable[str]) -> re.Pattern[str]:
    """Matches any of the names, longest first, where no letter, digit or _ goes on beside it."""
    spelled = []
    for name in sorted(names, key=len, reverse=True):
        before = r"(?<!\w)" if re.match(r"\w", name) else ""
        after = r"(?!\w)" if re.search(r"\w$", name) else ""
        spelled.append(before + re.escape(name) + after)
    return re.compile(f"({'|'.join(spelled)})")


class Reader:
    """One text encoder that reads ids, those of new words too: their vectors take the place of what the embedding table gives, while it runs."""

    def __init__(self, part: str, tokenizer: CLIPTokenizer, encoder: CLIPTextModel | CLIPTextModelWithProjection, embeddings: Sequence[Embedding],
                 device: torch.device) -> None:  # fmt: skip
        self.encoder, self.device = encoder, device  # not the encoder's own device: its weights may wait elsewhere
        self.table = encoder.get_input_embeddings()
        for embedding in embeddings:
            if part not in embedding.vectors:
                raise AdapterError(f'{embedding.path}: "{embedding.name}" was read for a refiner and has no vectors for {part}. Read it for this base.')
        first_new = max(int(self.table.num_embeddings), len(tokenizer))
        self.tokens = Tokens(tokenizer, {embedding.name: embedding.count for embedding in embeddings}, first_new)
        self.vectors = torch.cat([embedding.vectors[part].float() for embedding in embeddings]) if embeddings else None
        self.memo: dict[tuple[tuple[int, ...], int], tuple[torch.Tensor, torch.Tensor | None]] = {}

    @property
    def dtype(self) -> torch.dtype:
        found: torch.dtype = self.encoder.dtype
        return found

    def __call__(self, ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **options: Any) -> Any:
        """The encoder's own output for ids (B, 77).

        The encoder itself is shown id 0 where a new word stands: SDXL's published configuration makes transformers pool at the highest id, which must
        remain that of the end.
        """
        if self.vectors is None:
            return self.encoder(ids, attention_mask, **options)
        new = ids >= self.tokens.first_new
        vectors = self.vectors.to(ids.device)[(ids - self.tokens.first_new)[new].long()]

        def replace(_: torch.nn.Module, __: Any, out: torch.Tensor) -> torch.Tensor:
            out = out.clone()
            out[new] = vectors.to(out)
            return out

        handle = self.table.register_forward_hook(replace)
        try:
            return self.encoder(ids.masked_fill(new, 0), attention_mask, **options)
        finally:
            handle.remove()

    def framed(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Up to 75 ids as the encoder reads them: between its marks, filled up to 77."""
        tokens = self.tokens
        return (tokens.bos_token_id, *ids, tokens.eos_token_id, *[tokens.pad_token_id] * (tokens.model_max_length - 2 - len(ids)))

    def hidden(self, ids: Sequence[int], clip_skip: int = 0) -> tuple[torch.Tensor, torch.Tensor | None]:
        """States (1, 77, C) and, of encoder 2, pooled (1, P) of up to 75 ids, by the operations of `darkroom.sdxl.text.encode`; once for each."""
        key = (self.framed(ids), clip_skip)
        if key not in self.memo:
            out = self(torch.tensor([key[0]]).to(self.device), output_hidden_states=True)
            self.memo[key] = (out.hidden_states[-(clip_skip + 2)], getattr(out, "text_embeds", None))
        return self.memo[key]


def readers_of(model: SDXL, embeddings: Sequence[Embedding] = ()) -> list[Reader]:
    """One reader for each encoder that the model has; the last is encoder 2, which pools. Raises AdapterError for two embeddings of one name."""
    if twice := next((name for name, count in Counter(embedding.name for embedding in embeddings).items() if count > 1), None):
        files = " and ".join(str(embedding.path) for embedding in embeddings if embedding.name == twice)
        raise AdapterError(f'{files}: both would be the word "{twice}". Rename one of the files, or leave one out.')
    pairs = (("text_encoder", model.tokenizer, model.text_encoder), ("text_encoder_2", model.tokenizer_2, model.text_encoder_2))
    return [Reader(part, tokenizer, encoder, embeddings, model.device) for part, tokenizer, encoder in pairs if tokenizer is not None and encoder is not None]


def encode_caption(model: SDXL, caption: str, embeddings: Sequence[Embedding]) -> Text:
    """A caption with its new words as training reads it: for up to 75 tokens what `conditioning.condition` gives for a plain prompt, bit for bit.

    Gradients flow into the embeddings' vectors, where those want them: zeros for a caption without their word, so that no step is without a gradient.
    """
    if not embeddings:
        return encode(model, [caption])
    found = [reader.hidden(reader.tokens.fitting(caption)) for reader in readers_of(model, embeddings)]
    pooled = found[-1][1]
    assert pooled is not None, "the last reader is encoder 2, which pools"
    return Text(torch.cat([states for states, _ in found], dim=-1), pooled)


def tokens_with(model: SDXL, counts: dict[str, int]) -> Tokens:
    """The tokenizer of encoder 2 with new words of so many vectors: for counting, before there are any vectors."""
    return Tokens(model.tokenizer_2, counts, len(model.tokenizer_2))
