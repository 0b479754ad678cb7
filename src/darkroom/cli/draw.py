"""`darkroom generate`, `darkroom grid` and `darkroom prompt`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from darkroom.cli.engine import EngineOption, WorkersOption
from darkroom.cli.show import Device, Json, one_of, show
from darkroom.errors import RecipeError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
MEMORIES = ("full", "model", "sequential")

Adapter = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE[:WEIGHT][@BRANCH]",
        help="An adapter to wear, or a run (RUN@500: as of step 500); may be given several times. @unconditional: that branch alone.",
    ),
]
Adapters = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where <lora:NAME:WEIGHT> in a prompt finds its file. Default: ./adapters.")]
Embedding = Annotated[
    list[str] | None, typer.Option(metavar="FILE", help="A textual inversion, or a run (RUN@500: as of step 500); its word may stand in prompts.")
]
Negative = Annotated[
    str | None,
    typer.Option(help='What is not wanted; @basic, @anime, @photo or @safe for a ready list. Left out: zeroed embeddings; "": the encoded empty text.'),
]
Base = Annotated[str, typer.Option(help="pocket, a diffusers folder, a hub id or a .safetensors checkpoint.")]
Fields = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Set any field of the request, such as refiner.fraction=0.7; may be given several times."),
]
Language = Annotated[str, typer.Option(help="How weights are written: auto, plain, compel or a1111.")]
Sampler = Annotated[str, typer.Option(help='Euler, "Euler a", "DPM++ 2M Karras", DDIM, UniPC, LCM ... An unknown name lists them all.')]
Memory = Annotated[str, typer.Option(help="full; model or sequential: weights wait in host memory (smaller and slower).")]
Refiner = Annotated[str | None, typer.Option(metavar="MODEL", help="A refiner after the base: pocket-refiner, a folder, a hub id or a checkpoint.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")]


def tree(**given: Any) -> dict[str, Any]:
    """A request as nested dictionaries, from options of which those left out are None."""
    from darkroom.jobs.generate import parse_adapter
    from darkroom.jobs.learned import word_of
    from darkroom.sampling.samplers import named

    found = {
        key: value for key, value in given.items() if value is not None and key not in ("adapter", "embedding", "refiner", "settings", "outpaint", "control")
    }
    found["sampler"] = named(given.get("sampler") or "euler")
    found["adapters"] = [parse_adapter(text).model_dump() for text in given.get("adapter") or ()]
    found["embeddings"] = [{"file": word_of(file)} for file in given.get("embedding") or ()]
    if given.get("refiner"):
        found["refiner"] = {"model": given["refiner"]}
    if given.get("outpaint"):
        found["outpaint"] = sides(given["outpaint"])
    if given.get("control"):
        found["controls"] = [control(text) for text in given["control"]]
    from darkroom.spec import override

    return override(found, given.get("settings") or ())


def sides(text: str) -> list[int]:
    """ "left=64,bottom=32" or "64" for all sides, as [left, top, right, bottom]."""
    if text.isdigit():
        return [int(text)] * 4
    pairs = dict(part.partition("=")[::2] for part in text.replace(" ", "").split(",") if part)
    wrong = [f"{key}={value}" for key, value in pairs.items() if key not in ("left", "top", "right", "bottom") or not value.isdigit()]
    if wrong or not pairs:
        raise RecipeError(f"--outpaint {text}: write the pixels to add on each side, for example left=64,right=64, or 64 for all four.")
    return [int(pairs.get(side, 0)) for side in ("left", "top", "right", "bottom")]


def control(text: str) -> dict[str, Any]:
    """ "MODEL=IMAGE" or "MODEL=IMAGE,prepare=edge,weight=0.8,start=0,end=0.5" as a Control's tree."""
    first, *rest = text.split(",")
    model, equals, image = first.rpartition("=")
    pairs = dict(part.partition("=")[::2] for part in rest)
    if not equals or any(key not in ("prepare", "weight", "start", "end") or not value for key, value in pairs.items()):
        raise RecipeError(f"--control {text}: write it as MODEL=IMAGE, then ,prepare=edge|depth|colour ,weight=0.8 ,start=0 ,end=0.5 as needed.")
    return {"model": model, "image": image, **pairs}


