"""What an adapter says of its own training: modelspec 1.0.1, kohya's ss_ keys, the recipe and the run's receipt; and what of a run may be given away.

No clock is asked, so that equal trainings give equal bytes: modelspec.date, ss_training_started_at, ss_training_finished_at and ss_session_id, which other
trainers write, are left out. No path, file name, or name of a machine or person either, for such files are made to be given away: folders of pictures are
called as kohya's are, by repeats and subject. modelspec.author is the author's to add.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.methods import ControlNet, FullTuning, Pivotal, TextualInversion
from darkroom.methods.chosen import Chosen
from darkroom.train.recipe import Recipe
from darkroom.train.track import Track

if TYPE_CHECKING:
    import torch

    from darkroom.data.dataset import Photo
    from darkroom.sdxl.adapters.metadata import Kind
    from darkroom.sdxl.model import SDXL
    from darkroom.train.loop import Trainer
    from darkroom.train.preflight import Plan

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
KEPT = ("darkroom", "python", "libraries", "device", "precision", "seed", "base_sha256", "pictures_sha256")
FORECAST = ("buckets", "upscaled", "batch_size", "accumulate", "steps", "epochs", "memory_mib")
MIXED = {"float32": "no", "float16": "fp16", "bfloat16": "bf16"}


def label(recipe: Recipe, model: SDXL, trainer: Trainer, step: int, tensors: Mapping[str, torch.Tensor], receipt: Mapping[str, Any]) -> dict[str, str]:
    """The header of the adapter as it is after `step` steps; its hashes are added when it is written (`formats.write_adapter`).

    `tensors` are those of the file, `receipt` what the run's facts.json says.
    """
    from darkroom.sdxl.adapters.metadata import kohya_facts, modelspec

    resolution = recipe.data.resolution or model.resolution
    trained_on = public_name(recipe.base)
    own = {"darkroom.receipt": public_receipt(receipt, trained_on), "darkroom.recipe": public_recipe(recipe, trained_on).model_dump(mode="json")}
    told = {key: _compact(value) for key, value in own.items()}
    if isinstance(recipe.method, FullTuning):
        return _of_model(recipe, model, trainer.schedule.prediction, f"{resolution}x{resolution}") | told
    card = {"prediction_type": trainer.schedule.prediction.removesuffix("_prediction"), "description": recipe.about}
    if recipe.negative:
        card["usage_hint"] = "Its words belong into the negative prompt."
    kind: Kind = "textual-inversion" if isinstance(recipe.method, TextualInversion) else "controlnet" if isinstance(recipe.method, ControlNet) else "lora"
    title = ", ".join(trigger(recipe)) or recipe.about or "adapter"
    said = modelspec(
        title, kind, f"{resolution}x{resolution}", trigger(recipe), recipe.negative, {key: value for key, value in card.items() if value}
    )  # fmt: skip
    if kind == "controlnet":  # no network of kohya's
        return said | told
    facts = {
        "sd_model_name": trained_on, "output_name": recipe.trigger, "resolution": f"({resolution}, {resolution})", "training_comment": recipe.about,
        **_steps(recipe, trainer.plan, step), **_settings(recipe, trainer, model), **_rates(recipe, tensors), **pictures_told(recipe, trainer.plan),
    }  # fmt: skip
    return {**said, **kohya_facts(facts), **trainer.attached.metadata(), **told}


def _of_model(recipe: Recipe, model: SDXL, prediction: str, size: str) -> dict[str, str]:
    """modelspec's words of a whole model: its architecture is the base's own, without the name of an adapter."""
    from darkroom.sdxl.checkpoint import modelspec

    title = ", ".join(trigger(recipe)) or recipe.about or "model"
    said = modelspec(model.text_encoder is not None, model.resolution, title, prediction == "v_prediction") | {"modelspec.resolution": size}
    more = {"modelspec.description": recipe.about, "modelspec.trigger_phrase": ", ".join(trigger(recipe))}
    return said | {key: value for key, value in more.items() if value}


def trigger(recipe: Recipe) -> tuple[str, ...]:
    """The words that call what was learned, as it was taught; of a textual inversion the new word alone, whatever stands beside it."""
    if isinstance(recipe.method, TextualInversion) and recipe.inversion:
        return (recipe.inversion.word,)
    return (recipe.data.subject.strip(),) if recipe.data.subject.strip() else ()


def write_sidecar(adapter: Path, recipe: Recipe, weight: float, notes: str = "") -> Path:
    """A1111's side-car beside the adapter: words, preferred weight, and whether they go into the prompt or the negative prompt. Raises OutputError."""
    from darkroom.sdxl.adapters.metadata import sidecar

    return sidecar(adapter, trigger(recipe), weight, recipe.negative, recipe.about, notes)


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


# ---- kohya's facts --------------------------------------------------------------------------------------------------------------------------------------


def _steps(recipe: Recipe, plan: Plan, step: int) -> dict[str, Any]:
    """sd-scripts counts epochs from 1 and batches over all of an epoch."""
    batches, accumulate = plan.order.batches_per_epoch, recipe.train.accumulate
    return {
        "steps": step, "max_train_steps": plan.steps, "epoch": max(1, math.ceil(step * accumulate / batches)),
        "num_epochs": max(1, math.ceil(plan.steps * accumulate / batches)), "num_batches_per_epoch": batches, "gradient_accumulation_steps": accumulate,
        "batch_size_per_device": recipe.data.batch_size, "total_batch_size": recipe.data.batch_size * accumulate,
    }  # fmt: skip


