"""What a million, ten million and a hundred million pictures would take, and full fine-tuning on 8 and 64 cards: prints docs/scale.md.

    make scale

Nothing of it was run. Rates that were measured come from tools/scale_rates.json (bench/scale_rates.py) and docs/log.md; all else is an assumption with a
favourable, a usual and an unfavourable value. Each figure is computed three times, from all favourable, all usual and all unfavourable values: the range is
wider than one should be by chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from scale_rates import ASSUMED, CODE, LOGGED, MEASURED, WORLDS, World

SIZES, CARDS = (10**6, 10**7, 10**8), (8, 64)
GB = 10**9


# ---- pictures -----------------------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """Hours by the clock and dollars; `slowest` is what holds it up."""

    hours: float
    dollars: float
    slowest: str


def collect(w: World, n: int) -> Stage:
    """One process, whatever the machine; the cores decode in the meantime."""
    asked = n / w.alive
    rates = {
        "one process": w.collect_rate, "the link": w.link_gb * GB / w.picture_bytes, "politeness": w.hosts * w.per_host / w.download_s,
        "the cores": w.cores / (w.collect_cpu_ms / 1e3),
    }  # fmt: skip
    slowest = min(rates, key=lambda name: rates[name])
    hours = asked / rates[slowest] / 3600
    return Stage(hours, hours * w.cores * w.core_price, slowest)


def comparing(w: World, n: int) -> float:
    """Hours of looking for duplicates in one process. A bucket holds prints * n / buckets hashes, of which `crowd` are looked at."""
    full = min(w.crowd, w.prints * n / w.buckets) / min(w.crowd, w.prints * 100_000 / w.buckets)
    return n * w.compare_us / 1e6 / 3600 * (1 - w.crowded + w.crowded * max(1.0, full))


def screen(w: World, n: int) -> Stage:
    """Figures on all cores, then duplicates in one process."""
    reading, alone = n * w.screen_cpu_ms / 1e3 / 3600 / w.cores, comparing(w, n)
    return Stage(reading + alone, (reading + alone) * w.cores * w.core_price, "comparing, one process" if alone > reading else "the cores")


def caption(w: World, n: int) -> Stage:
    """On eight cards."""
    hours = n / w.captions / 3600
    return Stage(hours / 8, hours * w.card_price, "the cards")


def encode(w: World, n: int) -> Stage:
    """Pictures and captions, before the first step of a training on eight cards, all of which are paid for in the meantime."""
    rates = {
        "the cards": w.encoding_cards * w.peak_tflops * w.used_encoding / (w.vae_tflop + w.text_tflop),
        "the disk": w.disk_rate_gb * GB / (w.latent_bytes + w.text_bytes),
    }
    slowest = min(rates, key=lambda name: rates[name])
    hours = n / rates[slowest] / 3600
    return Stage(hours, hours * 8 * w.card_price, slowest)


def store(w: World, n: int) -> Stage:
    """A month of pictures, manifest, and what is encoded; no hours."""
    return Stage(0.0, stored(w, n) * w.store_price, "")


def stored(w: World, n: int) -> float:
    """GB."""
    return n * (w.picture_bytes + w.row_parquet_bytes + w.latent_bytes + w.text_bytes) / GB


STAGES: dict[str, Callable[[World, int], Stage]] = {"collect": collect, "screen": screen, "caption": caption, "encode": encode, "store, a month": store}


# ---- walls --------------------------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wall:
    """Where something stops being possible, or bearable, in pictures."""

    name: str
    at: Callable[[World], float]
    lifted: str


def manifest_seconds(w: World) -> float:
    """To read and write a row."""
    return float(w.row_open_us + w.row_save_us) / 1e6


WALLS = (
    Wall("duplicates are missed: buckets are fuller than what is looked at", lambda w: w.crowd * w.buckets / w.prints, "longer pieces of the hash; buckets joined by an engine"),
    Wall("comparing takes one process longer than {patience_h:g} h", lambda w: last(lambda n: comparing(w, n) < w.patience_h), "the same"),
    Wall("screening holds all rows and hashes in {memory_gb:,g} GB", lambda w: w.memory_gb * GB / w.screen_row_bytes, "rows in columns (Arrow), hashes in a mapped file"),
    Wall("every command holds all rows in {memory_gb:,g} GB", lambda w: w.memory_gb * GB / w.row_peak_bytes, "rows in columns, read by parts"),
    Wall("every command reads and writes the manifest for {waiting_min:g} min", lambda w: w.waiting_min * 60 / manifest_seconds(w), "a manifest of parts, of which a command writes its columns"),
    Wall("pictures and encodings fill a disk of {disk_gb:,g} GB", lambda w: w.disk_gb / stored(w, 1), "object storage; latents in bf16 without the deviation are a quarter"),
    Wall("encoding lasts longer than {patience_h:g} h before the first step", lambda w: last(lambda n: encode(w, n).hours < w.patience_h), "processes that share it, or encode while they train"),
    Wall("one process collects longer than {patience_h:g} h", lambda w: last(lambda n: collect(w, n).hours < w.patience_h), "an engine with several machines; politeness stays"),
)  # fmt: skip


def last(holds: Callable[[int], bool]) -> float:
    """The largest n, to a thousandth, for which something holds that holds for small ones."""
    low, high = 0.0, 15.0
    while high - low > 4e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(round(10**middle)) else (low, middle)
    return 10.0**low


# ---- training -----------------------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """Full fine-tuning of the U-Net at 1024 x 1024 with AdamW, float32 weights beside bf16 computing, checkpointed."""

    step: float
    """Seconds."""
    adding: float
    """Seconds of it in which gradients are added up: after the backward pass, as it is built."""
    rate: float
    """Pictures a second, of all cards."""
    card_gb: float
    sharded_gb: float
    """The same with weights, gradients and states divided (train.sharding = "fsdp", as ZeRO 3 does)."""
    divided_step: float
    """Seconds of a step then, if nothing hides: a ring gathers the weights forwards and backwards and adds gradients up, three halves of what is sent else."""
    saving: float
    """Seconds in which the first process writes a checkpoint and all others wait."""


def training(w: World, cards: int) -> Training:
    """A step computes the U-Net forwards twice (checkpointing) and backwards (twice the work). A ring sends 2 (N - 1) / N of the gradients."""
    states, activations = 16 * w.unet_parameters / GB, w.batch * w.activation_gb  # weights, gradients and two averages of 4 bytes
    computing = w.batch * 4 * w.unet_tflop / (w.peak_tflops * w.used_training)
    adding = 2 * (cards - 1) / cards * 4 * w.unet_parameters / GB / (w.inside_gbs if cards <= 8 else w.between_gbs)
    written = (12 + 2) * w.unet_parameters / GB
    return Training(
        computing + adding,
        adding,
        cards * w.batch / (computing + adding),
        states + activations,
        states / cards + activations,
        computing + 1.5 * adding,
        written / w.disk_rate_gb,
    )


# ---- the page -----------------------------------------------------------------------------------------------------------------------------------------------


def page() -> str:
    """All of it, as Markdown."""
    parts = (head, pictures_table, walls_table, training_table, lists)
    return "\n".join(line for part in parts for line in part()) + "\n"


def head() -> Iterator[str]:
    yield "# The plan past what can be run here\n"
    yield f"Written by `make scale` (`tools/scale_plan.py`); do not edit. **Nothing on this page was run at these sizes**: it is reckoned from rates measured on {MEASURED['machine']} ({MEASURED['date']}) and from assumptions, all of which are listed below. A figure is the usual one; in brackets stand what all favourable and what all unfavourable values give.\n"


def pictures_table() -> Iterator[str]:
    yield "## Pictures\n"
    yield f"Collecting and screening on one machine of {ASSUMED['cores'].values[1]:g} cores, captions on eight cards, encoding by a training on eight.\n"
    yield "| pictures | stage | hours | dollars | held up by |\n| ---: | --- | ---: | ---: | --- |"
    for n in SIZES:
        for name, stage in STAGES.items():
            found = [stage(w, n) for w in WORLDS]
            hours = three([each.hours for each in found]) if name != "store, a month" else f"{three([stored(w, n) / 1000 for w in WORLDS])} TB"
            yield f"| {millions(n)} | {name} | {hours} | {three([each.dollars for each in found])} | {found[1].slowest} |"
        whole = [[stage(w, n) for stage in STAGES.values()] for w in WORLDS]
        yield f"| {millions(n)} | **in all** | {three([sum(each.hours for each in stages) for stages in whole])} | {three([sum(each.dollars for each in stages) for stages in whole])} | |"
    yield ""


def walls_table() -> Iterator[str]:
    yield "## The first wall at each size\n"
    reached = sorted(WALLS, key=lambda wall: wall.at(WORLDS[1]))
    for n in SIZES:
        met = [wall for wall in reached if wall.at(WORLDS[1]) < n]
        bad = [wall for wall in WALLS if wall.at(WORLDS[2]) < n and wall not in met]
        told = (
            f"{words(met[0], WORLDS[1])}; {len(met) - 1} more below that size"
            if met
            else f"none; the nearest is that {words(reached[0], WORLDS[1])}, at {short(reached[0].at(WORLDS[1]) / 1e6)} M"
        )
        yield f"- **{millions(n)} pictures**: {told}." + (
            f" At unfavourable ones also {len(bad)}, first: {words(min(bad, key=lambda wall: wall.at(WORLDS[2])), WORLDS[2])}." if bad else ""
        )
    yield "\n| wall | millions of pictures | what lifts it |\n| --- | ---: | --- |"
    for wall in reached:
        yield f"| {words(wall, WORLDS[1])} | {three([wall.at(w) / 1e6 for w in WORLDS])} | {wall.lifted} |"
    yield ""


def words(wall: Wall, w: World) -> str:
    return wall.name.format(**vars(w))


def training_table() -> Iterator[str]:
    found = {cards: [training(w, cards) for w in WORLDS] for cards in CARDS}
    yield "## Full fine-tuning\n"
    yield f'The U-Net at 1024 x 1024, AdamW, float32 weights beside bf16, checkpointed, {WORLDS[1].batch:g} pictures a card. Each card holds all weights and states, unless they are divided (train.sharding = "fsdp", which was run here only with the small model, on CPUs); gradients are added up after the backward pass, and the first process writes checkpoints, previews and the held-out loss while the others wait.\n'
    yield "| | " + " | ".join(f"{cards} cards" for cards in CARDS) + " |\n| --- |" + " ---: |" * len(CARDS)
    rows: dict[str, Callable[[int, int], float]] = {
        "seconds a step": lambda cards, which: found[cards][which].step,
        "of them adding gradients up": lambda cards, which: found[cards][which].adding, "pictures a second": lambda cards, which: found[cards][which].rate,
        "GB on a card, replicated": lambda cards, which: found[cards][which].card_gb, "GB on a card, divided": lambda cards, which: found[cards][which].sharded_gb,
        "seconds a step, divided, if nothing hides": lambda cards, which: found[cards][which].divided_step,
        "seconds of all cards for a checkpoint": lambda cards, which: found[cards][which].saving,
    }  # fmt: skip
    for n in SIZES:
        rows[f"hours for {millions(n)} pictures once"] = lambda cards, which, n=n: n / found[cards][which].rate / 3600  # type: ignore[misc]
        rows[f"dollars for {millions(n)} pictures once"] = lambda cards, which, n=n: n / found[cards][which].rate / 3600 * cards * WORLDS[which].card_price  # type: ignore[misc]
    for name, value in rows.items():
        yield f"| {name} | " + " | ".join(three([value(cards, which) for which in range(3)]) for cards in CARDS) + " |"
    yield ""
    for cards in CARDS:
        yield f"- **{cards} cards**: {first_wall(cards, found[cards])}"
    yield ""


def first_wall(cards: int, found: list[Training]) -> str:
    """What holds it up, by figures."""
    usual, worst = found[1], found[2]
    share = f"adding gradients up is {usual.adding / usual.step:.0%} of a step ({found[0].adding / found[0].step:.0%} to {worst.adding / worst.step:.0%})"
    holds = f"{usual.card_gb:.0f} of {ASSUMED['card_gb'].values[1]:g} GB are taken, {16 * MEASURED['unet_parameters'] / GB:.0f} of them by weights, gradients and AdamW's averages"
    if usual.adding / usual.step > 0.25:
        return f"the network: {share}. It would hide behind the backward pass if gradients were sent as they come (DDP's buckets). A checkpoint costs {usual.saving * cards / 3600:.2f} card-hours of waiting."
    w, average = WORLDS[1], 4 * MEASURED["unet_parameters"] / GB
    most, beside = ((w.card_gb - 16 * w.unet_parameters / GB - more) // w.activation_gb for more in (0, average))
    return f'memory: {holds}, so that a card takes at most {most:.0f} pictures, and {beside:.0f} beside an average (EMA). Dividing them (train.sharding = "fsdp") lifts it; {share}.'


def lists() -> Iterator[str]:
    yield "## Measured\n"
    yield "By `bench/scale_rates.py`: " + "; ".join(f"{name} {value:,.10g}" for name, value in MEASURED.items() if isinstance(value, int | float)) + ".\n"
    yield from (f"- {value:,.5g} {text}." for value, text in LOGGED.values())
    yield "\n## From the code\n"
    yield from (f"- {value:,} {text}." for value, text in CODE.values())
    yield "\n## Assumed\n\n| what | favourable | usual | unfavourable | from |\n| --- | ---: | ---: | ---: | --- |"
    yield from (f"| {given.unit} | " + " | ".join(f"{value:,g}" for value in given.values) + f" | {given.source} |" for given in ASSUMED.values())


def three(values: list[float]) -> str:
    """The usual figure and the range."""
    return short(values[1]) if values[0] == values[1] == values[2] else f"{short(values[1])} ({short(values[0])} to {short(values[2])})"


def short(value: float) -> str:
    """Two digits, or whole numbers."""
    if not value:
        return "0"
    digits = max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{round(value, digits):.{digits}f}" if value < 100 else f"{float(f'{value:.2g}'):,.0f}"


def millions(n: int) -> str:
    return f"{n // 10**6} M"


if __name__ == "__main__":
    print(page(), end="")
