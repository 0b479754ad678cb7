"""Textual inversion: learn a new word, and nothing of the model (Gal et al. 2022, section 4.1), for both of SDXL's text encoders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field

from darkroom.device import generator
from darkroom.errors import RecipeError
from darkroom.methods.attached import Adapting
from darkroom.methods.chosen import kept, put_back
from darkroom.spec import Spec

if TYPE_CHECKING:  # torch is imported by the functions: reading a recipe must cost nothing
    import torch
    from torch import nn

    from darkroom.sdxl.model import SDXL

LEARNING = {"both": ("text_encoder", "text_encoder_2"), "first": ("text_encoder",), "second": ("text_encoder_2",)}


class TextualInversion(Spec):
    """Learn the vectors of a new word. In captions it stands for itself, and must be a word of its own there, spelled alike."""

    kind: Literal["inversion"] = "inversion"
    word: str = Field("", description="The new word, which is the name of the file too. Empty: the trigger, the first word of data.subject.")
    vectors: int = Field(1, ge=1, le=75, description="How many tokens the word takes in a prompt (diffusers' script: 1; detailed subjects: up to 8).")
    start: str = Field(
        "",
        description='Known words whose vectors it begins as. Empty: what follows the trigger in data.subject, as "cat" in "TOK cat"; where nothing does, '
        "vectors are drawn as the vocabulary's are spread.",
    )
    norm: Literal["start", "vocabulary", "free"] = Field(
        "start",
        description="The length that each vector keeps: the one it began with, the mean of the vocabulary's, or none. Longer ones drown the rest of a prompt.",
    )
    encoders: Literal["both", "first", "second"] = Field("both", description="Whose vectors learn; those of the other stay as they began.")
    rate_2: float = Field(1.0, gt=0, le=1000, description="Learning rate of the second encoder's vectors, as a multiple of the first's.")

    @property
    def trains_text(self) -> bool:
        """Text cannot be encoded beforehand."""
        return True

    @property
    def inversion(self) -> TextualInversion:
        """Itself; of a pivotal tuning, the part that learns a word."""
        return self

    def taught(self, subject: str) -> Self:
        """With the word and the start that a recipe's subject gives, where they are left open."""
        word, _, known = subject.strip().partition(" ")
        return self.model_copy(update={"word": self.word or word, "start": self.start or known.strip()})

    def product(self, trigger: str) -> str:
        """The file is named after the word: that is how A1111 and ComfyUI know it."""
        return f"{self.word or trigger}.safetensors"

    def wanted(self, name: str) -> bool:
        """Whether the module `part.path` is changed: none is."""
        return False

    def numbers(self, shape: tuple[int, ...]) -> int:
        """How many numbers are learned of a weight of this shape: none of any."""
        return 0

    def attach(self, model: SDXL, seed: int) -> Inverted:
        """A fresh word beside the model. Raises RecipeError for a word that no prompt could say, for a refiner, and for a start that is no word."""
        return Inverted(self, model, seed)