def generate_command(
    prompts: Annotated[list[str] | None, typer.Argument(metavar="PROMPT...", help="One or more prompts.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where the PNGs go. Default: pictures.")] = None,
    adapter: Adapter = None,
    adapters: Adapters = None,
    embedding: Embedding = None,
    negative: Negative = None,
    language: Language = "auto",
    seed: Annotated[int, typer.Option(help="Of the first picture of each prompt.")] = 0,
    count: Annotated[int, typer.Option(help="Pictures of each prompt, with seeds counted up.")] = 1,
    batch: Annotated[int, typer.Option(help="Pictures drawn at once; 0: as many as are surely cheap in memory.")] = 0,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 25,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance.")] = 5.0,
    sampler: Sampler = "euler",
    base: Base = "pocket",
    refiner: Refiner = None,
    width: Annotated[int, typer.Option(help="Pixels; 0 is the model's own, or the start picture's shape.")] = 0,
    height: Annotated[int, typer.Option(help="Pixels; 0 is the model's own, or the start picture's shape.")] = 0,
    image: Annotated[str | None, typer.Option(metavar="FILE", help="A start picture (img2img).")] = None,
    strength: Annotated[float | None, typer.Option(help="How much is drawn anew over it, up to 1. Default: 0.75; 1 with --mask or --outpaint.")] = None,
    mask: Annotated[str | None, typer.Option(metavar="FILE", help="White is drawn anew, black stays (inpainting).")] = None,
    outpaint: Annotated[str | None, typer.Option(metavar="SIDES", help="Pixels to add: left=64,right=64, or 64 for all sides.")] = None,
    keep: Annotated[str | None, typer.Option(metavar="face|FILE", help="What stays of the start picture: its face, or what is white in a picture.")] = None,
    control: Annotated[list[str] | None, typer.Option(metavar="MODEL=IMAGE", help="A ControlNet; then ,prepare=edge ,weight=0.8 as needed.")] = None,
    upscale: Annotated[int, typer.Option(help="Enlarge the finished picture 2, 3 or 4 times.")] = 1,
    upscaler: Annotated[str, typer.Option(help="lanczos or realesrgan.")] = "lanczos",
    settings: Fields = None,
    previews: Annotated[int, typer.Option(metavar="N", help="Write what the picture looks like every N steps; 0: never.")] = 0,
    tiny: Annotated[str, typer.Option(metavar="MODEL", help="A tiny autoencoder for --previews, such as madebyollin/taesdxl.")] = "",
    memory: Memory = "full",
    device: Device = "auto",
    precision: Precision = "auto",
    engine: EngineOption = "local",
    workers: WorkersOption = 0,
    again: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw this picture again from what it carries.")] = None,
    as_json: Json = False,
) -> None:
    """Draw pictures. Each PNG carries its whole request: --again draws the same bytes."""
    from darkroom.cli.watch import Terminal
    from darkroom.jobs import generate as job

    how = one_of("--memory", memory, MEMORIES)
    if again is not None:
        with Terminal() as watcher:
            path, same = job.again(again, out, device, watcher, how)
        words = "the same bytes" if same else "other bytes: another machine, another version, or a file that was re-saved"
        show({"picture": str(path), "same_bytes": same}, [f"{path}: {words}"], as_json)
        return
    if not prompts:
        raise RecipeError('generate needs a prompt, for example: darkroom generate "a 3d cat on a red background"')
    for name, value, least in (("--count", count, 1), ("--batch", batch, 0), ("--previews", previews, 0)):
        if value < least:
            raise RecipeError(f"{name} {value}: must be at least {least}.")
    asked = tree(
        prompt="", negative=negative, language=language, base=base, seed=seed, steps=steps, guidance=guidance, width=width, height=height, sampler=sampler,
        adapter=adapter, embedding=embedding, refiner=refiner, image=image, strength=strength, mask=mask, outpaint=outpaint, keep=keep, control=control,
        upscale=upscale, upscaler=upscaler, settings=settings, batch=batch or None,
    )  # fmt: skip
    from darkroom.jobs.engine import open_engine
    from darkroom.sampling.peek import Previews
    from darkroom.sampling.request import Request

    template = Request.from_tree(asked, "generate")
    wanted = job.requests_for(prompts, template, count)
    with Terminal() as watcher, open_engine(engine, workers) as crew:
        paths = job.generate(
            wanted, out or Path("pictures"), device, one_of("--precision", precision, PRECISIONS), watcher, how, adapters,
            Previews(previews, tiny) if previews else None, fill=batch == 0, engine=crew,
        )  # fmt: skip
    show({"pictures": [str(path) for path in paths]}, [str(path) for path in paths], as_json)


