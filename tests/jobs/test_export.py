"""An exported folder holds the very adapter, a card that the hub can read and whose code runs, and nothing that is private."""

import getpass
import json
import re
import shutil
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from PIL import Image

from darkroom import pocket
from darkroom.cli.files import export_command
from darkroom.errors import OutputError, RecipeError, RunError
from darkroom.files import sha256_file, write_json
from darkroom.jobs.export import Export, export, public_name, slug
from darkroom.jobs.push import push
from darkroom.jobs.train import run_training
from darkroom.sampling.request import read_request
from darkroom.spec import override
from darkroom.train.recipe import Recipe, load_recipe

PROMPTS = ["a photo of TOK cat", 'TOK cat | a "hat", <b>50%</b>: #1\nnew line']


@pytest.fixture(scope="module")
def run(cats, tmp_path_factory):
    """A run of two steps, in folders with names that must not get out."""
    place = tmp_path_factory.mktemp("alice-private")
    pictures, base = place / "family photos", place / "models" / "my base"
    shutil.copytree(cats, pictures)
    shutil.copytree(pocket.folder(), base)
    tree = override(
        load_recipe("demo").model_dump(mode="json"),
        ("train.length=2 steps", "train.save_every=1 steps", "preview.steps=2", "preview.every=1 steps", "device=cpu", "method.rank=2", "data.batch_size=2"),
    )
    tree["base"], tree["preview"]["prompts"] = str(base), PROMPTS
    tree["data"] |= {"images": str(pictures), "subject": "TOK cat"}
    return run_training(Recipe.from_tree(tree, "test"), place / "run")


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    to = tmp_path_factory.mktemp("out") / "tok"
    export(Export(run.folder, to, license="cc-by-4.0", weight=0.8))
    return to


