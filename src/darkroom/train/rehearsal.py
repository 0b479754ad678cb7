"""A training step without numbers: on torch's meta device every tensor has a shape and no memory, and what would be alive at a time is added up.

The method is really attached, the U-Net runs forwards and backwards with the checkpointing that is asked for, and casts are those of autocast; so the peak is
that of the run's own tensors, counted and not guessed. What is not counted: workspaces inside a library's kernels, and the gaps of an allocator.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from darkroom.device import quiet_libraries
from darkroom.sdxl import configs
from darkroom.sdxl.inversion import Embedding
from darkroom.sdxl.model import SDXL
from darkroom.sdxl.text import Text, encode
from darkroom.train.recipe import Recipe

META = torch.device("meta")


@dataclass(frozen=True)
class Rehearsal:
    """What a step has, in bytes and shapes."""

    frozen: dict[str, int]
    """Frozen weights and buffers by part."""
    learned: list[tuple[tuple[int, ...], int]]
    """Shape and bytes of every trained tensor."""
    extra: int
    """Bytes of trained tensors that are no weights of the base."""
    average: int
    """Bytes of their running average."""
    peak: int
    """The most that is alive beside them, gradients included."""


def rehearse(recipe: Recipe, model: SDXL, bucket: tuple[int, int]) -> Rehearsal:
    """One step of `recipe` over a batch of `bucket` (width, height). Raises what a method raises that cannot be attached without numbers."""
    shadow = _shadow(model, ("unet", "text_encoder", "text_encoder_2"))
    own = {id(p) for part in shadow.parts.values() for p in part.parameters()}
    with META:
        attached = recipe.learner.attach(shadow, recipe.train.seed)
    learned = list({id(p): p for group in attached.groups(recipe.optimizer.rate) for p in group["params"]}.values())
    average = getattr(attached, "average", None)
    shadows = [] if average is None else list(average.shadows)
    kernels = Kernels(model)
    _checkpoint(recipe, shadow, attached, kernels)
    for parameter in learned if recipe.train.fused else ():
        parameter.register_post_accumulate_grad_hook(_drop)
    with Ledger([*(t for part in shadow.parts.values() for t in (*part.parameters(), *part.buffers())), *learned, *shadows]) as ledger:
        with kernels:
            loss = _loss(recipe, shadow, attached, bucket)
        loss.backward()  # type: ignore[no-untyped-call]
        del loss
    known = {id(p) for p in learned}
    frozen = {name: sum(t.nbytes for t in [*part.parameters(), *part.buffers()] if id(t) not in known) for name, part in shadow.parts.items()}
    extra = sum(p.nbytes for p in learned if id(p) not in own)
    return Rehearsal(frozen, [(tuple(p.shape), p.nbytes) for p in learned], extra, sum(t.nbytes for t in shadows), ledger.peak)


def encoding(model: SDXL, bucket: tuple[int, int]) -> int:
    """Bytes that the autoencoder wants to encode a picture of `bucket`, itself not counted (but for its copy in float32, where fp16 would overflow)."""
    return _through_vae(model, lambda vae, dtype: vae.encode(_empty(dtype, 1, 3, bucket[1], bucket[0])).latent_dist)


def decoding(model: SDXL, size: tuple[int, int]) -> int:
    """The same to decode a picture of size (width, height)."""
    factor = model.pixel_factor
    return _through_vae(model, lambda vae, dtype: vae.decode(_empty(dtype, 1, 4, size[1] // factor, size[0] // factor)).sample)


def _through_vae(model: SDXL, work: Any) -> int:
    vae: Any = configs.modules({"vae": dict(model.vae.config)})["vae"]
    raised = model.dtype == torch.float16 and bool(model.vae.config.force_upcast)
    dtype = torch.float32 if raised else model.dtype
    with quiet_libraries():
        vae.to(dtype)
    with torch.no_grad(), Ledger([*vae.parameters(), *vae.buffers()]) as ledger, Kernels(model, cast=False):
        work(vae, dtype)
    return int(ledger.peak + (sum(p.nbytes for p in vae.parameters()) // 2 if raised else 0))


def _shadow(model: SDXL, names: Sequence[str]) -> SDXL:
    """The model without numbers."""
    there: dict[str, Any] = {name: getattr(model, name) for name in names if getattr(model, name) is not None}
    found = {name: dict(part.config) if name == "unet" else part.config.to_dict() for name, part in there.items()}
    with quiet_libraries():
        parts: dict[str, Any] = {name: part.to(model.dtype) for name, part in configs.modules(found).items()}
    return replace(model, device=META, **parts)


def _drop(parameter: Tensor) -> None:
    parameter.grad = None


def _checkpoint(recipe: Recipe, shadow: SDXL, attached: Any, kernels: Kernels) -> None:
    """Turn checkpointing on as `loop.checkpointing` does; what is computed again goes by the same kernels."""

    def again() -> tuple[Any, Any]:
        return nullcontext(), kernels

    def checkpointed(module: nn.Module, *args: Any) -> Any:
        return checkpoint(module.__call__, *args, use_reentrant=False, context_fn=again)

    if recipe.train.gradient_checkpointing:
        for network in (shadow.unet, *attached.own):
            network.enable_gradient_checkpointing(checkpointed)
        for encoder in (shadow.text_encoder, shadow.text_encoder_2) if recipe.method.trains_text else ():
            if encoder is not None:
                with quiet_libraries(), warnings.catch_warnings(action="ignore", category=FutureWarning):
                    encoder.train().gradient_checkpointing_enable({"use_reentrant": False, "context_fn": again})


def _loss(recipe: Recipe, shadow: SDXL, attached: Any, bucket: tuple[int, int]) -> Tensor:
    """The loss of a batch, as `loop.Trainer.predict` and a plain objective compute it."""
    rows, (width, height), dtype = recipe.data.rows, bucket, shadow.dtype
    states = _empty(dtype, rows, 77, int(shadow.unet.config.cross_attention_dim))
    text = Text(states, _empty(dtype, rows, int(shadow.text_encoder_2.config.projection_dim)))
    if recipe.method.trains_text:
        with _spoken(shadow, attached.words):
            text = Text.stack([encode(shadow, [""]) for _ in range(rows)]).to(META, dtype)
    noisy = _empty(dtype, rows, 4, height // shadow.pixel_factor, width // shadow.pixel_factor)
    t, ids = _empty(torch.int64, rows), _empty(torch.float32, rows, 6 if shadow.tokenizer is not None else 5)  # a refiner's end with the aesthetic score
    extra = attached.extra(noisy, t, text, ids, _empty(torch.float32, rows, 3, height, width))
    out: Tensor = shadow.unet(noisy, t, text.states, added_cond_kwargs={"text_embeds": text.pooled, "time_ids": ids}, return_dict=False, **extra)[0]
    return (out.float() - _empty(torch.float32, *noisy.shape)).square().flatten(1).mean(1).mean()


@contextmanager
def _spoken(shadow: SDXL, words: Sequence[Embedding]) -> Iterator[None]:
    """Within the block texts hold the new words, so that gradients go through the encoders. (Where a word stands is a number, which is not there.)"""
    hooks = []
    for part, vectors in [pair for word in words for pair in word.vectors.items()]:
        encoder: Any = shadow.parts[part]
        hooks.append(encoder.get_input_embeddings().register_forward_hook(lambda _, __, out, vectors=vectors: out + vectors.mean(0).to(out.dtype)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _empty(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=META)


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it every new storage is counted while somebody holds it: `now`, and the `peak`."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        """`known` were there before."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._held = [tensor.untyped_storage() for tensor in known]
        self._alive = {id(storage) for storage in self._held}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            if id(storage) not in self._alive:
                self._count(storage)
        return out

    def _count(self, storage: Any) -> None:
        self._alive.add(id(storage))
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, id(storage), storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size


