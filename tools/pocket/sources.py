"""Fetch the packages that the pocket model learns from, with their ordinary clients, and make the tokenizer's files."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zipfile
from pathlib import Path

PACKAGES = ("emoji-datasource-google@16.0.0", "emoji-datasource-twitter@16.0.0", "@lobehub/fluent-emoji-3d@1.1.0", "emojibase-data@17.0.0")


def fetch(work: Path) -> Path:
    """Install the npm packages under work/npm; returns its node_modules."""
    modules = work / "npm" / "node_modules"
    if not all((modules / package.rsplit("@", 1)[0]).exists() for package in PACKAGES):
        (work / "npm").mkdir(parents=True, exist_ok=True)
        (work / "npm" / "package.json").write_text('{"name": "pocket", "version": "1.0.0", "private": true}')
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", *PACKAGES], cwd=work / "npm", check=True)
    return modules


def fetch_merges(work: Path) -> list[str]:
    """The 48,894 merges of CLIP's byte-pair encoding, from the open_clip wheel (MIT)."""
    folder = work / "open_clip"
    if not list(folder.glob("*.whl")):
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "open_clip_torch==3.3.0", "-d", str(folder)], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        text = gzip.decompress(wheel.read("open_clip/bpe_simple_vocab_16e6.txt.gz")).decode("utf-8")
    return text.split("\n")[1:48895]


def byte_symbols() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, in CLIP's order."""
    kept = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in kept] + [chr(256 + n) for n in range(256 - len(kept))]


def write_tokenizer(folder: Path, merges: list[str], pad: str) -> None:
    symbols = byte_symbols()
    words = symbols + [s + "</w>" for s in symbols] + ["".join(m.split()) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    assert len(words) == 49408
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}, ensure_ascii=False), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", "utf-8")
    config = {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": pad, "add_prefix_space": False, "do_lower_case": True,
        "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "errors": "replace",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
    special = {k: config[k] for k in ("bos_token", "eos_token", "unk_token", "pad_token")}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=1))
