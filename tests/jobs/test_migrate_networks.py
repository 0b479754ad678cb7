"""Networks of sd-scripts and of LyCORIS are methods here: the same algorithm, sizes and rates, and what has no equal is told."""

import json

import pytest

from darkroom.errors import RecipeError
from darkroom.jobs.migrate import import_kohya
from darkroom.jobs.migrate.kohya_blocks import PLACES
from darkroom.train.recipe import load_recipe


def row(imported, key):
    found = [r for r in imported.rows if r.source_key == key]
    assert len(found) == 1, (key, found)
    return found[0]


def network(tmp_path, module, *arguments, **others):
    """The method of a config_file with this network."""
    file = tmp_path / "n.json"
    file.write_text(json.dumps({"network_module": module, "network_args": list(arguments), "network_dim": 8, "network_alpha": 4} | others), encoding="utf-8")
    imported = import_kohya(file)
    (tmp_path / "recipe.toml").write_text(imported.toml, encoding="utf-8")
    return imported, load_recipe(str(tmp_path / "recipe.toml")).method


LORA, LYCORIS = {"kind": "lora", "rank": 8, "alpha": 4.0}, {"kind": "lycoris", "rank": 8, "alpha": 4.0}
NETWORKS = [
    ("networks.lora", "", LORA | {"convolution": False, "feed_forward": True}),
    ("networks.lora", "conv_dim=4", LORA | {"convolution": True, "conv_rank": 4, "conv_alpha": 1.0}),  # sd-scripts takes 1
    ("networks.lora", "module_dropout=0.1", LYCORIS | {"algorithm": "locon", "dropout": 0.1}),
    ("lycoris.kohya", "", LORA | {"convolution": True, "conv_rank": 0}),
    ("lycoris.kohya", "algo=locon conv_dim=4 conv_alpha=2 dora_wd=True", LORA | {"conv_rank": 4, "conv_alpha": 2.0, "dora": True}),
    ("lycoris.kohya", "algo=loha preset=attn-mlp", LYCORIS | {"algorithm": "loha", "convolution": False, "feed_forward": True}),
    ("lycoris.kohya", "algo=loha conv_dim=0", LYCORIS | {"convolution": False}),
    ("lycoris.kohya", "algo=lokr factor=8 decompose_both=False dora_wd=True", LYCORIS | {"factor": 8, "decompose_both": True, "dora": True}),
    ("lycoris.kohya", "algo=lokr preset=unet-convblock-only", LYCORIS | {"attention": False, "convolution": True, "text_encoders": False}),
    ("lycoris.kohya", "algo=ia3 train_on_input=True", {"algorithm": "ia3", "on_input": True}),
    ("lycoris.kohya", "algo=boft constrain=0.1 rescaled=True module_dropout=0.2", {"algorithm": "boft", "constraint": 0.1, "rescale": True, "dropout": 0.2}),
    ("lycoris.kohya", "algo=dylora", LYCORIS | {"algorithm": "dylora", "block": 4}),
    ("networks.dylora", "unit=2", LYCORIS | {"algorithm": "dylora", "block": 2}),
    ("lycoris.kohya", "algo=full", {"kind": "lycoris", "algorithm": "full"}),
    ("LyCORIS/LoHa", "", LYCORIS | {"algorithm": "loha"}),
    ("LyCORIS/Native Fine-Tuning", "", {"algorithm": "full"}),
]


@pytest.mark.parametrize(("module", "arguments", "expected"), NETWORKS)
def test_a_network_of_kohya_is_a_method(tmp_path, module, arguments, expected):
    imported, method = network(tmp_path, module, *arguments.split())
    assert {key: getattr(method, key) for key in expected} == expected
    assert {row(imported, f"network_args {part.partition('=')[0]}").outcome for part in arguments.split()} <= {"mapped", "implied"}