class Inverted(Adapting):
    """The vectors of a new word that are being learned. Encoders, embedding tables and tokenizers are left alone: `sdxl.reader` puts the vectors in."""

    def __init__(self, spec: TextualInversion, model: SDXL, seed: int) -> None:
        from torch import nn

        from darkroom.sdxl.inversion import Embedding

        check(spec, model)
        self.spec, self.model = spec, model
        self.vectors = {part: nn.Parameter(first_vectors(spec, model, part, seed)) for part in LEARNING["both"]}
        self.lengths = {part: self._length(part) for part in self.vectors}
        for part, vectors in self.vectors.items():
            vectors.requires_grad_(part in LEARNING[spec.encoders])
        for root in model.parts.values():
            root.requires_grad_(False)
        self.words = (Embedding(spec.word, Path("learned"), "", dict(self.vectors)),)

    def _length(self, part: str) -> torch.Tensor:
        """(n, 1), or () for all alike."""
        own: torch.Tensor = self.vectors[part].detach().norm(dim=-1, keepdim=True)
        return table(self.model, part).norm(dim=-1).mean().to(own) if self.spec.norm == "vocabulary" else own

    def _learned(self) -> Iterator[tuple[tuple[str, str], str, nn.Parameter]]:
        for part in LEARNING[self.spec.encoders]:
            yield (part, "word"), f"word.{part}", self.vectors[part]

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """One for each encoder whose vectors learn; one for both where their rates are the same."""
        rates = {"text_encoder": rate, "text_encoder_2": rate * self.spec.rate_2}
        groups: dict[float, list[nn.Parameter]] = {}
        for (part, _), _, vectors in self._learned():
            groups.setdefault(rates[part], []).append(vectors)
        return [{"params": members, "lr": each, "name": "word"} for each, members in groups.items()]

    def after_step(self) -> None:
        """Each vector that learned gets back the length it keeps (diffusers' advanced script draws it a tenth of the way, and of all vectors together)."""
        import torch

        if self.spec.norm == "free":
            return
        with torch.no_grad():
            for (part, _), _, vectors in self._learned():
                if vectors.requires_grad:
                    vectors.mul_(self.lengths[part] / vectors.norm(dim=-1, keepdim=True))

    def freeze(self) -> None:
        """From now on the vectors stay as they are: they get no gradient, and what has none is left out by every optimizer."""
        for vectors in self.vectors.values():
            vectors.requires_grad_(False)

    def state(self) -> dict[str, torch.Tensor]:
        """Full-precision vectors by encoder."""
        return kept(self._learned())

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Put back what `state` gave."""
        put_back(self._learned(), state)

    def tensors(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """{"clip_l": (n, C1), "clip_g": (n, C2)}, sd-scripts' layout."""
        from darkroom.sdxl.inversion import CLIP_NAMES

        return {clip: self.vectors[part].detach().cpu().to(dtype, copy=True) for clip, part in CLIP_NAMES.items()}

    def metadata(self) -> dict[str, str]:
        """Nothing beyond what every file says: a word has no network."""
        return {}

    def detach(self) -> None:
        """Nothing was put on the model."""


def check(spec: TextualInversion, model: SDXL) -> None:
    """Raises RecipeError where there is no word, no prompt could say it, or the model is a refiner."""
    from darkroom.sdxl.inversion import sayable

    if not spec.word:
        raise RecipeError('method.word is empty: name the new word, or the subject with its trigger word first, as in --subject "TOK cat".')
    if not sayable(spec.word) or spec.word.startswith(".") or len(spec.word) > 200:
        raise RecipeError(
            f'method.word = "{spec.word}": a prompt cannot say it as one word, or no file can be called so. Letters, digits, _ . - and <...> are fine.'
        )
    if model.text_encoder is None:
        raise RecipeError(f"{model.source}: is a refiner, with one text encoder, and SDXL's words have vectors for two. Learn the word with its base.")


def table(model: SDXL, part: str) -> torch.Tensor:
    """The vectors of all words that an encoder knows, float32 (v, C)."""
    encoder: Any = model.parts[part]
    weight: torch.Tensor = encoder.get_input_embeddings().weight
    return weight.detach().float()


def first_vectors(spec: TextualInversion, model: SDXL, part: str, seed: int) -> torch.Tensor:
    """(n, C) on the model's device: of the start's m tokens, again from the first where n > m (sd-scripts), of so many runs of them where n < m."""
    import torch

    known = table(model, part).to(model.device)
    if not spec.start:
        draw = torch.randn(spec.vectors, known.shape[1], generator=generator(seed, "word", part))
        return known.mean(0) + draw.to(known.device) * known.std(0)
    tokenizer: Any = model.tokenizer if part == "text_encoder" else model.tokenizer_2
    ids = tokenizer(spec.start, add_special_tokens=False, verbose=False).input_ids
    if not ids:
        raise RecipeError(f'method.start = "{spec.start}": is no word that the text encoders know. Name some, such as "cat".')
    found = known[torch.tensor(ids, device=known.device)]
    if spec.vectors >= len(ids):
        return found[torch.arange(spec.vectors, device=known.device) % len(ids)]
    return torch.stack([_mean(run) for run in found.tensor_split(spec.vectors)])


def _mean(run: torch.Tensor) -> torch.Tensor:
    """The mean of some vectors, as long as they are on average: a plain mean of words is shorter than any word."""
    mean = run.mean(0)
    longer: torch.Tensor = mean * (run.norm(dim=-1).mean() / mean.norm())
    return longer
