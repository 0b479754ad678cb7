"""Pivotal tuning: a new word and an adapter learned together, each at its own rate (Roich et al. 2021; cloneofsimo/lora; diffusers' advanced script)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag

from darkroom.methods.attached import Adapting
from darkroom.methods.chosen import ADAPTER
from darkroom.methods.inversion import Inverted, TextualInversion
from darkroom.methods.lora import LoRA
from darkroom.methods.lycoris import LyCORIS
from darkroom.spec import Spec, kind_of

if TYPE_CHECKING:
    import torch

    from darkroom.sdxl.model import SDXL

Adapter = Annotated[Annotated[LoRA, Tag("lora")] | Annotated[LyCORIS, Tag("lycoris")], Discriminator(kind_of("lora"))]


class Pivotal(Spec):
    """Learn a new word, and beside it what the model lacks to draw it."""

    kind: Literal["pivotal"] = "pivotal"
    inversion: TextualInversion = TextualInversion()
    adapter: Adapter = LoRA()
    word_rate: float = Field(5.0, gt=0, le=1000, description="Learning rate of the word, as a multiple of the adapter's (cloneofsimo's lora: 5e-4 to 1e-4).")
    until: float = Field(
        1.0, gt=0, le=1, description="The share of the steps after which the word stays as it is (diffusers' advanced script: train_text_encoder_ti_frac)."
    )

    @property
    def trains_text(self) -> bool:
        """Text cannot be encoded beforehand."""
        return True

    def taught(self, subject: str) -> Self:
        """With the word and the start that a recipe's subject gives, where they are left open."""
        return self.model_copy(update={"inversion": self.inversion.taught(subject)})

    def product(self, trigger: str) -> str:
        """One file with both: an adapter that bundles its word."""
        return ADAPTER

    def wanted(self, name: str) -> bool:
        """Whether the adapter changes the module `part.path`."""
        return self.adapter.wanted(name)

    def numbers(self, shape: tuple[int, ...]) -> int:
        """How many numbers the adapter learns of a weight of this shape, about."""
        return self.adapter.numbers(shape)

    def attach(self, model: SDXL, seed: int) -> Pivoted:
        """A fresh adapter on the model, and a fresh word beside it. Raises RecipeError as both do."""
        word = self.inversion.attach(model, seed)
        return Pivoted(self, word, self.adapter.attach(model, seed))


class Pivoted(Adapting):
    """A word and an adapter that are being learned."""

    def __init__(self, spec: Pivotal, word: Inverted, adapter: Adapting) -> None:
        self.spec, self.word, self.adapter = spec, word, adapter
        self.words = word.words
        self.pivot: int | None = None

    def expect(self, steps: int, accumulate: int) -> None:
        """The word learns in the first batches alone, at least in those of one step."""
        self.pivot = max(1, round(self.spec.until * steps)) * accumulate

    def prepare(self, batch: int | None) -> None:
        """From the pivot on the word stays as it is, whether the run came there or was resumed behind it."""
        if batch is not None and self.pivot is not None and batch >= self.pivot:
            self.word.freeze()
        self.adapter.prepare(batch)

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """The adapter's, then the word's."""
        return [*self.adapter.groups(rate), *self.word.groups(rate * self.spec.word_rate)]

    def after_step(self) -> None:
        """What both do."""
        self.word.after_step()
        self.adapter.after_step()

    def state(self) -> dict[str, torch.Tensor]:
        """The tensors of both."""
        return {**self.adapter.state(), **self.word.state()}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Put back what `state` gave."""
        mine = self.word.state().keys()
        self.word.load_state({name: tensor for name, tensor in state.items() if name in mine})
        self.adapter.load_state({name: tensor for name, tensor in state.items() if name not in mine})

    def tensors(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """The adapter's, with the word as OneTrainer bundles it: bundle_emb.<word>.clip_l | clip_g."""
        bundle = {f"bundle_emb.{self.spec.inversion.word}.{clip}": vectors for clip, vectors in self.word.tensors(dtype).items()}
        return {**self.adapter.tensors(dtype), **bundle}

    def metadata(self) -> dict[str, str]:
        """What the adapter says."""
        return self.adapter.metadata()

    def detach(self) -> None:
        """Take the adapter off again."""
        self.adapter.detach()
