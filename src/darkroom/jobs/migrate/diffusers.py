"""A command line of diffusers' SDXL example scripts to a recipe. Nothing of it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from darkroom.data.picture import ENDINGS
from darkroom.errors import RecipeError
from darkroom.jobs.migrate import convert
from darkroom.jobs.migrate.command import Command, read_command
from darkroom.jobs.migrate.diffusers_options import DREAMBOOTH, IMPLIED, LACKING, NEUTRAL, TEXT_TO_IMAGE
from darkroom.jobs.migrate.optimizers import one_rate
from darkroom.jobs.migrate.options import FALSE, defaults
from darkroom.jobs.migrate.report import Imported, Ledger, finish

FILES = "captions beside the pictures (NAME.txt, metadata.jsonl), which that script does not read, are read here"


def import_diffusers(command: str) -> Imported:
    """What the command line would train, as a recipe. Raises RecipeError in the words of the mistake."""
    read = read_command(command)
    dreambooth = read.script == "train_dreambooth_lora_sdxl.py"
    options = DREAMBOOTH if dreambooth else TEXT_TO_IMAGE
    ledger = Ledger(read.script, dict(read.given), defaults(options), prefix="--")
    ledger.rows += read.rows
    ledger.todo += read.todo
    _check(ledger, dreambooth)
    ledger.put("about", f"Imported from a command line of diffusers' {read.script}")
    convert.base(ledger)
    convert.vae(ledger, "pretrained_vae_model_name_or_path")
    _pictures(ledger, dreambooth)
    ledger.put("method.kind", "lora")
    _method(ledger, dreambooth)
    _objective(ledger)
    _optimizer(ledger, dreambooth, read.processes)
    _length(ledger, dreambooth, read.processes)
    _train(ledger, read)
    _previews(ledger, dreambooth, read.processes)
    _prior(ledger) if dreambooth else None
    implied = {key: why for key, why in IMPLIED.items() if dreambooth or not key.startswith("prodigy")}
    if dreambooth and str(ledger["optimizer"]).lower() == "prodigy":
        implied = {key: why for key, why in implied.items() if not key.startswith("prodigy")}
    known = {key: why for key, why in LACKING.items() if key in options}
    ledger.sweep({key: why for key, why in implied.items() if key in options}, known, NEUTRAL)
    return finish(ledger, options)


def _check(ledger: Ledger, dreambooth: bool) -> None:
    """What the script itself refuses, and an option that would do nothing though its giver believes otherwise."""

    def refuse(text: str) -> None:
        raise RecipeError(f"{ledger.program}: {text}")

    required = ("pretrained_model_name_or_path", "instance_prompt") if dreambooth else ("pretrained_model_name_or_path",)
    for key in required:
        if not ledger[key]:
            refuse(f"--{key} is missing, and the script would refuse the command without it. Add it.")
    folder = "instance_data_dir" if dreambooth else "train_data_dir"
    if dreambooth and ledger["dataset_name"] and ledger[folder]:
        refuse(f"--dataset_name and --{folder} exclude each other. Keep the one that holds your pictures.")
    if not ledger["dataset_name"] and not ledger[folder]:
        refuse(f"neither --{folder} nor --dataset_name is given: no pictures. Add one.")
    if not dreambooth:
        return
    if ledger["with_prior_preservation"]:
        for key in ("class_data_dir", "class_prompt"):
            if not ledger[key]:
                refuse(f"--with_prior_preservation needs --{key}. Add it, or take --with_prior_preservation out.")
    for key in ("class_prompt", "class_data_dir"):
        if ledger[key] and not ledger["with_prior_preservation"]:
            refuse(f"--{key} does nothing without --with_prior_preservation (the script only warns). Add that, or take --{key} out.")
    if ledger["do_edm_style_training"] and ledger["snr_gamma"] is not None:
        refuse("--do_edm_style_training and --snr_gamma exclude each other. Keep one.")


def _pictures(ledger: Ledger, dreambooth: bool) -> None:
    folder = "instance_data_dir" if dreambooth else "train_data_dir"
    if ledger[folder]:
        ledger.map(folder, "data.images", ledger[folder], FILES if dreambooth else "with its metadata.jsonl or caption files")
    else:
        ledger.put("data.images", "")
        ledger.todo.append("The pictures are a data set of the hub: download it and set data.images, or give --images FOLDER.")
    if dreambooth:
        caption, subject = convert.split_prompt(ledger["instance_prompt"])
        ledger.put("data.caption", caption)
        ledger.map(
            "instance_prompt",
            "data.subject",
            subject,
            f'the trigger word is its first, "{subject.split()[0]}"; with data.caption = "{caption}" the prompt is as it was',
        )
        ledger.imply("caption_column", "it is for data sets of the hub")
    else:
        ledger.put("data.subject", "")
        ledger.todo.append('Captions there need no trigger word, here they do: give what the pictures show with --subject "TOK cat".')
        if ledger["caption_column"] in ("text", "caption"):
            ledger.imply("caption_column", "metadata.jsonl is read here under text and under caption")
        else:
            ledger.lack("caption_column", "metadata.jsonl is read here under text and under caption: rename the column")
    resolution = ledger["resolution"]
    ledger.map("resolution", "data.resolution", resolution, "small pictures are enlarged to it, as there (data.enlarge)")
    ledger.put("data.bucket_step", resolution)  # one square bucket, as that script has it
    ledger.put("data.enlarge", True)
    if ledger["center_crop"]:
        ledger.map("center_crop", "data.crop", "centre", f"of one square bucket: data.bucket_step = {resolution}; 0 gives many")
    else:
        anew = "drawn anew in each epoch rather than once; " if dreambooth else ""
        ledger.map("center_crop", "data.crop", "random", f"{anew}of one square bucket: data.bucket_step = {resolution}; 0 gives many")
    ledger.map("random_flip", "data.flip", bool(ledger["random_flip"]), "drawn anew each time rather than once" if ledger["random_flip"] else "")
    ledger.map("train_batch_size", "data.batch_size", ledger["train_batch_size"])


def _method(ledger: Ledger, dreambooth: bool) -> None:
    rank = ledger["rank"]
    ledger.map("rank", "method.rank", rank, "with method.alpha the same, as that script has it")
    ledger.put("method.alpha", float(rank))
    ledger.put("method.attention", True)
    if dreambooth and ledger["use_dora"]:
        ledger.map("use_dora", "method.dora", True)
    else:
        ledger.imply("use_dora", "off, as here")
    text = bool(ledger["train_text_encoder"])
    why = "here fc1 and fc2 of the encoders' blocks are changed too, which that script leaves alone" if text else ""
    ledger.map("train_text_encoder", "method.text_encoders", text, why)
    if not dreambooth:
        if text:
            ledger.put("method.text_rate", 1.0)
        return
    if text:
        rate = ledger["text_encoder_lr"]
        ledger.map("text_encoder_lr", "method.text_rate", rate / ledger["learning_rate"] if ledger["learning_rate"] else 1.0, "a multiple of the U-Net's rate")
    else:
        ledger.imply("text_encoder_lr", "the text encoders are not trained")


def _objective(ledger: Ledger) -> None:
    ledger.put("objective.kind", "diffusion")
    ledger.map("snr_gamma", "objective.min_snr", float(ledger["snr_gamma"] or 0.0), "" if ledger["snr_gamma"] else "min-SNR is off there")
    if "noise_offset" in ledger.defaults:
        ledger.map("noise_offset", "objective.noise_offset", float(ledger["noise_offset"] or 0.0))
    if ledger["prediction_type"] in ("epsilon", "v_prediction"):
        ledger.map("prediction_type", "objective.prediction", ledger["prediction_type"])
    else:
        ledger.imply("prediction_type", "not set: the base's own scheduler says what is predicted")


def _optimizer(ledger: Ledger, dreambooth: bool, processes: int) -> None:
    name = str(ledger["optimizer"] if dreambooth else "adamw").lower()
    prodigy, short = name == "prodigy", bool(ledger["use_8bit_adam"])
    kind = "prodigy" if prodigy else "adamw8bit" if short else "adamw"
    ledger.put("optimizer.kind", kind)
    if dreambooth:
        ledger.map("optimizer", "optimizer.kind", kind, "" if name in ("adamw", "prodigy") else "that script falls back to AdamW for a name it does not know")
    if prodigy or not short:
        ledger.imply("use_8bit_adam", "Prodigy takes no notice of it there either" if short else "off")
    else:
        ledger.map("use_8bit_adam", "optimizer.kind", kind)
    _rate(ledger, processes)
    ledger.put("optimizer.betas", [ledger["adam_beta1"], ledger["adam_beta2"]])
    ledger.tell("adam_beta1", "optimizer.betas")
    ledger.tell("adam_beta2", "optimizer.betas")
    ledger.map("adam_weight_decay", "optimizer.weight_decay", ledger["adam_weight_decay"])
    ledger.map("adam_epsilon", "optimizer.eps", ledger["adam_epsilon"])
    if prodigy:
        _prodigy(ledger)
    if dreambooth:
        same = not ledger["train_text_encoder"] or ledger["adam_weight_decay_text_encoder"] == ledger["adam_weight_decay"]
        if same:
            ledger.imply("adam_weight_decay_text_encoder", "the same as the U-Net's" if ledger["train_text_encoder"] else "the text encoders are not trained")
        else:
            ledger.lack("adam_weight_decay_text_encoder", "one weight decay for all that is trained: the U-Net's", even_left_out=True)


def _rate(ledger: Ledger, processes: int) -> None:
    rate, why = ledger["learning_rate"], ""
    if ledger["scale_lr"]:
        times = ledger["gradient_accumulation_steps"] * ledger["train_batch_size"] * processes
        rate, why = rate * times, f"times {times} for --scale_lr"
    ledger.map("learning_rate", "optimizer.rate", rate, why)
    ledger.imply("scale_lr", "the rate that is written down is the scaled one" if ledger["scale_lr"] else "off, as here")


def _prodigy(ledger: Ledger) -> None:
    """Its own settings. That script reads the three switches with bool(), for which "False" is true."""
    one_rate(ledger, "Prodigy")
    ledger.map("prodigy_beta3", "optimizer.beta3", ledger["prodigy_beta3"]) if ledger["prodigy_beta3"] else ledger.imply("prodigy_beta3", "not set")
    for key, target in (("decouple", "decouple"), ("use_bias_correction", "bias_correction"), ("safeguard_warmup", "safeguard_warmup")):
        said = str(ledger[f"prodigy_{key}"])
        why = f'that script takes any word for true, "{said}" too' if said.lower() in FALSE else ""
        ledger.map(f"prodigy_{key}", f"optimizer.{target}", bool(said), why)


def _epoch(ledger: Ledger, dreambooth: bool, count: int, processes: int) -> str:
    """`count` of that script's epochs as a duration of ours: repeats count as epochs; with class pictures an epoch is as many steps as these fill."""
    if dreambooth and ledger["with_prior_preservation"]:
        batches = -(-ledger["num_class_images"] // (ledger["train_batch_size"] * processes))
        return f"{max(1, count * -(-batches // ledger['gradient_accumulation_steps']))} steps"
    return f"{max(1, count * (ledger['repeats'] if dreambooth else 1))} epochs"


def _length(ledger: Ledger, dreambooth: bool, processes: int) -> None:
    if ledger["max_train_steps"]:
        ledger.map("max_train_steps", "train.length", f"{ledger['max_train_steps']} steps")
        ledger.imply("num_train_epochs", "--max_train_steps counts instead")
        if dreambooth:
            ledger.imply("repeats", "it makes an epoch longer, and the length is in steps")
    else:
        ledger.imply("max_train_steps", "not set: --num_train_epochs counts")
        length = _epoch(ledger, dreambooth, ledger["num_train_epochs"], processes)
        ledger.map("num_train_epochs", "train.length", length, "with class pictures an epoch there is as long as these last" if "steps" in length else "")
        if dreambooth and ledger["with_prior_preservation"]:
            ledger.imply("repeats", "an epoch is as long as the class pictures last")
        elif dreambooth:
            ledger.imply("repeats", f"each epoch there is {ledger['repeats']} of ours; it is in train.length")
    ledger.map("checkpointing_steps", "train.save_every", f"{ledger['checkpointing_steps']} steps")
    steps = ledger["max_train_steps"]
    cycles, power = ("lr_num_cycles", "lr_power") if dreambooth else ("", "")
    convert.schedule(ledger, steps, cycles, power)


def _train(ledger: Ledger, read: Command) -> None:
    accumulate, why = ledger["gradient_accumulation_steps"], ""
    if read.processes > 1:
        accumulate, why = accumulate * read.processes, f"times {read.processes} processes, so that a step sees as many pictures"
    ledger.map("gradient_accumulation_steps", "train.accumulate", accumulate, why)
    ledger.map("gradient_checkpointing", "train.gradient_checkpointing", bool(ledger["gradient_checkpointing"]))
    convert.precision(ledger, "mixed_precision", left_out=read.precision)
    ledger.map("max_grad_norm", "train.max_grad_norm", ledger["max_grad_norm"])
    seed, why = ledger["seed"], ""
    if seed is None or seed < 0:
        seed, why = 0, "no seed is set there, so that no two runs are alike; here every draw follows from one"
    ledger.map("seed", "train.seed", seed, why)


def _previews(ledger: Ledger, dreambooth: bool, processes: int) -> None:
    prompt, count = ledger["validation_prompt"], ledger["num_validation_images"]
    if not prompt:
        ledger.imply("validation_prompt", "nothing is drawn there")
        for key in ("num_validation_images", "validation_epochs"):
            ledger.imply(key, "without --validation_prompt nothing is drawn there; here the caption is drawn, as often as preview.every says")
        return
    ledger.map(
        "validation_prompt", "preview.prompts", [prompt] * max(1, count), "drawn in 25 steps with guidance 5 as there, by Euler rather than DPM-Solver++"
    )
    ledger.imply("num_validation_images", f"the prompt stands {max(1, count)} times in preview.prompts, each with a seed of its own")
    ledger.map("validation_epochs", "preview.every", _epoch(ledger, dreambooth, ledger["validation_epochs"], processes))
    settings: dict[str, Any] = {"seed": max(0, ledger["seed"] or 0), "steps": 25, "guidance": 5.0}
    for key, value in settings.items():
        ledger.put(f"preview.{key}", value)


def _prior(ledger: Ledger) -> None:
    keys = (
        "with_prior_preservation",
        "class_data_dir",
        "class_prompt",
        "num_class_images",
        "prior_loss_weight",
        "sample_batch_size",
        "prior_generation_precision",
    )
    if not ledger["with_prior_preservation"]:
        for key in keys:
            ledger.imply(key, "no prior preservation there, and none here")
        return
    ledger.tell("with_prior_preservation", "data.prior", "[data.prior] with a prompt is prior preservation, with the same loss")
    ledger.map("class_prompt", "data.prior.prompt", ledger["class_prompt"])
    ledger.map("num_class_images", "data.prior.count", ledger["num_class_images"])
    ledger.map("prior_loss_weight", "data.prior.weight", ledger["prior_loss_weight"])
    if _holds(Path(ledger["class_data_dir"]), ledger["num_class_images"]):
        ledger.map("class_data_dir", "data.prior.pictures", str(ledger["class_data_dir"]))
    else:
        ledger.imply("class_data_dir", "it does not hold as many pictures; the base draws them here too, once, into Darkroom's cache")
    ledger.imply("sample_batch_size", "how many are drawn at once is no part of what they show")
    ledger.imply("prior_generation_precision", "they are drawn in the training's own number format")


def _holds(folder: Path, count: int) -> bool:
    return folder.is_dir() and sum(path.suffix.lower() in ENDINGS for path in folder.iterdir()) >= count
