"""What every method gives when it is attached to a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch is imported by the functions: reading a recipe must cost nothing
    import torch

    from darkroom.sdxl.inversion import Embedding
    from darkroom.sdxl.model import SDXL
    from darkroom.sdxl.text import Text

Label = Callable[[Mapping[str, "torch.Tensor"]], dict[str, str]]
"""From the tensors of a file to what its header says."""


class Attached(ABC):
    """A change that is being learned. `detach` leaves the model's weights bit-identical to what they were before."""

    words: tuple[Embedding, ...] = ()
    """The words that prompts may say beyond the tokenizers' own, with their vectors as they are now."""
    own: tuple[Any, ...] = ()
    """Networks of its own that compute beside the model's."""

    split: bool = False
    """Whether this process holds only its part of what learns (`methods.sharded`)."""

    @abstractmethod
    def groups(self, rate: float) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer, each with its learning rate."""

    def expect(self, steps: int, accumulate: int) -> None:  # noqa: B027
        """Called before the first batch of a sitting: how many steps the whole run has, and of how many batches each is made."""

    def prepare(self, batch: int | None) -> None:  # noqa: B027 - most methods are the same in every batch
        """Called before batch `batch` of the run, and with None before pictures are drawn, losses measured and files written."""

    def after_step(self) -> None:  # noqa: B027
        """Called after each optimizer step (norms, averages)."""

    def extra(self, noisy: torch.Tensor, t: torch.Tensor, text: Text, ids: torch.Tensor, condition: torch.Tensor | None) -> dict[str, Any]:
        """Further arguments of the U-Net (a ControlNet's residuals). noisy (B, 4, h, w), t (B,), ids (B, 6), condition (B, 3, H, W) from 0 to 1."""
        return {}

    def drawing(self) -> dict[str, Any]:
        """What a `Kit` wants, beyond the model, to draw with what is being learned."""
        return {"embeddings": self.words}

    def learning(self, model: SDXL) -> SDXL:
        """What a step computes with, where that is not `model` itself."""
        return model

    def backward(self, loss: torch.Tensor) -> None:
        """Add a batch's gradients. loss: ()."""
        loss.backward()  # type: ignore[no-untyped-call]

    def collect(self) -> None:  # noqa: B027
        """Called when the gradients of a step are whole."""

    def whole(self) -> AbstractContextManager[None]:
        """Within the block the first process may draw, measure and write. Every process enters it, in the same order."""
        return nullcontext()

    @abstractmethod
    def state(self) -> dict[str, torch.Tensor]:
        """Every trained tensor at full precision, for an exact resume."""

    def shapes(self) -> dict[str, torch.Size]:
        """The shape of each tensor of `state`."""
        return {name: tensor.shape for name, tensor in self.state().items()}

    @abstractmethod
    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Put back what `state` gave."""

    @abstractmethod
    def write(self, place: Path, dtype: torch.dtype, label: Label) -> None:
        """What was learned, as the field's file or folder `place`. Raises OutputError."""

    @abstractmethod
    def metadata(self) -> dict[str, str]:
        """What the file's header says of the method."""

    @abstractmethod
    def detach(self) -> None:
        """Take the change off again."""


class Adapting(Attached):
    """A change that goes into one adapter file."""

    @abstractmethod
    def tensors(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """The change as the field's files name it."""

    def write(self, place: Path, dtype: torch.dtype, label: Label) -> None:
        """One .safetensors file."""
        from darkroom.sdxl.formats import write_adapter

        tensors = self.tensors(dtype)
        write_adapter(place, tensors, label(tensors))
