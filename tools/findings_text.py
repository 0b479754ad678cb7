"""The page of the findings: figures as they fell, the verdicts first, the pictures small. Nothing is left out because it is dull."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from darkroom.data.manifest import Manifest
from darkroom.evidence.grid import grid
from darkroom.files import write_text
from PIL import Image

QUESTIONS = {
    ("target", "empty"): "Does it help at all?",
    ("target", "zeroed"): "The essay's own comparison: adapter, word and encoding at once",
    ("target", "word"): "Is it the adapter?",
    ("target", "loaded"): "Is it the word, where the adapter is worn?",
    ("target", "placebo"): "Is it what was learned, or would any adapter do?",
    ("target", "list"): "Is it better than the album's words as text?",
    ("word", "empty"): "Does the word alone help?",
    ("zeroed", "empty"): 'Does it matter what "no negative prompt" means?',
    ("unconditional", "word"): "The adapter in the negative prompt's branch alone",
    ("minus", "empty"): "The adapter turned round, without a word",
    ("inversion", "word"): "A learned word, and no adapter",
}
TILE = 64


def write(found: Mapping[str, Any], albums: Mapping[str, Manifest], work: Path, docs: Path, name: str) -> None:
    """NAME.md and its three pictures in `docs`."""
    docs.mkdir(parents=True, exist_ok=True)
    for album, manifest in albums.items():
        tiles([manifest.path(row) for row in manifest.rows]).save(docs / f"{name}-{album}.jpg", "JPEG", quality=82)
    result = found["trial"]
    page = grid(result, work / "trial", result["prompts"][:8], result["seeds"][:1], 108)
    page.save(docs / f"{name}-grid.jpg", "JPEG", quality=88)
    write_text(docs / f"{name}.md", "\n".join(lines(found, name)) + "\n")


def tiles(files: Sequence[Path], columns: int = 13) -> Image.Image:
    """Pictures side by side without labels."""
    whole = Image.new("RGB", (columns * (TILE + 2), -(-len(files) // columns) * (TILE + 2)), "white")
    for index, file in enumerate(files):
        with Image.open(file) as opened:
            small = opened.convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS)
        whole.paste(small, (index % columns * (TILE + 2), index // columns * (TILE + 2)))
    return whole


def lines(found: Mapping[str, Any], name: str) -> Iterator[str]:
    """The page."""
    result, sweep = found["trial"], found["sweep"]
    receipt, albums = result["receipt"], found["albums"]
    yield from ("# Does the negative LoRA make pictures better?", "")
    yield (
        f"`make findings`, {datetime.date.today().isoformat()}, {receipt['base']}, {receipt['steps']} steps, guidance {receipt['guidance']:g}, base and refiner; "
        f"{len(result['prompts'])} prompts x {len(result['seeds'])} seeds in {len(result['arms'])} arms, {len(result['pictures']):,} pictures. Written by "
        "`tools/findings.py` from the figures as they fell."
    )
    yield from ("", "## Verdicts", "")
    yield from verdicts(result)
    yield from (
        "",
        "Differences with 95 % intervals over prompts; p is corrected over all comparisons and metrics (Holm). The trial's own sentences stand below.",
    )
    yield from ("", f"![The same noise in every arm]({name}-grid.jpg)", "", "## Arms", "")
    yield from means(result)
    yield from ("", "## What was learned from", "")
    yield (
        f"{albums['bad']['pictures']:.0f} bad pictures by `darkroom wrong`, and as many good ones for the placebo, drawn the same way. Mean scores: "
        + "; ".join(f"{metric} {albums['bad'][metric]:.4g} against {albums['good'][metric]:.4g}" for metric in albums["bad"] if metric != "pictures")
        + "."
    )
    yield from ("", f"![bad]({name}-bad.jpg)", "", f"![good]({name}-good.jpg)", "", "## The sweep", "")
    yield from swept(sweep, [metric["name"] for metric in result["metrics"]])
    yield from ("", "## The size", "", *size(found), "", "## What this does not say", "")
    yield from limits(found)
    yield from ("", "## In the trial's words", "", *(f"- {row['sentence']}" for row in result["comparisons"]))
    if result["faults"]:
        yield from ("", "## Faults", "", *(f"- {fault}" for fault in result["faults"]))


def verdicts(result: Mapping[str, Any]) -> Iterator[str]:
    metrics = [metric["name"] for metric in result["metrics"]]
    yield "| question | compared | " + " | ".join(metrics) + " |"
    yield "|---|---|" + "---|" * len(metrics)
    rows = {(row["arm"], row["against"], row["metric"]): row for row in result["comparisons"]}
    for one, two in dict.fromkeys((row["arm"], row["against"]) for row in result["comparisons"]):
        cells = [cell(rows[one, two, metric]) for metric in metrics]
        yield f"| {QUESTIONS.get((one, two), '')} | {one} against {two} | " + " | ".join(cells) + " |"


def cell(row: Mapping[str, Any]) -> str:
    """The verdict in a word, the difference and its interval, and the corrected p."""
    if row.get("mean") is None:
        return row["verdict"]
    p = row.get("p_corrected")
    return f"**{row['verdict']}** {row['mean']:+.3g} [{row['low']:+.3g}, {row['high']:+.3g}]" + (f", p = {p:.2g}" if p is not None else "")


def means(result: Mapping[str, Any]) -> Iterator[str]:
    metrics = [metric["name"] for metric in result["metrics"]]
    yield "| arm | what it is | " + " | ".join(f"{metric}, mean (sd)" for metric in metrics) + " |"
    yield "|---|---|" + "---|" * len(metrics)
    for arm in result["arms"]:
        scores = [[row["scores"][metric] for row in result["pictures"] if row["arm"] == arm["name"] and metric in row["scores"]] for metric in metrics]
        cells = [f"{statistics.mean(each):.4g} ({statistics.pstdev(each):.2g})" if each else "-" for each in scores]
        yield f"| {arm['name']} | {arm['what']} | " + " | ".join(cells) + " |"


def swept(sweep: Mapping[str, Any], metrics: Sequence[str]) -> Iterator[str]:
    yield (
        f"Adapter and word against the word alone, {sweep['prompts']} pilot prompts x {sweep['seeds']} seeds. Taken: rank {sweep['rank']}, {sweep['steps']} steps, whose "
        "mean gain is largest, each metric in units of its spread over the pictures. Among so many on so few pictures the best is partly luck, so it is judged on "
        "other prompts and seeds."
    )
    yield from ("", "| rank | steps | " + " | ".join(metrics) + " | gain in spreads |", "|---|---|" + "---|" * (len(metrics) + 1))
    for row in sweep["rows"]:
        yield f"| {row['rank']} | {row['steps']} | " + " | ".join(f"{row[metric]:+.3g}" for metric in metrics) + f" | {row['gain']:+.2f} |"


def size(found: Mapping[str, Any]) -> Iterator[str]:
    plan, design = found["plan"], found["design"]
    yield (
        f"Planned from a pilot in all arms ({plan['pilot_prompts']} prompts x {plan['pilot_seeds']} seeds) to see the margins with power {plan['power']:g} in the "
        "primary comparisons (target against empty, word and placebo), at the strictest step of the correction."
    )
    asked = plan["asked"]
    if design["enough"]:
        yield f"It asked for {design['prompts']} prompts x {design['seeds']} seeds, and these were drawn."
    elif asked:
        yield f"It asked for {asked['prompts']} prompts x {asked['seeds']} seeds; {design['prompts']} x {design['seeds']} were drawn: what is unclear may be too small to see here."
    else:
        yield f"No design that can be written would do; {design['prompts']} x {design['seeds']} were drawn: what is unclear may be too small to see here."
    yield from ("", "| compared | metric | planned for | pilot's difference | the pilot could see | prompts x seeds |", "|---|---|---|---|---|---|")
    for one in plan["plans"]:
        if "problem" in one:
            yield f"| {one['arm']} against {one['against']} | {one['metric']} | | | | {one['problem']} |"
            continue
        cheapest = min(one["designs"], key=lambda each: each["pictures"], default=None)
        needs = f"{cheapest['prompts']:,} x {cheapest['seeds']}" if cheapest else "more than 10,000 prompts"
        yield f"| {one['arm']} against {one['against']} | {one['metric']} | {one['difference']:.3g} | {one['measured']:+.3g} | {one['visible']:.3g} | {needs} |"


def limits(found: Mapping[str, Any]) -> Iterator[str]:
    if found["world"] == "pocket":
        yield (
            "- The pocket model draws 189 things at 64 pixels, and its scorer was made with it: that an arm scores better says so of this model alone. It was taught its six "
            "ways of spoiling by name, so that a list of these words is a stronger rival here than thirteen vague ones are to SDXL. `--world sdxl` asks the same there."
        )
    yield "- Scores are no eyes: look at the grid, and at the worst and best pairs in report.html."
    yield f"- One training of each adapter (seed {found['inversion']}); how much another seed would change is not known."
