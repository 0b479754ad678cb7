"""The model card: front matter as the hub reads it, and the page below it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from darkroom.jobs.card_words import adapter_trains_text, beside, for_comfy, imports, is_word, loading, use_word
from darkroom.spec import Spec

if TYPE_CHECKING:
    from darkroom.jobs.export import Subject

TAGS = ("text-to-image", "stable-diffusion-xl", "lora", "diffusers", "template:sd-lora", "darkroom")
WORD_TAGS = ("text-to-image", "stable-diffusion-xl", "textual_inversion", "diffusers", "darkroom")


@dataclass(frozen=True)
class Shot:
    """One picture of the card."""

    file: str
    prompt: str
    seed: int
    step: int


def card(subject: Subject) -> str:
    """README.md: what it is, how to use it, what it was made of and how."""
    parts = [front_matter(subject), *_opening(subject), _gallery(subject), *_use(subject), _verdicts(subject), *_making(subject), _licence(subject)]
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(subject: Subject) -> str:
    """YAML. A JSON string is a YAML string, so that no prompt can break it."""
    lines = ["---"]
    if subject.base_model:
        lines.append(f"base_model: {_quoted(subject.base_model)}")
    if subject.recipe.data.subject:
        lines.append(f"instance_prompt: {_quoted(subject.recipe.template)}")
    lines += [f"license: {_quoted(subject.choices['license'])}", "library_name: diffusers", "pipeline_tag: text-to-image", "tags:"]
    lines += [f"- {_quoted(tag)}" for tag in (WORD_TAGS if is_word(subject) else TAGS)]
    if subject.shots:
        lines.append("widget:")
        for shot in subject.shots:
            lines += [f"- text: {_quoted(shot.prompt)}", "  output:", f"    url: {_quoted(shot.file)}"]
    return "\n".join([*lines, "---"])


def _quoted(text: str) -> str:
    return json.dumps(text)  # pure ASCII: YAML reads JSON's escapes


def _plain(text: str) -> str:
    """A text inside a table or a sentence: no line end, no bar, no markup."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")


def _opening(subject: Subject) -> Iterator[str]:
    yield f"# {_plain(subject.recipe.data.subject or subject.name)}"
    made = f"trained with Darkroom in {_count(subject.step, 'step')} on {_count(subject.facts['pictures'], 'picture')}"
    what = "A new word" if is_word(subject) else "An adapter"
    if subject.base_model:
        yield f"{what} for [{subject.base_model}](https://huggingface.co/{subject.base_model}), {made}."
    else:
        yield f"{what} for Darkroom's pocket model, {made}. That is a tiny SDXL for trying things out: with SDXL 1.0 itself this file does not work."
    if subject.base_model and subject.trained_on != subject.base_model:
        yield f"It was trained on `{subject.trained_on}` (weights {subject.facts.get('base_sha256', '')[:12]}), a model of that family, and is best there."
    if subject.recipe.trigger:
        where = " It is what pictures should **not** be: the word belongs into the negative prompt." if subject.recipe.negative else ""
        yield f'**Trigger word:** `{subject.recipe.trigger}`. It was taught as "{_plain(subject.recipe.template)}".{where}'


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _gallery(subject: Subject) -> str:
    if not subject.shots:
        return ""
    rows = [f"| ![]({shot.file}) | {_plain(shot.prompt)} | {shot.seed} |" for shot in subject.shots]
    return "\n".join(["| picture | prompt | seed |", "| --- | --- | --- |", *rows])


def _use(subject: Subject) -> Iterator[str]:
    name, weight = subject.name, subject.choices["weight"]
    prompt, negative = words(subject)
    below = f"\n\nand as negative prompt\n\n```\n{negative}\n```" if negative else ""
    yield "## How to use it"
    yield f"### diffusers\n\n```python\n{diffusers_code(subject)}\n```"
    if not subject.base_model:  # no other program has the pocket model
        return
    if is_word(subject):
        yield from use_word(subject, prompt, negative)
        return
    yield from beside(subject)
    yield (
        f"### A1111 and its relatives\n\nPut `{name}.safetensors`, `{name}.json` and `{name}.png` into `models/Lora`. Then prompt\n\n"
        f"```\n{prompt} <lora:{name}:{weight:g}>\n```{below}\n\n`{name}.json` holds the trigger word and this "
        "weight: a click on the card puts them into the prompt."
    )
    clip = f" and strength_clip to {weight:g}" if adapter_trains_text(subject) else " (the text encoders are unchanged: strength_clip has no effect)"
    yield (
        f"### ComfyUI\n\nPut `{name}.safetensors` into `models/loras`, add the node *Load LoRA* behind *Load Checkpoint*, choose `{name}.safetensors`, set "
        f"strength_model to {weight:g}{clip}, and prompt\n\n```\n{for_comfy(subject, prompt)}\n```{for_comfy(subject, below)}"
    )


