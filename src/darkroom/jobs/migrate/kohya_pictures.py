"""What sd-scripts' settings say of the pictures: their folder, repeats, captions and buckets."""

from __future__ import annotations

from darkroom.errors import RecipeError
from darkroom.jobs.migrate import convert
from darkroom.jobs.migrate.kohya_dataset import dreambooth_folders
from darkroom.jobs.migrate.report import Ledger


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
    ledger.map("caption_dropout_rate", "data.wording.dropout", float(ledger["caption_dropout_rate"]))
    _captions(ledger)
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
        ledger.map("enable_bucket", "data.bucket_step", side, "one square bucket: every picture is cut to it about the centre")
        ledger.imply("bucket_reso_steps", "there are no buckets there")


def _captions(ledger: Ledger) -> None:
    key = "caption_extention" if ledger["caption_extention"] else "caption_extension"
    ending = str(ledger[key])
    if key == "caption_extention":
        ledger.imply("caption_extension", "caption_extention counts")
    match ending.lower():
        case ".txt":
            ledger.imply(key, "NAME.txt is read here too; all its lines rather than the first")
        case ".caption":
            why = "NAME.caption is read here, but NAME.txt as well, which sd-scripts ignores then: no caption is ignored in silence"
            ledger.lack(key, why, even_left_out=True)
        case _:
            ledger.lack(key, "captions are read from NAME.txt and NAME.caption: rename the files, or move those away that must not be read")
    if ledger["shuffle_caption"]:
        ledger.lack("shuffle_caption", "captions are learned in their order (yet)")
        ledger.lack("keep_tokens", "captions are learned in their order (yet): every token is kept in its place")
    else:
        ledger.imply("shuffle_caption", "off, as here")
        ledger.imply("keep_tokens", "it has an effect only where captions are shuffled")
