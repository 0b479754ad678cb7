"""Load an SDXL from wherever it lies: a diffusers folder, a hub id or a single-file checkpoint. One loader from pocket to SDXL 1.0."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.device import quiet_libraries as quiet
from darkroom.errors import ModelError
from darkroom.fence import hand_over
from darkroom.files import cache_folder, sha256_bytes, sha256_file, write_json

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

PICKLES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl"})
HUB_PATTERNS = ["model_index.json", "*/*.json", "*/*.txt", "*/*.safetensors"]


@dataclass
class SDXL:
    """The parts of one model on one device. `text_encoder` and `tokenizer` are None for a refiner, which has encoder 2 alone."""

    tokenizer: CLIPTokenizer | None
    tokenizer_2: CLIPTokenizer
    text_encoder: CLIPTextModel | None
    text_encoder_2: CLIPTextModelWithProjection
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler_config: dict[str, Any]
    source: str
    device: torch.device
    dtype: torch.dtype
    files: dict[str, Path] = field(default_factory=dict)
    zeroes_empty: bool = True  # the folder's own word on what "no negative prompt" means

    @property
    def pixel_factor(self) -> int:
        """Pixels a side for one latent: 8 for SDXL 1.0, 4 for pocket."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def resolution(self) -> int:
        """The side in pixels that the model was made for."""
        return int(self.unet.config.sample_size) * self.pixel_factor

    @property
    def grain(self) -> int:
        """Widths and heights must be multiples of this many pixels: one latent at the U-Net's lowest level."""
        return self.pixel_factor * int(2 ** (len(self.unet.config.block_out_channels) - 1))

    @property
    def parts(self) -> dict[str, torch.nn.Module]:
        """What an adapter may change, by the names diffusers gives them."""
        parts: dict[str, torch.nn.Module] = {"unet": self.unet, "text_encoder_2": self.text_encoder_2}
        if self.text_encoder is not None:
            parts["text_encoder"] = self.text_encoder
        return parts

    @cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each weight file, by component. Large files are hashed once and remembered by path, size and time."""
        return {name: _remembered_hash(path) for name, path in sorted(self.files.items())}

    @property
    def hash(self) -> str:
        """One name for all the weights."""
        return sha256_bytes(json.dumps(self.hashes, sort_keys=True).encode())


def load(source: str | Path, device: torch.device, dtype: torch.dtype, config: Path | None = None, share: SDXL | None = None) -> SDXL:
    """Load from a diffusers folder, a single .safetensors checkpoint, or a hub id such as "stabilityai/stable-diffusion-xl-base-1.0".

    `config` is a diffusers folder whose configuration a single file follows (None: SDXL 1.0's or its refiner's own). Parts of a folder whose files are those of
    `share` are not loaded again but shared with it (a refiner's text encoder and autoencoder are the base's).
    Raises ModelError where it is missing, a pickle, broken, or of another family.
    """
    path = Path(source)
    if path.suffix.lower() in PICKLES:
        raise ModelError(f"{path}: a pickle can run code when it is opened, and is refused. Convert it to .safetensors elsewhere, then try again.")
    hand_over(path)
    if config is not None:
        hand_over(config)
    if path.is_dir():
        return _from_folder(path, str(source), device, dtype, share)
    if path.suffix == ".safetensors":
        from darkroom.sdxl.checkpoint import read_single_file

        return checked(read_single_file(path, device, dtype, config))
    return _from_folder(download(str(source)), str(source), device, dtype, share)


def download(hub_id: str) -> Path:
    """The snapshot of a hub id. Raises ModelError."""
    if hub_id.count("/") != 1 or hub_id.startswith((".", "/", "~")):
        raise ModelError(f'{hub_id}: is no folder, no .safetensors file and no hub id. Give "pocket", a path, or an id such as "owner/name".')
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=HUB_PATTERNS, ignore_patterns=["*.fp16.safetensors", "*onnx*", "*flax*"]))
    except RepositoryNotFoundError:
        raise ModelError(f"{hub_id}: the hub knows no such model (or wants a login). Check the id, or give a local folder.") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(f"{hub_id}: could not be fetched from the hub ({type(error).__name__}). Check the connection, or give a local folder.") from None


def _check_family(folder: Path) -> dict[str, Any]:
    index = folder / "model_index.json"
    if not index.is_file():
        raise ModelError(f"{folder}: has no model_index.json, so it is no diffusers model folder. Give the folder that holds unet/, vae/ and so on.")
    facts = _settings(index)
    family = facts.get("_class_name", "unknown")
    if not str(family).startswith("StableDiffusionXL"):
        raise ModelError(f"{folder}: is a {family}, and Darkroom works on SDXL. Give an SDXL folder, or `pocket`.")
    unet = _settings(folder / "unet" / "config.json")
    if unet.get("addition_embed_type") != "text_time":
        raise ModelError(f"{folder}: its U-Net has no SDXL size conditioning (addition_embed_type is {unet.get('addition_embed_type')!r}).")
    return facts


def _settings(file: Path) -> dict[str, Any]:
    """A JSON of the folder. Raises ModelError."""
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read ({error}). The model's folder is not whole: fetch or copy it again.") from None
    return found


def _from_folder(folder: Path, source: str, device: torch.device, dtype: torch.dtype, share: SDXL | None = None) -> SDXL:
    facts = _check_family(folder)
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    has_one = facts.get("text_encoder", [None])[0] is not None

    def part(cls: Any, name: str) -> Any:
        if share is not None and _same_files(folder / name, share, name):
            return getattr(share, name)
        try:
            return cls.from_pretrained(folder / name, torch_dtype=dtype, use_safetensors=True).to(device).eval().requires_grad_(False)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{folder / name}: cannot be loaded: {str(error).splitlines()[0]}") from None

    def tokenizer(name: str) -> Any:
        try:
            return CLIPTokenizer.from_pretrained(folder / name)
        except (OSError, ValueError) as error:
            why = f" ({str(error).splitlines()[0]})" if (folder / name).is_dir() else ": it is not there"
            raise ModelError(f"{folder / name}: no tokenizer can be loaded{why}. The model's folder is not whole: fetch or copy it again.") from None

    with quiet():
        model = SDXL(
            tokenizer=tokenizer("tokenizer") if has_one else None,
            tokenizer_2=tokenizer("tokenizer_2"),
            text_encoder=part(CLIPTextModel, "text_encoder") if has_one else None,
            text_encoder_2=part(CLIPTextModelWithProjection, "text_encoder_2"),
            unet=part(UNet2DConditionModel, "unet"),
            vae=part(AutoencoderKL, "vae"),
            scheduler_config=_settings(folder / "scheduler" / "scheduler_config.json"),
            source=source,
            device=device,
            dtype=dtype,
            zeroes_empty=bool(facts.get("force_zeros_for_empty_prompt", True)),
        )
    names = ["unet", "vae", "text_encoder_2", *(["text_encoder"] if has_one else [])]
    model.files = {f"{name}/{file.name}": file for name in names for file in sorted((folder / name).glob("*.safetensors"))}
    return checked(model)


def _same_files(folder: Path, share: SDXL, name: str) -> bool:
    ours = {f"{name}/{file.name}": _remembered_hash(file) for file in folder.glob("*.safetensors")}
    return bool(ours) and ours == {key: digest for key, digest in share.hashes.items() if key.startswith(f"{name}/")}


def checked(model: SDXL) -> SDXL:
    """The model, where its parts belong together. Raises ModelError."""
    one = int(model.text_encoder.config.hidden_size) if model.text_encoder is not None else 0
    two = int(model.text_encoder_2.config.hidden_size)
    wanted = int(model.unet.config.cross_attention_dim)
    if one + two != wanted:
        raise ModelError(f"{model.source}: its text encoders give {one} + {two} numbers a token, its U-Net wants {wanted}. They belong to different models.")
    return model


def _remembered_hash(path: Path) -> str:
    stat = path.stat()
    if stat.st_size < 1 << 26:
        return sha256_file(path)
    memo = cache_folder() / "hashes" / (sha256_bytes(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode())[:32] + ".json")
    if memo.is_file():
        return str(json.loads(memo.read_text())["sha256"])
    digest = sha256_file(path)
    write_json(memo, {"sha256": digest, "path": str(path)})
    return digest
