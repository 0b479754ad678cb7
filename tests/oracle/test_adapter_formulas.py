"""The formula of every method against LyCORIS' own modules."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from darkroom.sdxl.adapters.fit import build
from darkroom.sdxl.adapters.places import Place
from support.lycoris import rand, randomise

CLOSE = {"rtol": 1e-4, "atol": 2e-5}


MODULES: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("LoConModule", {}), "lora tucker": ("LoConModule", {"use_tucker": True}), "lora rs": ("LoConModule", {"rs_lora": True}),
    "dora out": ("LoConModule", {"weight_decompose": True, "wd_on_out": True}), "dora in": ("LoConModule", {"weight_decompose": True, "wd_on_out": False}),
    "loha": ("LohaModule", {}), "loha tucker": ("LohaModule", {"use_tucker": True}), "loha dora": ("LohaModule", {"weight_decompose": True}),
    "lokr": ("LokrModule", {}), "lokr both": ("LokrModule", {"decompose_both": True, "lora_dim": 1}), "lokr whole": ("LokrModule", {"full_matrix": True}),
    "lokr tucker": ("LokrModule", {"use_tucker": True, "lora_dim": 1}), "lokr factor": ("LokrModule", {"factor": 2, "lora_dim": 2}),
    "lokr dora in": ("LokrModule", {"weight_decompose": True, "wd_on_out": False}),
    "lokr unbalanced": ("LokrModule", {"unbalanced_factorization": True, "lora_dim": 1}),
    "glora": ("GLoRAModule", {}), "ia3 out": ("IA3Module", {"train_on_input": False}), "ia3 in": ("IA3Module", {"train_on_input": True}),
    "diag-oft": ("DiagOFTModule", {}), "diag-oft held": ("DiagOFTModule", {"constraint": 0.001}), "diag-oft rescaled": ("DiagOFTModule", {"rescaled": True}),
    "boft": ("ButterflyOFTModule", {}), "boft held": ("ButterflyOFTModule", {"constraint": 0.001, "rescaled": True}), "full": ("FullModule", {}),
}  # fmt: skip


def saved_by(module: nn.Module) -> tuple[dict[str, torch.Tensor], float | None]:
    tensors = {key: value.detach().clone() for key, value in module.state_dict().items()}
    alpha = tensors.pop("alpha", None)
    return tensors, None if alpha is None else float(alpha)


@pytest.mark.parametrize("conv", [False, True], ids=["linear", "conv"])
@pytest.mark.parametrize("case", MODULES)
def test_the_delta_is_what_lycoris_adds(case: str, conv: bool, lycoris: Any) -> None:
    """By its forward pass, which is what was trained: x W' against x W + x delta."""
    name, options = MODULES[case]
    torch.manual_seed(1)
    base = nn.Conv2d(12, 32, 3, padding=1) if conv else nn.Linear(12, 32)
    module = getattr(importlib.import_module("lycoris.modules"), name)("x", base, **({"lora_dim": 4, "alpha": 3.0} | options)).eval()
    randomise(module)
    tensors, alpha = saved_by(module) if name != "FullModule" else ({"diff": module.weight.detach(), "diff_b": module.bias.detach()}, None)
    place = Place("unet", "x", "conv" if conv else "linear", tuple(base.weight.shape), True, "x")
    change = build(place, tensors, alpha)
    delta = change.delta(base.weight.detach())
    x = rand(2, 12, 5, 5) if conv else rand(3, 12)
    added = F.conv2d(x, delta, change.bias, padding=1) if conv else F.linear(x, delta, change.bias)
    with torch.no_grad():
        torch.testing.assert_close(added, module(x) - base(x), **CLOSE)
        merged = module.get_merged_weight(1, base.weight.shape, None)[0]
    if not (name in ("LohaModule", "LokrModule") and module.scale != 1):  # 4.1.3 merges these two with the square of their scale
        torch.testing.assert_close(base.weight.detach() + delta, merged, **CLOSE)
    assert delta.abs().max() > 1e-3


@pytest.mark.parametrize("norm", [nn.LayerNorm(8), nn.GroupNorm(2, 8)], ids=["layer", "group"])
def test_norms_are_lycoris(norm: nn.Module, lycoris: Any) -> None:
    module = importlib.import_module("lycoris.modules").NormModule("x", norm)
    randomise(module)
    change = build(Place("unet", "x", "norm", (8,), True, "x"), saved_by(module)[0], None)
    weight, bias = module.get_merged_weight(1, (8,), None)
    torch.testing.assert_close(norm.weight + change.delta(norm.weight), weight, **CLOSE)
    torch.testing.assert_close(norm.bias + change.bias, bias, **CLOSE)
