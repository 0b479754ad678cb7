"""`darkroom adapter merge`, `extract`, `resize`, `diff` and `darkroom base` through the command line: what they write, say and refuse."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from darkroom import pocket
from darkroom.cli.main import run
from darkroom.methods.stack import Wear, worn
from darkroom.sdxl.adapters.header import Header
from darkroom.sdxl.adapters.layouts import read
from darkroom.sdxl.adapters.places import Catalogue
from support.adapters import made, saved

WEIGHTS = pocket.folder()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two LoRAs, a DoRA, and pocket with the first merged in, all of them files."""
    from darkroom.jobs.base import open_base

    folder = tmp_path_factory.mktemp("adapters")
    catalogue = Catalogue.of(open_base("pocket", "cpu", "fp32"))
    for name, method, seed in (("a", "LoRA", 1), ("b", "LoRA", 2), ("dora", "DoRA", 3)):
        saved(folder / f"{name}.safetensors", made(catalogue, method, seed), **{"modelspec.trigger_phrase": f"tok{seed}"})
    assert run(["adapter", "merge", str(folder / "a.safetensors"), "--into", "pocket", "--out", str(folder / "tuned.safetensors"), "--dtype", "fp32"]) == 0
    return folder


def told(capsys, *arguments):
    """The JSON of a command that succeeds."""
    capsys.readouterr()
    code = run([*map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err + out
    return json.loads(out)


def said(capsys, *arguments):
    capsys.readouterr()
    code = run([*map(str, arguments)])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def refused(capsys, arguments, *words):
    capsys.readouterr()
    code = run([*map(str, arguments)])
    out, err = capsys.readouterr()
    assert code == 2, (code, out, err)
    assert not out and "Traceback" not in err
    for word in words:
        assert word in err, (word, err)


def test_merging_into_a_base_is_what_is_worn(capsys, files, model, tmp_path):
    facts = told(
        capsys, "adapter", "merge", f"{files / 'a.safetensors'}:0.7", f"{files / 'dora.safetensors'}:-0.4", "--into", "pocket", "--out", tmp_path / "x",
        "--dtype", "fp32", "--block", "text_encoder=0.5", "--block", "2:middle_block=0",
    )  # fmt: skip
    catalogue = Catalogue.of(model)
    adapters = [read(files / name, catalogue) for name in ("a.safetensors", "dora.safetensors")]
    assert [one["sha256"] for one in facts["adapters"]] == [adapter.sha256 for adapter in adapters]
    assert facts["adapters"][1]["blocks"] == {"text_encoder": 0.5, "middle_block": 0.0} and facts["rounding"]["all"] < 1e-4
    for part in ("unet", "text_encoder", "text_encoder_2"):
        name = "diffusion_pytorch_model" if part == "unet" else "model"
        found = load_file(tmp_path / "x" / part / f"{name}.safetensors")
        for key in {key for adapter in adapters for key in adapter.changes if key[0] == part}:
            weight = model.parts[part].get_submodule(key[1]).weight.detach()
            half = 0.5 if part == "text_encoder" else 1.0
            middle = 0.0 if key[1].startswith("mid_block") else 1.0
            wanted = weight + 0.7 * half * adapters[0].changes[key].delta(weight) - 0.4 * half * middle * adapters[1].changes[key].delta(weight)
            stored = f"{key[1]}.weight" if part == "unet" or key[1] == "text_projection" else f"text_model.{key[1].removeprefix('text_model.')}.weight"
            torch.testing.assert_close(found[stored], wanted, rtol=0, atol=2e-6)
    receipt = json.loads((tmp_path / "x" / "darkroom.json").read_text())
    assert receipt["modelspec.merged_from"] == "pocket, a, dora" and json.loads(receipt["darkroom.merge"])["base_sha256"] == model.hash


def test_a_merged_folder_draws_what_was_worn(capsys, files, model, tmp_path):
    """The U-Net that is loaded from the folder predicts what the stack's does."""
    from darkroom.sdxl.model import load

    told(capsys, "adapter", "merge", files / "a.safetensors", files / "b.safetensors", "--into", "pocket", "--out", tmp_path / "x", "--dtype", "fp32")
    adapters = [read(files / f"{name}.safetensors", Catalogue.of(model)) for name in "ab"]
    tokens = torch.arange(77)[None]
    with torch.no_grad(), worn(model, [Wear(adapter) for adapter in adapters]):
        expected = model.text_encoder_2(tokens).text_embeds
    with torch.no_grad():
        found = load(tmp_path / "x", torch.device("cpu"), torch.float32).text_encoder_2(tokens).text_embeds
    assert float((found - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("more", ["concat", "sum", "svd --rank 4", "svd --energy 0.9 --dtype fp16"])
def test_several_in_one_can_be_shown_converted_and_merged(capsys, files, more, tmp_path):
    out = tmp_path / "both.safetensors"
    facts = told(capsys, "adapter", "merge", f"{files / 'a.safetensors'}:0.8", files / "b.safetensors", "--out", out, "--how", *more.split())
    assert (facts["error"] < 1e-6) == (facts["how"] != "svd") and Header.read(out).sha256 == facts["sha256"]
    shown = told(capsys, "adapter", "show", out)
    assert shown["trigger_words"] == ["tok1", "tok2"] and shown["training"]["modelspec.merged_from"] == "a, b" and "pocket" in shown["family"]
    if facts["how"] != "sum":
        assert shown["programs"]["diffusers"]["loads"] == "yes" == shown["programs"]["sd-scripts"]["loads"]
        told(capsys, "adapter", "convert", out, "--to", "peft", "--out", tmp_path / "peft.safetensors")
        same = told(capsys, "adapter", "diff", out, tmp_path / "peft.safetensors")
        assert same["overall"]["difference"] == 0
    told(capsys, "adapter", "merge", out, "--into", "pocket", "--out", tmp_path / "x.safetensors")


def test_an_extracted_lora_is_the_one_that_was_merged(capsys, files, tmp_path):
    out = tmp_path / "taken.safetensors"
    facts = told(capsys, "adapter", "extract", files / "tuned.safetensors", "pocket", "--rank", "3", "--out", out, "--dtype", "fp32")
    assert facts["error"] < 1e-4 and facts["left_out"] == {}
    found = told(capsys, "adapter", "diff", files / "a.safetensors", out)
    assert found["overall"]["difference"] < 1e-4 and "The same adapter to" in found["sentence"] and not found["only_a"]
    metadata = Header.read(out).metadata
    assert metadata["ss_sd_model_name"] == "pocket" and "tuned.safetensors" in metadata["modelspec.description"]
    less = said(capsys, "adapter", "extract", files / "tuned.safetensors", "pocket", "--rank", "2", "--out", tmp_path / "y.safetensors", "--no-text-encoders")
    assert "left out: text encoders, which were not asked for" in less and "of the whole change" in less
    assert "float32 and float16: the rounding of one of them is a part" in less


def test_a_resized_file_says_how_near_it_is(capsys, files, tmp_path):
    words = said(capsys, "adapter", "resize", files / "a.safetensors", "--rank", "2", "--out", tmp_path / "x.safetensors")
    assert "rank 3 -> 2" in words and "input_blocks.5" in words and f"from {files / 'a.safetensors'}." in words
    facts = told(capsys, "adapter", "resize", files / "dora.safetensors", "--energy", "0.9", "--base", "pocket", "--out", tmp_path / "y.safetensors")
    assert facts["base"] == "pocket" and 0 < facts["error"] <= 0.9
    assert told(capsys, "adapter", "show", tmp_path / "x.safetensors")["ranks"] == {"2": facts["modules"]}


def test_diff_says_it_in_a_sentence(capsys, files):
    assert said(capsys, "adapter", "diff", files / "a.safetensors", files / "a.safetensors").startswith("The same adapter, exactly.")
    words = said(capsys, "adapter", "diff", files / "a.safetensors", files / "b.safetensors")
    assert words.startswith("Another adapter") and "0 in A alone" in words


def test_a_base_is_shown_converted_and_blended(capsys, files, tmp_path):
    assert "10,874,212" in said(capsys, "base", "show", "pocket")
    single = told(capsys, "base", "convert", "pocket", "--to", "single", "--out", tmp_path / "p.safetensors")
    assert single["cast"]["all"] == 0 and single["dtype"] == "float16"
    assert "No number was rounded" in said(
        capsys, "base", "convert", tmp_path / "p.safetensors", "--to", "folder", "--out", tmp_path / "p", "--config", WEIGHTS
    )
    swapped = told(
        capsys, "base", "convert", "pocket", "--to", "single", "--vae", tmp_path / "p" / "vae", "--out", tmp_path / "v.safetensors", "--dtype", "bf16"
    )
    assert swapped["vae"] and 0 < swapped["cast"]["unet"] < 0.004
    weights = tmp_path / "p" / "vae" / "diffusion_pytorch_model.safetensors"
    assert json.loads(Header.read(tmp_path / "v.safetensors").metadata["darkroom.vae"]) == {f"vae/{weights.name}": Header.read(weights).sha256}
    words = said(capsys, "base", "merge", "pocket", tmp_path / "p", "--weight", "0.3", "--block", "middle_block=1", "--out", tmp_path / "b.safetensors")
    assert "distance from" in words and "0.00e+00" in words
    found, own = load_file(tmp_path / "b.safetensors"), load_file(tmp_path / "p.safetensors")
    assert all(torch.equal(found[key], own[key]) for key in own), "a model blended with itself is itself"


def test_what_cannot_be_is_refused_in_words(capsys, files, model, tmp_path):
    a, b, dora, out = (files / "a.safetensors", files / "b.safetensors", files / "dora.safetensors", tmp_path / "x.safetensors")
    flux = {f"lora_unet_double_blocks_0_img_attn_proj.lora_{side}.weight": torch.zeros(4, 4) for side in ("up", "down")}
    save_file(flux, tmp_path / "flux.safetensors")
    broken = load_file(a)
    broken[next(key for key in broken if "lora_up" in key)][0, 0] = float("nan")
    save_file(broken, tmp_path / "nan.safetensors", {"ss_sd_model_name": "pocket"})
    (tmp_path / "there.safetensors").write_bytes(b"mine")
    merge = ["adapter", "merge"]
    for arguments, *words in (
        ([*merge, a, a, "--out", out], "is the same file as", "weights together (2)"),
        ([*merge, f"{a}:nan", b, "--out", out], "is no weight"),
        ([*merge, f"{a}:much", b, "--out", out], '"much" is no weight'),
        ([*merge, f"{a}:0.5@unconditional", b, "--out", out], "one branch of guidance"),
        ([*merge, a, b, "--out", tmp_path / "there.safetensors"], "is there already", "--out"),
        ([*merge, a, dora, "--out", out], "is DoRA", "--base"),
        ([*merge, a, b, "--block", "midle_block=1", "--out", out], 'Did you mean "middle_block"'),
        ([*merge, a, b, "--block", "middle_block", "--out", out], "PLACE=WEIGHT"),
        ([*merge, a, b, "--block", "3:unet=1", "--out", out], "there are 2 adapters"),
        ([*merge, a, b, "--block", "unet=nan", "--out", out], "is no number"),
        ([*merge, a, b, "--how", "svd", "--out", out], "must be at least 1"),
        ([*merge, a, b, "--how", "svd", "--rank", "99", "--out", out], "no more than 6 ranks"),
        ([*merge, a, b, "--rank", "4", "--out", out], "has no rank to choose"),
        ([*merge, a, b, "--how", "svg", "--out", out], 'Did you mean "svd"'),
        ([*merge, a, b, "--dtype", "fp61", "--out", out], "--dtype", "fp16"),
        ([*merge, a, "--into", "pocket", "--base", "pocket", "--out", out], "--into names the base"),
        ([*merge, tmp_path / "flux.safetensors", b, "--out", out], "FLUX"),
        ([*merge, tmp_path / "nan.safetensors", b, "--out", out], "NaN"),
        ([*merge, a, b, "--out", tmp_path / "x"], "ends in .safetensors"),
        (["adapter", "resize", a, "--rank", "2", "--out", tmp_path / "x"], "ends in .safetensors"),
        ([*merge, a, "--into", "pocket", "--rank", "2", "--out", out], "leave --into out"),
        ([*merge, a, "--into", tmp_path / "none", "--out", out], "none"),
        ([*merge, tmp_path / "none.safetensors", "--out", out], "there is no such file"),
        (["adapter", "resize", a, "--rank", "0", "--out", out], "must be at least 1"),
        (["adapter", "resize", a, "--rank", "9", "--out", out], "no more than 3 ranks"),
        (["adapter", "resize", a, "--energy", "2", "--out", out], "between 0 and 1"),
        (["adapter", "resize", dora, "--rank", "2", "--out", out], "is DoRA"),
        (["adapter", "diff", a, dora], "is DoRA", "--base"),
        (["adapter", "extract", "pocket", "pocket", "--rank", "2", "--out", out], "nothing to extract"),
        (["adapter", "extract", "pocket", "pocket-refiner", "--rank", "2", "--out", out], "Only models of one shape"),
        (["adapter", "extract", "pocket", "pocket", "--out", out], "must be at least 1"),
        (["base", "show", a], "darkroom adapter show"),
        (["base", "convert", "pocket", "--to", "single", "--out", tmp_path / "x"], ".safetensors"),
        (["base", "convert", "pocket", "--to", "single", "--out", tmp_path / "there.safetensors"], "is there already"),
        (["base", "convert", "pocket", "--to", "folder", "--vae", a, "--out", tmp_path / "v"], "is no VAE"),
        (["base", "merge", "pocket", "--out", out], "a sum takes 2"),
        (["base", "merge", "pocket", "pocket", "--block", "vea=1", "--out", out], 'Did you mean "vae"'),
        (["base", "merge", "pocket", "pocket", "--out", tmp_path / "there.safetensors"], "is there already"),
    ):
        refused(capsys, arguments, *words)
    assert not out.exists() and (tmp_path / "there.safetensors").read_bytes() == b"mine" and not (tmp_path / "v").exists()


def test_bundled_words_are_not_lost_in_silence(capsys, files, model, tmp_path):
    words = {f"bundle_emb.tok.{clip}": torch.zeros(2, width) for clip, width in Catalogue.of(model).words.items()}
    save_file(load_file(files / "a.safetensors") | words, tmp_path / "w.safetensors", {"ss_sd_model_name": "pocket"})
    assert "LEFT OUT: the bundled words tok" in said(
        capsys, "adapter", "merge", tmp_path / "w.safetensors", "--into", "pocket", "--out", tmp_path / "m.safetensors"
    )
    told(capsys, "adapter", "merge", tmp_path / "w.safetensors", files / "b.safetensors", "--out", tmp_path / "both.safetensors")
    assert any(name.startswith("bundle_emb.tok") for name in Header.read(tmp_path / "both.safetensors").names)
