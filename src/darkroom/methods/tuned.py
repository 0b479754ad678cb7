"""A model whose own weights learn, and the model that comes out: a diffusers folder, and a single file by option."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darkroom.errors import RecipeError
from darkroom.methods.attached import Attached, Label
from darkroom.methods.chosen import Key, check_words
from darkroom.methods.ema import Average
from darkroom.methods.full import FullTuning
from darkroom.sdxl.folder import write_tensors
from darkroom.sdxl.layout import canonical
from darkroom.sdxl.model import SDXL
from darkroom.sdxl.sources import open_source
from darkroom.sdxl.unread import Unread, write_model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(eq=False)
class Weight:
    """One tensor of the model that learns, or that computes beside those that do. `parameter` holds what is learned, whatever the module shows."""

    key: Key
    owner: nn.Module
    parameter: nn.Parameter
    before: torch.Tensor
    home: torch.device
    learns: bool

    @property
    def name(self) -> str:
        """ "unet.conv_in.weight"."""
        return ".".join(self.key)

    def show(self, value: torch.Tensor | None) -> None:
        """Let the module compute with another tensor; None: with the parameter."""
        leaf = self.key[1].rpartition(".")[2]
        self.owner._parameters[leaf] = self.parameter if value is None else nn.Parameter(value, requires_grad=False)

    def put_back(self) -> None:
        """Let it be what it was."""
        self.show(None)
        self.parameter.grad = None
        self.parameter.requires_grad_(False)
        self.parameter.data = self.before.to(self.home)


class Tuned(Attached):
    """A model whose own weights learn.

    What they were waits in main memory until `detach` (5 GiB for SDXL's U-Net in half precision): on a CPU the very tensors, which may be the mapping of a
    file; of a GPU's a copy. They begin with the numbers of the base's file, not with those as the base's number format rounded them.

    Pictures are drawn, and losses measured, with the average where there is one, and in the number format of the base, as the model that is written will be
    used: the modules show it from the first forward pass without gradients after `prepare(None)` to the next batch.
    """

    def __init__(self, spec: FullTuning, model: SDXL) -> None:
        self.spec, self.model = spec, model
        self.looking, self.shown = True, False
        self._check()
        for root in model.parts.values():
            root.requires_grad_(False)
        self.weights = [weight for part in model.parts for weight in self._begin(part)]
        self.learned = [weight for weight in self.weights if weight.learns]
        ema = spec.ema, spec.ema_after, spec.ema_warmup, spec.ema_on_host
        self.average = Average([weight.parameter for weight in self.learned], *ema) if spec.ema else None
        self._hooks = [root.register_forward_pre_hook(self._look) for root in model.parts.values()]

    def _check(self) -> None:
        spec, model = self.spec, self.model
        names = [f"{part}.{name}" for part, root in model.parts.items() for name, _ in root.named_parameters() if part == "unet" or spec.text_encoders]
        check_words("method.rates", spec.rates, names)
        if not any(spec.wanted(name) for name in names):
            raise RecipeError("method.rates: every place has the rate 0, so that nothing would learn. Give one of them another rate.")
        if spec.weights == "bf16" and model.dtype != torch.bfloat16:
            held = str(model.dtype).removeprefix("torch.")
            raise RecipeError(f'method.weights = "bf16": the model computes in {held}. Set train.precision = "bf16", or method.weights = "fp32".')

    def _begin(self, part: str) -> Iterator[Weight]:
        """Let a part learn. A text encoder is in one number format, since it computes without autocast."""
        for weight in self._chosen(part):
            weight.parameter.data = self._start(weight)
            weight.parameter.requires_grad_(weight.learns)
            yield weight

    def _chosen(self, part: str) -> Iterator[Weight]:
        root = self.model.parts[part]
        learn = {name for name, _ in root.named_parameters() if self.spec.wanted(f"{part}.{name}") and _reached(self.model, part, name)}
        for name, parameter in list(root.named_parameters()) if learn else ():
            if name in learn or part != "unet":
                before = parameter.data if parameter.is_meta else parameter.data.cpu()
                yield Weight((part, name), root.get_submodule(name.rpartition(".")[0]), parameter, before, parameter.device, name in learn)

    def _start(self, weight: Weight) -> torch.Tensor:
        """What a weight begins with, whole and on the device."""
        dtype, parameter = DTYPES[self.spec.weights], weight.parameter
        exact = self.model.dtype in (torch.float32, dtype) or parameter.is_meta
        start = parameter.data if exact else self._original(*weight.key)
        return start.to(self.model.device, dtype, copy=True)

    @cached_property
    def _files(self) -> Unread | None:
        """The base as it lies in its files; None of one that was made in memory."""
        place = next((file.parents[1] if "/" in name else file for name, file in self.model.files.items() if "/" not in name or name.startswith("unet/")), None)
        return Unread(place, open_source(place), self.model) if place else None

    def _original(self, part: str, name: str) -> torch.Tensor:
        """A tensor of the base, in the number format of its file."""
        if self._files is not None:
            return self._files.tensor(part, name)
        found: torch.Tensor = {**self.model.parts, "vae": self.model.vae}[part].state_dict()[name]
        return found

    # ---- looking ----------------------------------------------------------------------------------------------------------------------------------------

    def prepare(self, batch: int | None) -> None:
        """None: the next forward pass without gradients is of the model as it would be written."""
        self.looking = batch is None
        if not self.looking:
            self._hide()

    def _look(self, module: nn.Module, arguments: Any) -> None:
        if not self.looking or self.shown or torch.is_grad_enabled():
            return
        self._show()
        self.shown = True

    def _show(self) -> None:
        for weight in self.weights:
            value = self._value(weight)
            if value is not weight.parameter or value.dtype != self.model.dtype:
                weight.show(value.detach().to(self.model.device, self.model.dtype))

    def _value(self, weight: Weight) -> torch.Tensor:
        """A tensor as it is drawn with and written."""
        return self._averages.get(weight.key, weight.parameter)

    @cached_property
    def _averages(self) -> dict[Key, torch.Tensor]:
        return {weight.key: shadow for weight, shadow in zip(self.learned, self.average.shadows, strict=True)} if self.average else {}

    def _hide(self) -> None:
        if self.shown:
            for weight in self.weights:
                weight.show(None)
        self.shown = False

    # ---- learning ---------------------------------------------------------------------------------------------------------------------------------------

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """One for each rate."""
        groups: dict[float, list[nn.Parameter]] = {}
        for weight in self.learned:
            groups.setdefault(self.spec.rate(weight.key), []).append(weight.parameter)
        return [{"params": members, "lr": rate * multiple, "name": f"x{multiple:g}"} for multiple, members in groups.items()]

    def after_step(self) -> None:
        """The average follows."""
        if self.average:
            self.average.add([weight.parameter.data for weight in self.learned])

    def state(self) -> dict[str, torch.Tensor]:
        """Copies on the host: the weights by name, their averages as "ema.NAME", and "ema.steps"."""
        return {name: tensor.to("cpu", copy=True) for name, tensor in self._held().items()}

    def shapes(self) -> dict[str, torch.Size]:
        """Those of `state`, without copying a whole model."""
        return {name: tensor.shape for name, tensor in self._held().items()}

    def _held(self) -> dict[str, torch.Tensor]:
        found = {weight.name: weight.parameter.detach() for weight in self.learned}
        if self.average:
            found |= {f"ema.{weight.name}": shadow for weight, shadow in zip(self.learned, self.average.shadows, strict=True)}
            found["ema.steps"] = torch.tensor(self.average.steps)
        return found

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Put back what `state` gave."""
        self._hide()
        for weight in self.learned:
            weight.parameter.data.copy_(state[weight.name])
        if self.average:
            self.average.steps = int(state["ema.steps"])
            for weight, shadow in zip(self.learned, self.average.shadows, strict=True):
                shadow.copy_(state[f"ema.{weight.name}"])

    # ---- the model that comes out -----------------------------------------------------------------------------------------------------------------------

    def write(self, place: Path, dtype: torch.dtype, label: Label) -> None:
        """A diffusers folder, and by option PLACE.safetensors. Numbers that did not learn are those of the base's files.

        The folder is whole or not there, and comes last. Parts that nothing learned in are copies of the base's, in their own number format, where the base
        is a folder. Raises OutputError, and ModelError for NaN, infinity and float16's overflow.
        """
        learned = {weight.key: weight for weight in self.learned}
        metadata = label({}) | self.metadata()

        def tensor(part: str, name: str) -> torch.Tensor:
            weight = learned.get((part, name))
            return self._original(part, name) if weight is None else self._value(weight).detach()

        if self.spec.single_file:
            file = place.with_suffix(".safetensors")
            file.unlink(missing_ok=True)  # of a run that was killed before the folder was whole
            write_model(self.model, tensor, file, dtype, metadata)
        for half in place.parent.glob(f".{place.name}.*.part"):
            shutil.rmtree(half)
        write_tensors(self.model, tensor, place, dtype, metadata, self._unchanged({part for part, _ in learned}))

    def _unchanged(self, changed: set[str]) -> Mapping[str, Path]:
        """The folders of the base's parts that nothing learned in; none where the base is a single file."""
        if self._files is None or not self._files.place.is_dir():
            return {}
        folder, names = self._files.place, {*self.model.parts, "vae", "tokenizer", "tokenizer_2"} - changed
        return {name: folder / name for name in sorted(names) if (folder / name).is_dir()}

    def metadata(self) -> dict[str, str]:
        """Nothing beyond the recipe."""
        return {}

    def detach(self) -> None:
        """Put back what the weights were, to the last bit."""
        for hook in self._hooks:
            hook.remove()
        for weight in self.weights:
            weight.put_back()
        self.shown = False


def _reached(model: SDXL, part: str, name: str) -> bool:
    """Whether a tensor has a part in what SDXL reads: not the last layer of encoder 1 nor what follows it, for its states are those before (`sdxl.text`)."""
    if part != "text_encoder" or model.text_encoder is None:
        return True
    last = int(model.text_encoder.config.num_hidden_layers) - 1
    return not canonical(name).startswith((f"encoder.layers.{last}.", "final_layer_norm."))
