"""The card of a learned word: what each program does with its file, alone or beside the adapter that it was learned with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from darkroom.methods import Pivotal, TextualInversion

if TYPE_CHECKING:
    from darkroom.jobs.export import Subject


def word_of(subject: Subject) -> str:
    """The new word that the export brings; "" where it brings none."""
    found = subject.recipe.inversion
    return found.word if found else ""


def is_word(subject: Subject) -> bool:
    """Whether the word is all that was learned."""
    return isinstance(subject.recipe.method, TextualInversion)


def beside(subject: Subject) -> Iterator[str]:
    """Where the word's own file goes, for an adapter that was learned together with a word."""
    word = word_of(subject)
    if isinstance(subject.recipe.method, Pivotal) and subject.base_model:
        yield (
            f"### The word\n\n`{word}` is a new word, and `{word}.safetensors` brings it: without that file the adapter works, and the word means nothing. "
            f"In A1111 it belongs into `embeddings`. In ComfyUI it belongs into `models/embeddings`, and is written `embedding:{word}` in prompts."
        )


def for_comfy(subject: Subject, text: str) -> str:
    """The text as ComfyUI wants it, where words of files have "embedding:" before them."""
    from darkroom.sdxl.reader import whole_words

    word = word_of(subject)
    return whole_words([word]).sub(lambda found: f"embedding:{found[0]}", text) if word else text


def adapter_trains_text(subject: Subject) -> bool:
    """Whether the adapter changes the text encoders."""
    method = subject.recipe.method
    return bool(getattr(method.adapter if isinstance(method, Pivotal) else method, "trains_text", False))


def use_word(subject: Subject, prompt: str, negative: str) -> Iterator[str]:
    """How A1111 and ComfyUI are prompted with a word that stands alone."""
    word = word_of(subject)
    against = f"\n\nand as negative prompt\n\n```\n{negative}\n```" if negative else ""
    yield f"### A1111 and its relatives\n\nPut `{word}.safetensors` into `embeddings`. The file's name is the word. Then prompt\n\n```\n{prompt}\n```{against}"
    said, unsaid = (for_comfy(subject, text) for text in (prompt, against))
    yield f"### ComfyUI\n\nPut `{word}.safetensors` into `models/embeddings`, and write `embedding:` before the word:\n\n```\n{said}\n```{unsaid}"


def imports(subject: Subject) -> list[str]:
    """What the code of `loading` wants."""
    if not word_of(subject):
        return []
    return [*(["from huggingface_hub import hf_hub_download"] if subject.choices["repository"] else []), "from safetensors.torch import load_file"]


def loading(subject: Subject) -> list[str]:
    """Python that gives the word to diffusers' pipe: it has no loader for a file with both encoders' vectors, and takes them one by one."""
    word = word_of(subject)
    if not word:
        return []
    file, repository = json.dumps(f"{word}.safetensors"), subject.choices["repository"]
    place = f"hf_hub_download({json.dumps(repository)}, {file})" if repository else file
    comment = "" if repository else "  # in the folder of this file"
    return [
        f"vectors = load_file({place}){comment}",
        f'pipe.load_textual_inversion(vectors["clip_l"], token={json.dumps(word)}, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)',
        f'pipe.load_textual_inversion(vectors["clip_g"], token={json.dumps(word)}, text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)',
    ]
