"""What sd-scripts' settings say of the pictures: their folder, repeats, sizes, crops and masks."""

from __future__ import annotations

from darkroom.errors import RecipeError
from darkroom.jobs.migrate import convert
from darkroom.jobs.migrate.kohya_captions import captions
from darkroom.jobs.migrate.kohya_dataset import dreambooth_folders
from darkroom.jobs.migrate.report import Ledger

MASKED = "nothing is learned outside of a mask, as there; but the mean is over the mask alone, so that a small subject counts as much as a large one"


def pictures(ledger: Ledger, whole: bool) -> int:
    """The data table; returns how often an epoch of sd-scripts shows a picture."""
    repeats = int(ledger["dataset_repeats"])
    if ledger["image_dir"]:
        ledger.map("image_dir", "data.images", ledger["image_dir"])
        _subject(ledger, ledger["class_tokens"], "class_tokens")
    else:
        repeats = _folders(ledger, repeats)
    ledger.imply("is_reg", "false: it is what is learned")
    for key in ("in_json", "metadata_file"):
        ledger.lack(key, "captions are read from NAME.txt, NAME.caption or metadata.jsonl beside the pictures: write them there")
    ledger.imply("dataset_repeats", f"each of its epochs is {repeats} of ours; it is in every length that is given in epochs")
    if whole or "train_batch_size" in ledger.given:
        ledger.map("train_batch_size", "data.batch_size", ledger["train_batch_size"])
    _buckets(ledger)
    ledger.map("flip_aug", "data.flip", bool(ledger["flip_aug"]))
    captions(ledger)
    _masks(ledger)
    return repeats


def _folders(ledger: Ledger, repeats: int) -> int:
    """train_data_dir: its subfolders "10_TOK cat" say repeats and class tokens."""
    root = str(ledger["train_data_dir"] or "")
    inner = [] if ledger["in_json"] else dreambooth_folders(root)
    if inner:
        first = inner[0]
        why = f'its subfolder "{first.path.name}": {first.repeats} repeats, class tokens "{first.tokens}"'
        ledger.map("train_data_dir", "data.images", str(first.path), why)
        _subject(ledger, first.tokens, "")
        if len(inner) > 1:
            ledger.todo.append(
                f"A recipe learns from one folder; {', '.join(each.path.name for each in inner[1:])} are left out. Put their pictures into it too."
            )
        return int(first.repeats)
    if root:
        ledger.map("train_data_dir", "data.images", root)
        if not ledger["in_json"]:
            ledger.todo.append(
                f'{root} is not on this machine. Set data.images to its subfolder ("10_TOK cat"), data.subject to what its name says, and multiply lengths in '
                f"epochs by the number it begins with."
            )
    else:
        ledger.put("data.images", "")
        ledger.imply("train_data_dir", "not set")
        ledger.todo.append(
            'No folder of pictures is named: give it with --images FOLDER. Is its name like "10_TOK cat", multiply lengths in epochs by that number.'
        )
    _subject(ledger, ledger["class_tokens"], "class_tokens")
    return repeats


def _subject(ledger: Ledger, tokens: str | None, key: str) -> None:
    tokens = " ".join((tokens or "").split())
    ledger.put("data.caption", "{subject}")
    if tokens and key:
        ledger.map(key, "data.subject", tokens, f'the trigger word is its first, "{tokens.split()[0]}"; as there, it is the caption of a picture without one')
        return
    ledger.put("data.subject", tokens)
    ledger.imply("class_tokens", "empty")
    if not tokens:
        ledger.todo.append(
            'No class tokens are named: say what the pictures show, trigger word first, with --subject "TOK cat". Every caption must hold that word.'
        )


def _buckets(ledger: Ledger) -> None:
    sides = convert.numbers(ledger["resolution"]) if ledger["resolution"] is not None else [1024.0]
    if not sides or len(sides) > 2 or min(sides) < 1:
        raise RecipeError(f"{ledger.shown('resolution')} = {ledger['resolution']!r}: is neither a side nor width,height in pixels. Correct it there.")
    width, height = int(sides[0]), int(sides[-1])
    if width == height:
        side = width
        ledger.map("resolution", "data.resolution", side, "" if ledger["resolution"] is not None else "SDXL's own; sd-scripts wants it said")
    else:
        side = max(64, int((width * height) ** 0.5) // 64 * 64)
        ledger.put("data.resolution", side)
        ledger.lack("resolution", f"one side counts: {side}, whose square has about as many pixels")
    if ledger["enable_bucket"]:
        ledger.imply("enable_bucket", "pictures go to buckets, as here")
        ledger.map("bucket_reso_steps", "data.bucket_step", ledger["bucket_reso_steps"])
    else:
        ledger.map("enable_bucket", "data.bucket_step", side, "one square bucket, which every picture is enlarged or reduced to and cut to")
        ledger.imply("bucket_reso_steps", "there are no buckets there")
    _enlarging(ledger)
    random = bool(ledger["random_crop"])
    ledger.map("random_crop", "data.crop", "random" if random else "centre", "" if random else "about the centre")


def _enlarging(ledger: Ledger) -> None:
    """sd-scripts enlarges small pictures unless it is told not to, and always where it has no buckets."""
    kept = bool(ledger["enable_bucket"] and ledger["bucket_no_upscale"])
    if kept:
        why = "small pictures go to the nearest of a few smaller sizes; there each gets a size of its own, both sides cut down to the step"
        ledger.map("bucket_no_upscale", "data.enlarge", False, why)
    elif ledger["bucket_no_upscale"]:
        ledger.put("data.enlarge", True)
        ledger.imply("bucket_no_upscale", "without enable_bucket it counts for nothing there: small pictures are enlarged")
    else:
        ledger.map("bucket_no_upscale", "data.enlarge", True, "small pictures are enlarged, as there")


def _masks(ledger: Ledger) -> None:
    """masked_loss and alpha_mask say what a mask weighs; the masks themselves are the dataset's."""
    for key in ("masked_loss", "alpha_mask"):
        if ledger[key]:
            ledger.map(key, "objective.unmasked_weight", 0.0, MASKED)
        else:
            ledger.imply(key, "off: nothing is masked")
    folder = ledger["conditioning_data_dir"] if ledger["masked_loss"] else None
    pictures = ledger.recipe["data"]["images"] or "FOLDER"
    if folder:
        ledger.lack("conditioning_data_dir", "masks are the dataset's, not the recipe's: bring them there with `darkroom dataset prepare --masks`")
        ledger.todo.append(f"Bring the masks to the pictures: `darkroom dataset prepare {pictures} --masks {folder}`.")
    else:
        ledger.imply("conditioning_data_dir", "without masked_loss it is ControlNet's")
    if ledger["alpha_mask"] and not folder:
        ledger.todo.append(f"Take the masks from the pictures' transparency: `darkroom dataset prepare {pictures} --alpha`.")