def _tensors(found: Any) -> Iterator[Tensor]:
    match found:
        case Tensor():
            yield found
        case list() | tuple():
            for inner in found:
                yield from _tensors(inner)


NARROW = (
    functional.linear, functional.conv2d, torch.conv2d, torch.matmul, torch.bmm, torch.baddbmm, torch.addmm, torch.mm, torch.einsum,
    Tensor.matmul, Tensor.__matmul__, Tensor.bmm,
)  # fmt: skip
WIDE = (functional.group_norm, functional.layer_norm, functional.softmax, torch.softmax, Tensor.softmax)
"""What autocast computes in half precision; and on a GPU in float32 (PyTorch's own lists: torch.amp, "CUDA Op-Specific Behavior")."""


class Kernels(TorchFunctionMode):
    """The run's own kernels, as far as memory tells them apart: attention that keeps no matrix of weights, and autocast, neither of which meta tensors have."""

    def __init__(self, model: SDXL, cast: bool = True) -> None:
        super().__init__()
        self.dtype = None if model.dtype == torch.float32 or not cast else model.dtype
        self.widens = model.device.type == "cuda"
        self._depth = 0
        self._narrowed: dict[int, Tensor] = {}

    def __enter__(self) -> Self:
        self._depth += 1
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._depth -= 1
        if not self._depth:
            self._narrowed.clear()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.dtype is not None and function in NARROW:
            args, kwargs = self._narrow(args), self._narrow(kwargs)
        elif self.dtype is not None and self.widens and function in WIDE:
            args, kwargs = _mapped(args, Tensor.float), _mapped(kwargs, Tensor.float)
        if function is functional.scaled_dot_product_attention:
            return _Attention.apply(*self._narrow(args[:3]))  # type: ignore[no-untyped-call]
        return function(*args, **kwargs)

    def _narrow(self, found: Any) -> Any:
        """In half precision; a float32 weight that is learned is cast once, and the copy kept until autocast ends."""
        if self.dtype is None:
            return found
        return _mapped(found, lambda tensor: self._kept(tensor) if tensor.is_leaf and tensor.requires_grad else tensor.to(self.dtype))

    def _kept(self, weight: Tensor) -> Tensor:
        if id(weight) not in self._narrowed:
            self._narrowed[id(weight)] = weight.to(self.dtype)
        return self._narrowed[id(weight)]


def _mapped(found: Any, work: Callable[[Tensor], Tensor]) -> Any:
    """With `work` done to every tensor of real numbers."""
    match found:
        case Tensor() if found.is_floating_point():
            return work(found)
        case list() | tuple():
            return type(found)(_mapped(inner, work) for inner in found)
        case dict():
            return {key: _mapped(inner, work) for key, inner in found.items()}
    return found


class _Attention(torch.autograd.Function):
    """What FlashAttention keeps (Dao et al. 2022, algorithm 1): q, k, v, the output and a float32 for each query."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        q, k, v, _, _ = ctx.saved_tensors
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