def test_what_a_network_has_beyond_ours_is_told(tmp_path):
    imported, method = network(
        tmp_path, "lycoris.kohya", "algo=loha", "conv_dim=2", "use_tucker=True", "rank_dropout=0.1", "loraplus_lr_ratio=4", "preset=attn-only"
    )
    told = {r.source_key for r in imported.rows if r.outcome == "no_equal"}
    assert {f"network_args {key}" for key in ("use_tucker", "rank_dropout", "loraplus_lr_ratio", "preset")} <= told
    imported, method = network(tmp_path, "lycoris.kohya", "algo=glora")
    assert method.kind == "lora" and row(imported, "network_module").outcome == "no_equal" and any("glora" in text for text in imported.todo)
    with pytest.raises(RecipeError, match="no multiple"):
        network(tmp_path, "networks.dylora", "unit=3")


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([1e-4], (0.5, 0.0, {})), ([1e-4, 5e-5], (0.5, 0.25, {})), ([1e-4, 0.0], (0.5, 0.0, {"text_encoder_2": 0.0})),
        ([0.0, 1e-4], (0.5, 0.0, {"text_encoder": 0.0})),
    ],
)  # fmt: skip
def test_each_text_encoder_has_its_rate(tmp_path, rates, expected):
    _, method = network(tmp_path, "networks.lora", unet_lr=2e-4, text_encoder_lr=rates)
    assert (method.text_rate, method.text_rate_2, method.rates) == expected
    _, alike = network(tmp_path, "lycoris.kohya", unet_lr=2e-4, text_encoder_lr=rates[:1] * 2)
    assert alike.text_rate_2 == 0.0


def test_blocks_of_sd_scripts_are_places_here(tmp_path):
    dims = [8] * 23
    dims[5], dims[8] = 4, 0
    arguments = "down_lr_weight=1,1,1,1,0.5,1,1,1,0.2", "mid_lr_weight=0,1,0", "block_lr_zero_threshold=0.2", f"block_dims={','.join(map(str, dims))}"
    imported, method = network(tmp_path, "networks.lora", *arguments, network_train_unet_only=True)
    assert method.rates == {"down_blocks.1.attentions.0": 0.5, "down_blocks.2.attentions.0": 0.0, "down_blocks.2.attentions.1": 0.0}, "without convolutions"
    assert method.ranks == {"down_blocks.1.attentions.0": 4}
    assert row(imported, "block_alphas").outcome == "no_equal", "its alpha is 4 everywhere there, and alpha / rank is 0.5 everywhere here"
    dims[8], conv = 8, [*[4] * 5, 2, *[4] * 17]
    alphas = ",".join(str(dim / 2) for dim in dims)
    arguments = (
        f"block_dims={','.join(map(str, dims))}",
        f"block_alphas={alphas}",
        f"conv_block_dims={','.join(map(str, conv))}",
        "conv_dim=4",
        "mid_lr_weight=0",
    )
    imported, method = network(tmp_path, "networks.lora", *arguments, network_train_unet_only=True)
    first = "down_blocks.1.resnets.0"
    assert method.ranks == {first: 4, f"{first}.conv1": 2, f"{first}.conv2": 2, "down_blocks.1.attentions.0": 4}
    assert method.rates == {"mid_block.resnets.0": 0.0} and row(imported, "network_args block_alphas").outcome == "implied"
    with pytest.raises(RecipeError, match="must be 23 whole numbers"):
        network(tmp_path, "networks.lora", "block_dims=1,2,3")


def test_every_block_is_where_sd_scripts_has_it():
    from darkroom.sdxl.formats import kohya_name

    inner = {"attentions": "proj_in", "resnets": "conv1", "downsamplers": "conv", "upsamplers": "conv"}
    ways = [
        None,
        *((f"input_blocks_{n}_", n) for n in range(9)),
        *((f"middle_block_{n}_", n) for n in range(3)),
        *((f"output_blocks_{n}_", n) for n in range(9)),
        None,
    ]
    for words, way in zip(PLACES, ways, strict=True):
        for word in words:
            assert way and kohya_name("unet", f"{word}.{inner[word.split('.')[-2]]}", 2, {0}).startswith(f"lora_unet_{way[0]}"), word
