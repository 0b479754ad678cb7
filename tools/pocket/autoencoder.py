"""Stage 1: AutoencoderKL, 4x down (64 px -> 16 x 16 x 4), from scratch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import stage
import torch
from album import Album
from diffusers import AutoencoderKL


def build() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, sample_size=64, block_out_channels=(32, 64, 96), layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, norm_num_groups=16, force_upcast=False,
    )  # fmt: skip


def pixels(album: Album, chosen: np.ndarray) -> torch.Tensor:
    """(B, 3, 64, 64) in -1..1, channels last."""
    batch = torch.from_numpy(np.ascontiguousarray(album.pictures[chosen]))
    return (batch.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def train(album: Album, work: Path, seed: int, box: stage.Box, batch: int) -> tuple[AutoencoderKL, dict]:
    torch.manual_seed(seed)
    vae = build().to(memory_format=torch.channels_last)

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        x = pixels(album, stage.indices(len(album.scenes), batch, seed, step).numpy())
        noise = torch.randn(batch, 4, 16, 16, generator=torch.Generator().manual_seed(seed * 7919 + step))
        with torch.autocast("cpu", torch.bfloat16):
            mean, logvar = vae.quant_conv(vae.encoder(x)).float().chunk(2, 1)
            logvar = logvar.clamp(-30, 20)
            y = vae.decoder(vae.post_quant_conv(mean + noise * (0.5 * logvar).exp())).float()
        error = (x - y).square().mean()
        edges = sum((x.diff(dim=d) - y.diff(dim=d)).abs().mean() for d in (2, 3))
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return {"loss": error + 0.1 * (x - y).abs().mean() + 0.1 * edges + 3e-5 * kl, "mse": error.detach(), "kl": kl.detach()}

    facts = stage.run("autoencoder", work, {"vae": vae}, loss_of, box, decay=0.0)
    facts["psnr_db"] = round(10 * np.log10(4 / facts["last"].get("mse", 1)), 2)
    with torch.no_grad():
        x = pixels(album, np.arange(512))
        latents = vae.encode(x).latent_dist.mode()
        vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    facts["scaling_factor"] = vae.config.scaling_factor
    return vae.eval().requires_grad_(False), facts


@torch.no_grad()
def encode_album(vae: AutoencoderKL, album: Album, file: Path) -> torch.Tensor:
    """(N, 4, 16, 16) scaled latents (the mean of the posterior), half precision, kept in a file."""
    if not file.exists():
        parts = []
        for start in range(0, len(album.scenes), 64):
            with torch.autocast("cpu", torch.bfloat16):
                dist = vae.encode(pixels(album, np.arange(start, min(start + 64, len(album.scenes))))).latent_dist
            parts.append((dist.mode().float() * vae.config.scaling_factor).half())
        torch.save(torch.cat(parts), file)
    return torch.load(file, weights_only=True)


def train_decoder(vae: AutoencoderKL, album: Album, latents: torch.Tensor, work: Path, seed: int, box: stage.Box, batch: int) -> dict:
    """Stage 6: the decoder alone, on latents that stay as the U-Net learned them: sharper pictures without touching what was learned."""
    torch.manual_seed(seed + 6)
    decoder = torch.nn.ModuleDict({"decoder": vae.decoder, "post": vae.post_quant_conv}).requires_grad_(True)
    factor = vae.config.scaling_factor

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        chosen = stage.indices(len(album.scenes), batch, seed + 6, step)
        x, z = pixels(album, chosen.numpy()), latents[chosen].float() / factor
        z = z + 0.05 * z.std() * torch.randn(z.shape, generator=torch.Generator().manual_seed(seed * 13 + step))  # a sampler's latents are not exact
        with torch.autocast("cpu", torch.bfloat16):
            y = vae.decoder(vae.post_quant_conv(z.contiguous(memory_format=torch.channels_last))).float()
        error = (x - y).square().mean()
        edges = sum((x.diff(dim=d) - y.diff(dim=d)).abs().mean() for d in (2, 3))
        return {"loss": error + 0.2 * (x - y).abs().mean() + 0.2 * edges, "mse": error.detach()}

    facts = stage.run("decoder", work, {"decoder": decoder}, loss_of, box, decay=0.0)
    facts["psnr_db"] = round(10 * np.log10(4 / facts["last"].get("mse", 1)), 2)
    vae.eval().requires_grad_(False)
    return facts