def _settings(recipe: Recipe, trainer: Trainer, model: SDXL) -> dict[str, Any]:
    return {
        "seed": recipe.train.seed, "optimizer": recipe.optimizer.kind, "lr_scheduler": recipe.optimizer.schedule,
        "lr_warmup_steps": recipe.optimizer.warm(trainer.plan.steps), "clip_skip": None,
        "min_snr_gamma": recipe.objective.min_snr or None, "noise_offset": recipe.objective.noise_offset or None,
        "max_grad_norm": recipe.train.max_grad_norm, "gradient_checkpointing": recipe.train.gradient_checkpointing, "flip_aug": recipe.data.flip,
        "mixed_precision": MIXED[str(model.dtype).removeprefix("torch.")],
        "zero_terminal_snr": recipe.objective.zero_terminal_snr, "v_parameterization": trainer.schedule.prediction == "v_prediction",
    }  # fmt: skip


def _rates(recipe: Recipe, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The rate of each part that the file changes, None for the others."""
    from darkroom.sdxl.formats import PREFIXES

    changed = {part for part, prefix in PREFIXES.items() if any(name.startswith(f"{prefix}_") for name in tensors)}
    rate, method = recipe.optimizer.rate, recipe.method
    if isinstance(method, TextualInversion):
        text = [rate, rate * method.rate_2]
        return {"learning_rate": rate, "unet_lr": None, "text_encoder_lr": text[0] if text[0] == text[1] else text}
    method = method.adapter if isinstance(method, Pivotal) else method
    if not isinstance(method, Chosen):
        return {"learning_rate": rate}
    text = [rate * method.text_rate, rate * (method.text_rate_2 or method.text_rate)]
    return {
        "learning_rate": rate, "unet_lr": rate if "unet" in changed else None, "network_train_unet_only": changed == {"unet"},
        "text_encoder_lr": None if changed <= {"unet"} else text[0] if text[0] == text[1] else text,
    }  # fmt: skip


def pictures_told(recipe: Recipe, plan: Plan) -> dict[str, Any]:
    """ss_dataset_dirs, ss_tag_frequency and ss_bucket_info as sd-scripts writes them (library/train_util.py), with a folder for each number of repeats."""
    pictures = {photo.path: photo for photo in plan.photos}.values()
    repeats = {photo.path.name: photo.repeats for photo in pictures}
    folders = {count: f"{count}_{recipe.data.subject.strip() or 'pictures'}" for count in sorted(set(repeats.values()))}
    tags: dict[str, Counter[str]] = {folder: Counter() for folder in folders.values()}
    for row in plan.facts["captions"]:
        words = (tag.strip().lower() for tag in row["caption"].split(","))
        tags[folders[repeats[row["file"]]]].update(tag for tag in words if tag)
    counts = Counter(photo.repeats for photo in pictures)
    return {
        "num_train_images": len(plan.photos), "num_reg_images": 0, "enable_bucket": True, "bucket_info": _buckets(plan),
        "dataset_dirs": {name: {"n_repeats": count, "img_count": counts[count]} for count, name in folders.items()},
        "tag_frequency": {folder: dict(sorted(found.items())) for folder, found in tags.items()},
    }  # fmt: skip


def _buckets(plan: Plan) -> dict[str, Any]:
    """Each bucket's size and how many pictures it holds, and how far the pictures' aspects are from it on average."""
    rows = enumerate(sorted(Counter(fit.bucket for fit in plan.fits).items()))
    errors = [abs(fit.bucket[0] / fit.bucket[1] - _aspect(photo)) for fit, photo in zip(plan.fits, plan.photos, strict=True)]
    buckets = {str(number): {"resolution": list(bucket), "count": count} for number, (bucket, count) in rows}
    return {"buckets": buckets, "mean_img_ar_error": round(sum(errors) / len(errors), 6)}


def _aspect(photo: Photo) -> float:
    return photo.width / photo.height


# ---- what may be given away -----------------------------------------------------------------------------------------------------------------------------


def on_hub(base: str) -> bool:
    """Whether a base is named by its id on the hub, and is no path of this machine."""
    return bool(HUB_ID.fullmatch(base)) and not base.endswith(".safetensors") and not Path(base).exists()


def public_name(base: str) -> str:
    """A hub id as it is, the last word of a path."""
    return base if base == "pocket" or on_hub(base) else re.split(r"[/\\]", base.rstrip("/\\"))[-1]


def public_recipe(recipe: Recipe, trained_on: str) -> Recipe:
    """The recipe without folders of this machine: pictures are given with --images."""
    prior = recipe.data.prior.model_copy(update={"pictures": public_name(recipe.data.prior.pictures)})
    data = recipe.data.model_copy(update={"images": "", "prior": prior})
    preview = recipe.preview.model_copy(update={"base": public_name(recipe.preview.base)})
    paths = [name for name in ("pairs", "start", "depth_model") if recipe.method.kind == "controlnet" and getattr(recipe.method, name)]
    method = recipe.method.model_copy(update={name: public_name(getattr(recipe.method, name)) for name in paths})
    held_out = recipe.validation.model_copy(update={"pictures": ""})
    config = public_name(recipe.base_config) if recipe.base_config else ""
    return recipe.model_copy(
        update={"base": trained_on, "base_config": config, "data": data, "method": method, "preview": preview, "validation": held_out, "track": Track()}
    )


def public_receipt(facts: Mapping[str, Any], trained_on: str) -> dict[str, Any]:
    """The receipt with what others can check, and nothing of the machine: a list of what stays, not of what goes."""
    preflight = facts.get("preflight", {})
    return {
        **{key: facts[key] for key in KEPT if key in facts}, "base": trained_on, "pictures": len(facts.get("pictures", ())),
        "preflight": {key: preflight[key] for key in FORECAST if key in preflight},
    }  # fmt: skip
