"""Weights that cannot be read are one line that names the file; those that can are read as they are needed."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from random_models import lora_checkpoint, save
from videopool.models import ModelError, attach, load_adapter, load_backbone
from videopool.models.source import sizes_in

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0a1b2c\nsize 1234567\n"


@pytest.fixture(autouse=True)
def in_threads(monkeypatch):
    """Weights are read as in a user's process: by transformers' threads, which other tests do without."""
    monkeypatch.delenv("HF_DEACTIVATE_ASYNC_LOAD")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save(tmp_path_factory.mktemp("base"), "llava")


@pytest.fixture
def folder(base, tmp_path):
    return shutil.copytree(base, tmp_path / "model")


@pytest.fixture
def checkpoint(base, tmp_path):
    """LoRA and a projector as safetensors, by name of their kind of file as well."""
    path, tensors = lora_checkpoint(load_backbone(str(base)), tmp_path / "checkpoint")
    return shutil.copytree(path, tmp_path / "c"), tensors


def cut(path, share=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def one_line(path, call):
    with pytest.raises(ModelError) as caught:
        call()
    said = str(caught.value)
    assert "\n" not in said
    assert path.name in said
    return said


DAMAGE = {
    "cut": lambda path: cut(path),
    "header cut": lambda path: cut(path, 0.001),
    "empty": lambda path: path.write_bytes(b""),
    "pointer": lambda path: path.write_text(POINTER),
    "nonsense": lambda path: path.write_bytes(b"nonsense" * 64),
    "page": lambda path: path.write_text("<html>404</html>"),
    "gone": lambda path: path.unlink(),
}


def shard(folder):
    """The model's weights in two shards with an index, as large models have them."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, files = sorted(weights), {}
    for number in (0, 1):
        part = {name: weights[name] for name in names[number::2]}
        files |= dict.fromkeys(part, f"model-0000{number + 1}-of-00002.safetensors")
        save_file(part, folder / f"model-0000{number + 1}-of-00002.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return folder / "model-00002-of-00002.safetensors"


def test_threads_read_what_is_in_the_files(folder, monkeypatch):
    shard(folder)
    read = load_backbone(str(folder)).model.state_dict()
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")
    alone = load_backbone(str(folder)).model.state_dict()
    assert read.keys() == alone.keys()
    assert all(torch.equal(read[name], alone[name]) for name in read)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_models_damaged_weights(folder, damage):
    path = folder / "model.safetensors"
    DAMAGE[damage](path)
    said = one_line(path, lambda: load_backbone(str(folder)))
    assert ("Git LFS pointer" in said) == (damage == "pointer")


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_models_damaged_shard(folder, damage):
    path = shard(folder)
    load_backbone(str(folder))
    DAMAGE[damage](path)
    said = one_line(path, lambda: load_backbone(str(folder)))
    assert ("Git LFS pointer" in said) == (damage == "pointer")


@pytest.mark.parametrize(
    "content",
    [POINTER, "", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": "../x"}}'],
)
def test_a_damaged_index(folder, checkpoint, content):
    shard(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(content)
    one_line(index, lambda: load_backbone(str(folder)))
    (checkpoint[0] / index.name).write_text(content)
    one_line(index, lambda: load_adapter(str(checkpoint[0])))


def test_pointers_in_the_place_of_small_files(folder):
    path = folder / "tokenizer.json"
    path.write_text(POINTER)
    one_line(path, lambda: load_backbone(str(folder)))


def test_weights_that_are_no_safetensors_are_named(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "as safetensors" in one_line(folder / "pytorch_model.bin", lambda: load_backbone(str(folder)))


def as_kind(folder, tensors, kind):
    (folder / "model.safetensors").unlink()
    path = folder / ("adapter_model.safetensors" if kind == "safetensors" else "pytorch_model.bin")
    if kind == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "bin")
    return path


@pytest.mark.parametrize("damage", [name for name in DAMAGE if name != "gone"])
@pytest.mark.parametrize("kind", ["safetensors", "bin", "old bin"])
def test_a_checkpoints_damaged_weights(checkpoint, kind, damage):
    path = as_kind(*checkpoint, kind)
    load_adapter(str(checkpoint[0]))
    DAMAGE[damage](path)
    said = one_line(path, lambda: load_adapter(str(checkpoint[0])))
    assert ("Git LFS pointer" in said) == (damage == "pointer")


def test_a_checkpoints_missing_shard_without_an_index(checkpoint):
    folder, tensors = checkpoint
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model-00001-of-00003.safetensors")
    with pytest.raises(ModelError, match="of 3 shards 2, 3 are missing"):
        load_adapter(str(folder))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"state_dict": {"a": torch.zeros(2)}}, "'state_dict' in it is a dict"),
        ([torch.zeros(2)], "it holds a list"),
        ({"x.lora_A.weight": torch.zeros(2, 2, device="meta")}, "a meta tensor"),
    ],
)
def test_a_bin_file_with_something_else(checkpoint, content, words):
    path = as_kind(checkpoint[0], content, "bin")
    assert words in one_line(path, lambda: load_adapter(str(checkpoint[0])))