def grid_command(
    prompt: Annotated[str | None, typer.Argument(help="The prompt; or a GRID.toml with everything in it.")] = None,
    axis: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=V,V", help='An axis, such as guidance=3,5,8, or "prompt=a|b". The first goes across, the second down.')
    ] = None,
    arm: Annotated[
        list[str] | None, typer.Option(metavar='"NAME: FIELD=V; ..."', help="A named column with settings of its own; may be given several times.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where pictures and sheet go; a stopped grid goes on there.")] = Path("grid"),
    adapter: Adapter = None,
    adapters: Adapters = None,
    embedding: Embedding = None,
    negative: Negative = None,
    language: Language = "auto",
    seed: Annotated[int, typer.Option(help="The same for every picture, unless it is an axis.")] = 0,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 25,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance.")] = 5.0,
    sampler: Sampler = "euler",
    base: Base = "pocket",
    refiner: Refiner = None,
    settings: Fields = None,
    title: Annotated[str, typer.Option(help="Stands above the sheet.")] = "",
    memory: Memory = "full",
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """The same picture along axes: any field of the request, adapters and their weights. Single files and one labelled sheet."""
    from darkroom.cli.watch import Terminal
    from darkroom.jobs.grid import Axis, Grid, parse_arm, parse_axis, run_grid
    from darkroom.spec import read_toml

    if prompt and prompt.endswith(".toml"):
        asked = Grid.from_tree(read_toml(Path(prompt)), prompt)
    else:
        axes = [parse_axis(text) for text in axis or ()]
        if arm:
            axes.insert(0, Axis(name="arm", stops=tuple(parse_arm(text) for text in arm)))
        if not axes or (not prompt and not any(found.name == "prompt" for found in axes)):
            raise RecipeError('grid needs a prompt and an axis, for example: darkroom grid "a 3d cat" --axis guidance=3,5,8 --axis seed=1,2')
        request = tree(
            prompt=prompt or "", negative=negative, language=language, base=base, seed=seed, steps=steps, guidance=guidance, sampler=sampler,
            adapter=adapter, embedding=embedding, refiner=refiner, settings=settings,
        )  # fmt: skip
        asked = Grid.from_tree({"title": title, "request": request, "axes": [found.model_dump() for found in axes]}, "grid")
    with Terminal() as watcher:
        result = run_grid(asked, out, device, one_of("--precision", precision, PRECISIONS), watcher, one_of("--memory", memory, MEMORIES), adapters)
    shared = [f"{result['shared_steps']} steps were shared between pictures"] if result["shared_steps"] else []
    show(result, [f"{result['drawn']} pictures in {out / 'pictures'}", *shared, f"sheet  {result['grid']}"], as_json)


def prompt_command(
    text: Annotated[str, typer.Argument(metavar="PROMPT", help="A prompt with weights, in compel's or A1111's language.")],
    language: Language = "auto",
    steps: Annotated[int, typer.Option(help="For what changes while drawing, such as [a:b:0.5].")] = 25,
    embedding: Embedding = None,
    base: Base = "pocket",
    as_json: Json = False,
) -> None:
    """How a prompt is read: its parts, their weights, their tokens, and what lies beyond the first 75."""
    from darkroom.cli.prompt import prompt_lines
    from darkroom.jobs.prompt import prompt_facts

    facts = prompt_facts(text, base, language, steps, embedding or ())
    show(facts, prompt_lines(facts), as_json)