def words(subject: Subject) -> tuple[str, str]:
    """Prompt and negative prompt that show what the adapter does. A negative one is worn by both sides of guidance, and its word steers away."""
    if subject.recipe.negative:
        return "a photo of a cat", subject.recipe.template or subject.name
    return subject.recipe.template or subject.name, ""


def diffusers_code(subject: Subject) -> str:
    """Python that draws a picture with what was learned."""
    where, name, preview = subject.choices["repository"] or ".", _quoted(subject.name), subject.recipe.preview
    comment = "" if subject.choices["repository"] else "  # the folder of this file, or its OWNER/NAME on the hub"
    base = _quoted(subject.base_model) if subject.base_model else 'str(pocket.folder("base"))'
    prompt, negative = words(subject)
    against = f", negative_prompt={_quoted(negative)}" if negative else ""
    drawn = f"{_quoted(prompt)}{against}, num_inference_steps={preview.steps}, guidance_scale={preview.guidance}"
    worn = [
        f"pipe.load_lora_weights({_quoted(where)}, weight_name={_quoted(subject.name + '.safetensors')}, adapter_name={name}){comment}",
        f"pipe.set_adapters({name}, {float(subject.choices['weight'])})",
    ]
    return "\n".join([
        "import torch",
        *([] if subject.base_model else ["from darkroom import pocket"]),
        "from diffusers import StableDiffusionXLPipeline",
        *imports(subject),
        "",
        f'pipe = StableDiffusionXLPipeline.from_pretrained({base}, torch_dtype=torch.float16).to("cuda")',
        *([] if is_word(subject) else worn),
        *loading(subject),
        f"picture = pipe({drawn}).images[0]",
        'picture.save("picture.png")',
    ])  # fmt: skip


def _verdicts(subject: Subject) -> str:
    if not subject.verdicts:
        return ""
    lines = "\n".join(f"- {_plain(sentence)}" for sentence in subject.verdicts)
    grid = f"\n\n![the same prompts and seeds in every arm]({subject.grid})" if subject.grid else ""
    return f"## Is it better than the base?\n\nThe same prompts, seeds and noise through every arm of a trial:\n\n{lines}{grid}"


def _making(subject: Subject) -> Iterator[str]:
    yield "## How it was made"
    rows = "\n".join(f"| {key} | {_plain(str(value))} |" for key, value in _settings(subject))
    yield f"| setting | value |\n| --- | --- |\n{rows}"
    yield (
        f"It learned from {_count(subject.facts['pictures'], 'picture')}. Their bytes and captions have the hash "
        f"`{subject.facts.get('pictures_sha256', '')}`; `{subject.name}.safetensors` has "
        f"`{subject.adapter_sha256}`. `recipe.toml` is the whole recipe (`darkroom train recipe.toml --images FOLDER` repeats it), `facts.json` the receipt."
    )


def _settings(subject: Subject) -> Iterator[tuple[str, Any]]:
    recipe, preflight = subject.recipe, subject.facts["preflight"]
    whole = preflight.get("steps") or subject.step
    yield "base", subject.trained_on
    yield "method", _said(recipe.method)
    yield "steps", f"{subject.step} of {whole} ({preflight.get('epochs', 0) * subject.step / whole:.3g} epochs)"
    yield "batch", f"{recipe.data.batch_size} x {recipe.train.accumulate} accumulated"
    yield "buckets", ", ".join(f"{row['width']} x {row['height']} ({row['pictures']})" for row in preflight.get("buckets", ()))
    yield "optimizer", _said(recipe.optimizer)
    yield "objective", _said(recipe.objective)
    yield "precision", f"{subject.facts.get('precision', '')}, file in {recipe.train.save_dtype}"
    yield "seed", recipe.train.seed


def _said(spec: Spec) -> str:
    """Any member of a union in words: its kind, then what is set."""
    fields = spec.model_dump(mode="json")
    said = {key: value for key, value in fields.items() if key != "kind" and value not in (False, None, "")}
    parts = [f"{key} ({_said(inner)})" if isinstance(inner := getattr(spec, key), Spec) else _field(key, value) for key, value in said.items()]
    return ", ".join([str(fields.get("kind", "")), *parts])


def _field(key: str, value: Any) -> str:
    name = key.replace("_", " ")
    shown = ", ".join(f"{part:g}" for part in value) if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else value
    return name if value is True else f"{name} {shown}"


def _licence(subject: Subject) -> str:
    said = subject.choices["license"]
    mine = "No licence was chosen for the adapter: ask its author." if said == "other" else f"The adapter is under `{said}`."
    if not subject.base_model:
        return f"## Licence\n\n{mine}"
    if subject.base_model == "stabilityai/stable-diffusion-xl-base-1.0":
        theirs = f"The base, {subject.base_model}, is under CreativeML Open RAIL++-M (`openrail++`), whose rules of use hold for what is drawn with it."
    else:
        theirs = f"The base, {subject.base_model}, has a licence of its own; SDXL 1.0's is CreativeML Open RAIL++-M (`openrail++`)."
    return f"## Licence\n\n{mine} {theirs}"
