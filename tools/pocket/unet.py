"""Stages 3 and 4: the U-Net (SDXL's block types at toy width) and the refiner, eps prediction with min-SNR 5 and EMA."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import stage
import torch
from album import Album
from diffusers import UNet2DConditionModel
from text import tokens

STATES = 160  # widths of both text encoders, concatenated


def build(widths: tuple[int, ...], context: int, pooled: int, ids: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=widths,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=tuple(w // 32 for w in widths), cross_attention_dim=context, use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=32, projection_class_embeddings_input_dim=ids * 32 + pooled,
    )  # fmt: skip


def alphas() -> torch.Tensor:
    """SDXL's scaled_linear betas, cumulative product: (1000,) float64."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0)


def size_ids(album: Album, chosen: np.ndarray) -> torch.Tensor:
    """(B, 6): original height, width, crop top, left, target height, width."""
    rows = [(s.original, s.original, *s.crop, 64, 64) for s in (album.scenes[i] for i in chosen)]
    return torch.tensor(rows, dtype=torch.float32)


def train(name: str, album: Album, latents: torch.Tensor, tokenizers: tuple, towers: dict, work: Path, seed: int, box: stage.Box, batch: int,
          widths: tuple[int, ...], start: UNet2DConditionModel | None = None) -> tuple[UNet2DConditionModel, dict]:  # fmt: skip
    """`name` is "unet" or "refiner": the refiner sees text encoder 2 alone, an aesthetic score in its ids, and the lowest 400 timesteps."""
    refining = name == "refiner"
    torch.manual_seed(seed + (3 if refining else 2))
    model = build(widths, 96 if refining else STATES, 96, 5 if refining else 6).to(memory_format=torch.channels_last)
    averaged = copy.deepcopy(model).requires_grad_(False)
    abar, last = alphas(), 400 if refining else 1000

    @torch.no_grad()
    def condition(chosen: np.ndarray, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        captions = album.captions(chosen, seed, 100_000 + step)
        drop = torch.rand(batch, generator=torch.Generator().manual_seed(seed * 31 + step))
        captions = ["" if d < 0.06 else c for c, d in zip(captions, drop, strict=True)]
        one = towers["one"](tokens(tokenizers[0], captions, full=True), output_hidden_states=True).hidden_states[-2]
        two = towers["two"](tokens(tokenizers[1], captions, full=True), output_hidden_states=True)
        states = two.hidden_states[-2] if refining else torch.cat([one, two.hidden_states[-2]], -1)
        zeroed = (drop > 0.94).float()  # the other "no prompt": diffusers' zeroed embeddings
        return states * (1 - zeroed)[:, None, None], two.text_embeds * (1 - zeroed)[:, None]

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed * 104_729 + step)
        chosen = stage.indices(len(album.scenes), batch, seed + 2, step)
        x = latents[chosen].float()
        noise = torch.randn(x.shape, generator=generator)
        t = torch.randint(last, (batch,), generator=generator)
        a = abar[t].float().view(-1, 1, 1, 1)
        noisy = (a.sqrt() * x + (1 - a).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        states, pooled = condition(chosen.numpy(), step)
        ids = size_ids(album, chosen.numpy())
        if refining:
            scores = torch.tensor([[2.5 if album.scenes[i].spoil else 6.0] for i in chosen.tolist()])
            ids = torch.cat([ids[:, :4], scores], 1)
        with torch.autocast("cpu", torch.bfloat16):
            out = model(noisy, t, states, added_cond_kwargs={"text_embeds": pooled, "time_ids": ids}).sample.float()
        each = (out - noise).square().flatten(1).mean(1)
        snr = abar[t].float() / (1 - abar[t].float())
        return {"loss": (each * snr.clamp(max=5) / snr).mean(), "eps": each.mean().detach()}

    facts = stage.run(name, work, {name: model}, loss_of, box, decay=0.005, average={name: averaged}, betas=(0.9, 0.99))
    facts["parameters"] = sum(p.numel() for p in model.parameters())
    return averaged.eval(), facts