def front(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_the_folder_is_whole(run, folder):
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "README.md", "facts.json", "images/preview-0.png", "images/preview-1.png", "recipe.toml", "tok-cat.json", "tok-cat.png", "tok-cat.safetensors",
    ]  # fmt: skip
    assert (folder / "tok-cat.safetensors").read_bytes() == (run.folder / "adapter.safetensors").read_bytes()
    assert not list(folder.parent.glob(".*")), "nothing half-written is left"
    beside = json.loads((folder / "tok-cat.json").read_text(encoding="utf-8"))
    assert (beside["activation text"], beside["preferred weight"], beside["sd version"]) == ("TOK cat", 0.8, "SDXL")
    recipe = Recipe.from_tree(tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8")), "exported")
    assert recipe.method == run.recipe.method and recipe.train == run.recipe.train and recipe.data.images == ""


def test_the_hub_reads_the_card(folder):
    from huggingface_hub import ModelCard

    text = (folder / "README.md").read_text(encoding="utf-8")
    data = ModelCard(text).data
    assert (data.base_model, data.license, data.instance_prompt) == ("stabilityai/stable-diffusion-xl-base-1.0", "cc-by-4.0", "a photo of TOK cat")
    assert {"text-to-image", "stable-diffusion-xl", "lora", "diffusers", "template:sd-lora"} <= set(data.tags)
    assert [entry["text"] for entry in front(text)["widget"]] == PROMPTS, "no prompt breaks the front matter"
    assert all((folder / entry["output"]["url"]).is_file() for entry in front(text)["widget"])
    assert "<b>" not in text.split("---\n", 2)[2] and "6 pictures" in text and "openrail++" in text and "`my base`" in text
    for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (folder / link).is_file()


def test_nothing_private_gets_out(run, folder):
    """No path of this machine, no name of its user, in any file of the folder: PNG chunks and the safetensors header too."""
    private = {str(run.folder), str(run.folder.parent), "alice-private", "family photos", str(Path.home()) + "/", f"/{getpass.getuser()}/"}
    private |= {path.name for path in Path(run.recipe.data.images).iterdir()}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        found = {word for word in private if word.encode() in data}
        if path.suffix == ".png":
            with Image.open(path) as opened:
                text = json.dumps(opened.info, default=str)
            found |= {word for word in private if word in text}
        assert not found, f"{path.name} tells {found}"
        if path.suffix in (".md", ".json", ".toml"):
            assert not re.search(r"(?<![\w/.:])/(home|Users|root|tmp|mnt)/|[A-Z]:\\", data.decode()), path.name


def test_pictures_are_the_last_previews(run, folder):
    for index, prompt in enumerate(PROMPTS):
        mine, theirs = folder / "images" / f"preview-{index}.png", run.folder / "previews" / f"000002_{index}.png"
        with Image.open(mine) as one, Image.open(theirs) as other:
            assert one.tobytes() == other.tobytes() and "parameters" in one.info
        request = read_request(mine)
        assert (request.prompt, request.base) == (prompt, "my base")


def test_the_receipt_can_be_checked(run, folder):
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    assert facts["adapter_sha256"] == sha256_file(folder / "tok-cat.safetensors") == run.facts["result"]["adapter_sha256"]
    assert (facts["pictures"], facts["pictures_sha256"], facts["base_sha256"]) == (6, run.facts["pictures_sha256"], run.facts["base_sha256"])


def test_the_code_of_the_card_runs(folder, tmp_path, monkeypatch):
    """diffusers itself, with the card's own lines: only the base and the device are this machine's."""
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    code = code.replace('"stabilityai/stable-diffusion-xl-base-1.0"', repr(str(pocket.folder()))).replace('torch.float16).to("cuda")', "torch.float32)")
    monkeypatch.chdir(folder)
    names = {}
    exec(code.replace('"picture.png"', repr(str(tmp_path / "picture.png"))).replace("pipe(", "pipe(generator=torch.Generator().manual_seed(1), prompt="), names)
    drawn = names["picture"]
    assert names["pipe"].get_active_adapters() == ["tok-cat"] and (tmp_path / "picture.png").is_file()
    names["pipe"].set_adapters("tok-cat", 40.0)
    strong = names["pipe"](prompt="a photo of TOK cat", generator=names["torch"].Generator().manual_seed(1), num_inference_steps=2, guidance_scale=5.0).images[
        0
    ]
    assert strong.tobytes() != drawn.tobytes(), "the adapter has an effect"


def test_an_earlier_checkpoint(run, tmp_path):
    adapter = export(Export(run.folder, tmp_path / "one", step=1, name="My Cat!"))
    assert adapter.name == "my-cat-000001.safetensors"
    assert adapter.read_bytes() == (run.folder / "steps" / "000001" / "adapter.safetensors").read_bytes()
    text = (tmp_path / "one" / "README.md").read_text(encoding="utf-8")
    assert "1 of 2" in text and "No licence was chosen" in text and "in 1 step on 6 pictures" in text
    with pytest.raises(RunError, match=r"no checkpoint of step 7. It has: 1, 2"):
        export(Export(run.folder, tmp_path / "none", step=7))
    assert not (tmp_path / "none").exists()


def test_a_trial_on_the_card(run, tmp_path):
    trial = tmp_path / "trial"
    digest = sha256_file(run.folder / "adapter.safetensors")
    write_json(trial / "trial.json", {"comparisons": [{"sentence": "likeness: it is better."}], "receipt": {"adapters": {"/home/x/a.safetensors": digest}}})
    Image.new("RGB", (8, 8)).save(trial / "grid.png")
    export(Export(run.folder, tmp_path / "with", trial=trial))
    text = (tmp_path / "with" / "README.md").read_text(encoding="utf-8")
    assert "- likeness: it is better." in text and (tmp_path / "with" / "images" / "trial.png").is_file() and "/home/x" not in text
    write_json(trial / "trial.json", {"comparisons": [], "receipt": {"adapters": {"a": "0" * 64}}})
    with pytest.raises(RunError, match="another adapter"):
        export(Export(run.folder, tmp_path / "other", trial=trial))
    with pytest.raises(RunError, match="no trial's folder"):
        export(Export(run.folder, tmp_path / "other", trial=tmp_path / "nothing"))


def test_whole_or_not_at_all(run, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="not empty"):
        export(Export(run.folder, tmp_path / "mine"))
    (tmp_path / "empty").mkdir()
    assert export(Export(run.folder, tmp_path / "empty")).is_file()
    monkeypatch.setattr("darkroom.jobs.export.card", lambda subject: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(Export(run.folder, tmp_path / "broken"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "mine"]


def test_what_cannot_be_exported_says_why(run, tmp_path):
    with pytest.raises(RunError, match="no run folder"):
        export(Export(tmp_path, tmp_path / "to"))
    with pytest.raises(RecipeError, match="--license My own"):
        export(Export(run.folder, tmp_path / "to", license="My own"))
    half = tmp_path / "half"
    shutil.copytree(run.folder, half)
    (half / "adapter.safetensors").unlink()
    with pytest.raises(RunError, match=r"not finished.*--checkpoint STEP \(1, 2\)"):
        export(Export(half, tmp_path / "to"))
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("pocket", "pocket"),
        ("a/b", "a/b"),
        ("/home/me/models/x.safetensors", "x.safetensors"),
        (r"C:\me\base" + "\\", "base"),
        ("me/x.safetensors", "x.safetensors"),
    ],
)
def test_a_base_is_named_without_its_folder(base, name):
    assert public_name(base) == name
    assert slug("Żółw TOK / cat") == "w-tok-cat"


class Hub(BaseHTTPRequestHandler):
    """The four answers that an upload needs, and what was asked."""

    asked: list = []
    refuse: dict = {}

    def do_GET(self):
        self._answer({"siblings": [], "sha": "0" * 40, "id": "alice/tok"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        type(self).asked.append((self.path, self.headers.get("authorization"), body))
        path = self.path
        if status := next((status for part, status in self.refuse.items() if part in path), 0):
            return self._answer({"error": f"no: {status}"}, status)
        if "preupload" in path:
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            return self._answer({"files": files})
        if "commit" in path:
            return self._answer({"success": True, "commitUrl": f"http://{self.headers['host']}/alice/tok/commit/1", "commitOid": "1" * 40, "hookOutput": ""})
        return self._answer({"url": f"http://{self.headers['host']}/alice/tok", "errors": [], "warnings": []})

    def _answer(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words):
        pass


@pytest.fixture
def hub(monkeypatch):
    """A hub on this machine; the client is let out of offline mode for it alone."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    monkeypatch.setattr(Hub, "asked", [])
    monkeypatch.setattr(Hub, "refuse", {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_push_sends_the_folder_to_a_private_repository(folder, hub):
    push(folder, "alice/tok", endpoint=hub)
    made = next(json.loads(body) for path, _, body in Hub.asked if path.endswith("/repos/create"))
    assert (made.get("private") is True or made.get("visibility") == "private") and made["name"] == "tok" and made["organization"] == "alice"
    assert all(token == "Bearer hf_mine" for _, token, _ in Hub.asked if token)
    commit = next(body for path, _, body in Hub.asked if "/commit/" in path)
    sent = {row["value"]["path"] for row in map(json.loads, commit.splitlines()) if row["key"] == "file"}
    assert sent == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("status", "words"), [(401, "hf auth login"), (403, "write permission"), (409, "there already, and is not written over"), (418, "answered 418")]
)
def test_a_refusal_of_the_hub_is_said_in_words(folder, hub, status, words):
    Hub.refuse["repos/create"] = status
    with pytest.raises(OutputError, match=words) as caught:
        push(folder, "alice/tok", endpoint=hub)
    assert "hf upload alice/tok" in str(caught.value) and "hf_mine" not in str(caught.value)
    assert not any("/commit/" in path for path, _, _ in Hub.asked)


def test_no_network_no_token_no_name(folder, hub, monkeypatch):
    with pytest.raises(OutputError, match="write it as OWNER/NAME"):
        push(folder, "tok", endpoint=hub)
    with pytest.raises(OutputError, match="cannot be reached"):
        push(folder, "alice/tok", endpoint="http://127.0.0.1:9")
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import LocalTokenNotFoundError

    def no_token(*words, **options):
        raise LocalTokenNotFoundError("Token is required")

    monkeypatch.setattr(HfApi, "create_repo", no_token)
    with pytest.raises(OutputError, match="not logged in"):
        push(folder, "alice/tok", endpoint=hub)
    monkeypatch.undo()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OutputError, match="HF_HUB_OFFLINE is set"):
        push(folder, "alice/tok", endpoint=hub)


def test_the_command(run, tmp_path, capsys, monkeypatch):
    sent = []
    monkeypatch.setattr("darkroom.jobs.push.push", lambda folder, name, private=True: sent.append((folder, name, private)) or f"https://hub/{name}")
    export_command(run.folder, tmp_path / "to", push="alice/tok", as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["address"] == "https://hub/alice/tok" and "README.md" in told["files"] and sent == [(tmp_path / "to", "alice/tok", True)]
    assert 'load_lora_weights("alice/tok"' in (tmp_path / "to" / "README.md").read_text(encoding="utf-8")
    with pytest.raises(OutputError, match="OWNER/NAME"):
        export_command(run.folder, tmp_path / "not", push="tok")
    assert not (tmp_path / "not").exists(), "a wrong name is told before anything is written"