@pytest.mark.parametrize("other", ["non_lora_trainables.bin", "model.safetensors", "mm_projector.bin"])
def test_weights_beside_an_adapter_are_not_passed_over(checkpoint, other):
    folder, tensors = checkpoint
    as_kind(folder, tensors, "safetensors")
    torch.save({}, folder / "training_args.bin")
    torch.save({}, folder / "adapter_model.bin")  # another form of the same
    load_adapter(str(folder))
    (folder / other).write_bytes(b"")
    assert "would not be read" in one_line(folder / other, lambda: load_adapter(str(folder)))


@pytest.mark.parametrize("kind", ["bin", "old bin"])
def test_a_bin_file_is_opened_once_for_all_points(base, checkpoint, kind, monkeypatch):
    """And gives what safetensors give; a changed file is opened anew."""
    folder, tensors = checkpoint
    one = load_backbone(str(base))
    attach(one, load_adapter(str(folder)), 4)
    path = as_kind(folder, tensors, kind)
    loads = []
    load = torch.load

    def counted(*args, **options):
        loads.append(options)
        return load(*args, **options)

    monkeypatch.setattr(torch, "load", counted)
    opened = [load_adapter(str(folder)) for _ in range(5)]
    assert len(loads) == 1
    other = load_backbone(str(base))
    attach(other, opened[-1], 4)
    assert len(loads) == 2
    assert all(options["mmap"] == (kind == "bin") for options in loads)
    assert all(options["weights_only"] for options in loads)
    weights = dict(other.model.state_dict())
    assert all(torch.equal(value, weights[name]) for name, value in one.model.state_dict().items())
    changed = {name: value + 1 for name, value in tensors.items()}
    torch.save(changed, path)
    assert load_adapter(str(folder)).identity != opened[0].identity
    other = load_backbone(str(base))
    attach(other, load_adapter(str(folder)), 4)
    bias = other.parts.multi_modal_projector.linear_1.bias
    assert torch.equal(bias, tensors["whatever.multi_modal_projector.linear_1.bias"] + 1)


def test_a_model_that_is_not_in_memory_takes_no_checkpoint(base, checkpoint):
    """accelerate leaves meta tensors where weights are offloaded."""
    offloaded = load_backbone(str(base))
    offloaded.model.to("meta")
    with pytest.raises(ModelError, match="not in memory") as caught:
        attach(offloaded, load_adapter(str(checkpoint[0])), 4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"A": torch.zeros(0, 64), "B": torch.zeros(64, 0)}, "has size"),
        ({"A": torch.zeros(4, 64), "B": torch.zeros(64, 8)}, r"has size \[64, 8\]"),
        ({"A": torch.zeros(64), "B": torch.zeros(64, 4)}, "has size"),
        ({"A": torch.zeros(4, 64)}, "incomplete"),
        ({"B": torch.zeros(64, 4)}, "incomplete"),
    ],
)
def test_matrices_that_do_not_go_together(base, checkpoint, changes, words):
    folder, tensors = checkpoint
    at = "base_model.model.language_model.base_model.model.model.layers.1.self_attn.q_proj"
    kept = {name: value for name, value in tensors.items() if not name.startswith(at)}
    kept |= {f"{at}.lora_{side}.weight": value for side, value in changes.items()}
    save_file(kept, folder / "model.safetensors")
    with pytest.raises(ModelError, match=words) as caught:
        attach(load_backbone(str(base)), load_adapter(str(folder)), 4)
    assert "\n" not in str(caught.value)


def test_shared_examples(shared, base, folder):
    """A pointer that stood in the place of weights, and an adapter with use_rslora."""
    shutil.copy(shared("field/lfs_pointer_weights/model.safetensors"), folder / "model.safetensors")
    one_line(folder / "model.safetensors", lambda: load_backbone(str(folder)))
    backbone = load_backbone("videopool:shapes/mini_llava")
    attach(backbone, load_adapter(str(shared("field/lora_rslora"))))
    layer = backbone.parts.language_model.layers[0].self_attn.q_proj
    assert layer.scaling == {"default": 32 / 4**0.5}
    assert sizes_in(shared("field/lora_rslora") / "adapter_model.safetensors", "x")
