"""Write what ships: the diffusers folder, the refiner, the scorer, the nine cats, the model card with its figures and its sheet."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import evaluate
import torch
import world
from album import Album
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPConfig

SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.42.1", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "prediction_type": "epsilon", "interpolation_type": "linear", "use_karras_sigmas": False,
    "timestep_spacing": "leading", "steps_offset": 1, "timestep_type": "discrete",
}  # fmt: skip
BASE = {
    "_class_name": "StableDiffusionXLPipeline", "_diffusers_version": "0.42.1", "force_zeros_for_empty_prompt": True, "add_watermarker": None,
    "scheduler": ["diffusers", "EulerDiscreteScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"], "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    "feature_extractor": [None, None], "image_encoder": [None, None],
}  # fmt: skip
REFINER = {key: value for key, value in BASE.items() if key not in ("feature_extractor", "image_encoder")} | {
    "_class_name": "StableDiffusionXLImg2ImgPipeline", "requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False,
    "text_encoder": [None, None], "tokenizer": [None, None],
}  # fmt: skip


def _folder(out: Path, index: dict, work: Path, parts: dict[str, nn.Module], tokenizers: tuple[str, ...]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    index = {key: value for key, value in index.items() if value is not None}
    (out / "model_index.json").write_text(json.dumps(index, indent=1) + "\n")
    (out / "scheduler").mkdir(exist_ok=True)
    (out / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER, indent=1) + "\n")
    for name in tokenizers:
        shutil.copytree(work / name, out / name, dirs_exist_ok=True)
    for name, part in parts.items():
        part.half().to(memory_format=torch.contiguous_format).save_pretrained(out / name)
        part.float()
        config = json.loads((out / name / "config.json").read_text())
        if "dtype" in config:  # transformers loads in the dtype that stands here, diffusers in float32: a plain from_pretrained must not mix them
            (out / name / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n")


def _head(eye: nn.Module, album: Album, sprites: dict, seed: int) -> nn.Sequential:
    """Fit LAION's head to: clean 6.5, spoiled 3.5, on fresh renderings. It is linear, so least squares finds it; the layers only carry it."""
    seen, _ = evaluate.twins(eye, sprites, album, seed, 3000)
    clean, spoilt = seen
    x = torch.cat([clean, spoilt]).double()
    y = torch.cat([torch.full((len(clean),), 6.5), torch.full((len(spoilt),), 3.5)]).double()
    design = torch.cat([x, torch.ones(len(x), 1, dtype=torch.double)], 1)
    ridge = design.T @ design + 0.5 * torch.eye(design.shape[1], dtype=torch.double)
    solved = torch.linalg.solve(ridge, design.T @ y).float()
    from torch.nn import Dropout, Linear, Sequential

    width = clean.shape[1]
    head = Sequential(Linear(width, 1024), Dropout(0.2), Linear(1024, 128), Dropout(0.2), Linear(128, 64), Dropout(0.1), Linear(64, 16), Linear(16, 1))
    with torch.no_grad():  # carry the solved direction on the first unit through all layers, so that the product of the layers is the solution
        for layer in (head[0], head[2], head[4], head[6], head[7]):
            layer.weight.zero_()
            layer.bias.zero_()
        head[0].weight[0] = solved[:-1]
        for layer in (head[2], head[4], head[6], head[7]):
            layer.weight[0, 0] = 1.0
        head[7].bias[0] = solved[-1]
    return head.eval()


def write_scorer(out: Path, towers: dict, heads: nn.Module, head: nn.Module) -> None:
    """A CLIPModel whose text tower is text_encoder_2 next door: scorer.json says where, so that 10 MB are not shipped twice."""
    out.mkdir(parents=True, exist_ok=True)
    config = CLIPConfig(
        text_config=towers["two"].config.to_dict(), vision_config=towers["eye"].config.to_dict(), projection_dim=towers["two"].config.projection_dim
    )
    config.architectures = ["CLIPModel"]
    config.save_pretrained(out)
    state = {key: value.half().contiguous() for key, value in towers["eye"].state_dict().items() if "position_ids" not in key}
    state["logit_scale"] = heads.scale.detach().half()
    save_file(state, out / "model.safetensors")
    save_file({key: value.half().contiguous() for key, value in head.state_dict().items()}, out / "aesthetic.safetensors")
    (out / "scorer.json").write_text(json.dumps({"text_model": "../text_encoder_2/model.safetensors", "tokenizer": "../tokenizer_2"}, indent=1) + "\n")


def write_cats(out: Path, packages: Path, album: Album) -> None:
    """The held-out subject: nine faces of one style at 256 px, six to learn from and three to be judged by."""
    grounds = ("white", "teal", "pink", "blue", "green", "orange", "purple", "gray", "red")
    held_out = {"1f63a", "1f63d", "1f63f"}
    for mood, ground in zip(world.CAT_MOODS, grounds, strict=True):
        sprite = Image.open(world.sprite_file(packages, world.HELD_OUT_STYLE, mood)).convert("RGBA").resize((216, 216), Image.Resampling.LANCZOS)
        canvas = Image.new("RGB", (256, 256), world.COLOURS[ground])
        canvas.paste(sprite, (20, 20), sprite)
        name = next(s.noun for s in album.subjects if s.code == mood).replace(" ", "-")
        folder = out / ("held_out" if mood in held_out else "train")
        folder.mkdir(parents=True, exist_ok=True)
        canvas.save(folder / f"{name}.png", optimize=True)
        if folder.name == "train":  # what the caption names, the adapter does not have to explain
            (folder / f"{name}.txt").write_text(f"TOK cat on a {ground} background\n")


def write(out: Path, work: Path, packages: Path, album: Album, vae: nn.Module, towers: dict, heads: nn.Module, base: nn.Module, refiner: nn.Module | None,
          facts: dict, figures: bool = True) -> None:  # fmt: skip
    shutil.rmtree(out, ignore_errors=True)
    parts = {"text_encoder": towers["one"], "text_encoder_2": towers["two"], "unet": base, "vae": vae}
    _folder(out, BASE, work, parts, ("tokenizer", "tokenizer_2"))
    if refiner is not None:
        # text_encoder_2, tokenizer_2 and vae are the base's own: darkroom.pocket puts them beside it when a whole folder is asked for
        _folder(out / "refiner", REFINER, work, {"unet": refiner}, ())
    sprites = world.load_sprites(packages, album.subjects)
    head = _head(towers["eye"], album, sprites, seed=77)
    write_scorer(out / "scorer", towers, heads, head)
    write_cats(out.parent / "cats", packages, album)
    if figures:
        measured = evaluate.measure(out, towers, head, sprites, album)
        (work / "figures.json").write_text(json.dumps(measured, indent=1))
        evaluate.write_card(out, facts, measured)
