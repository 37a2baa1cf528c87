"""Checkpoint files: what goes in comes out, and nothing damaged gets through."""

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from latentpapers import tensorfile
from latentpapers.errors import Corrupt, Missing, StorageFull
from latentpapers.train import checkpoint


def tree():
    shared = torch.arange(6.0)
    return {
        "half": torch.tensor([1.5, -2.0]).half(), "brain": torch.tensor([1.5]).bfloat16(),
        "double": torch.tensor(1 / 3, dtype=torch.float64), "flag": torch.tensor([True, False]),
        "bytes": torch.arange(5, dtype=torch.uint8), "long": torch.tensor([[2**62]]),
        "empty": torch.zeros(0, 3), "spoilt": torch.tensor([float("nan"), float("inf")]),
        "strided": torch.arange(6.0).view(2, 3).T,
        "wide": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "shared": shared, "again": shared, "part": shared[2:4],
        "leaf": torch.ones(2, requires_grad=True),
        "state": {0: {"step": torch.tensor(3.0)}, 10: {"step": torch.tensor(4.0)}},
        "list": [1, 2.5, None, "text", True, [torch.zeros(1), {}], []],
        "number": 0.1, "text": "\x00tensor", "nothing": None, "none": {},
    }  # fmt: skip


def equal(a, b):
    if isinstance(a, torch.Tensor):
        assert a.dtype is b.dtype
        assert torch.equal(a.detach().nan_to_num(7), b.nan_to_num(7))
        assert not b.requires_grad
    elif isinstance(a, dict):
        assert list(a) == list(b)  # keys keep their order and their type
        for key in a:
            equal(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            equal(x, y)
    else:
        assert type(a) is type(b)
        assert a == b


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "c.safetensors"


def test_everything_that_goes_in_comes_out(path):
    checkpoint.save(path, tree(), about={"step": 3, "config": {"a": [1, None]}})
    equal(tree() | {"wide": 0}, checkpoint.load(path) | {"wide": 0})
    assert checkpoint.load(path)["wide"].shape == (2, 3, 4, 4)
    assert checkpoint.header(path) == {"step": 3, "config": {"a": [1, None]}}


def test_tuples_come_back_as_lists(path):
    checkpoint.save(path, {"betas": (0.9, 0.999)})
    assert checkpoint.load(path) == {"betas": [0.9, 0.999]}
    assert checkpoint.header(path) == {}


def test_equal_trees_make_equal_files(path):
    values = tree()
    checkpoint.save(path, values)
    first = path.read_bytes()
    checkpoint.save(path, values)
    assert path.read_bytes() == first


def test_there_is_no_pickle_in_it(path):
    checkpoint.save(path, tree())
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + length])
    assert json.loads(header["__metadata__"]["tree"])
    with pytest.raises(TypeError):
        checkpoint.save(path, {"code": lambda: 0})
    assert checkpoint.load(path)["number"] == 0.1  # the file from before


@pytest.mark.parametrize(
    "clash",
    [
        {1: torch.zeros(1), "1": torch.ones(1)},
        {"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}},
        {"l": [torch.zeros(1)], "l/0": torch.ones(1)},
    ],
)
def test_names_that_would_fall_together_are_refused(path, clash):
    with pytest.raises(ValueError, match="two "):
        checkpoint.save(path, clash)
    assert not path.exists()


def small(path):
    values = {"w": torch.arange(4.0), "lr": 0.25, "steps": 17, "rows": [[1, 0.5]]}
    checkpoint.save(path, values, about={"step": 17})
    return values


def outcome(path):
    try:
        return [checkpoint.load(path), checkpoint.header(path)]
    except Corrupt as error:
        return error


def test_no_flipped_bit_gets_through(path):
    """Every byte of a small file in turn, one bit of it drawn from a seed."""
    values = small(path)
    good = path.read_bytes()
    draw = random.Random(0)
    refused = 0
    for place in range(len(good)):
        content = bytearray(good)
        content[place] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        found = outcome(path)
        if isinstance(found, Corrupt):
            assert path.name in str(found)
            refused += 1
        else:  # harmless: the flip hit nothing that is read
            equal([values, {"step": 17}], found)
    assert refused > 0.95 * len(good)


def test_no_truncated_file_gets_through(path):
    small(path)
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(Corrupt, match=path.name):
            checkpoint.load(path)
        with pytest.raises(Corrupt, match=path.name):
            checkpoint.header(path)


def test_headers_are_checked_without_the_tensors(path):
    small(path)
    content = path.read_bytes()
    altered = content.replace(b'{\\"step\\": 17}', b'{\\"step\\": 71}')
    assert altered != content
    path.write_bytes(altered)
    with pytest.raises(Corrupt, match="header does not match"):
        checkpoint.header(path)
    with pytest.raises(Corrupt, match="header does not match"):
        checkpoint.load(path)


def test_files_from_before_the_headers_hash_still_load(path):
    small(path)
    with tensorfile.safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    del metadata["sha256_header"]
    save_file(tensors, path, metadata)
    assert checkpoint.load(path)["steps"] == 17


def test_a_foreign_safetensors_file_is_refused(path):
    path.parent.mkdir()
    save_file({"w": torch.zeros(2)}, path)
    for read in (checkpoint.load, checkpoint.header):
        with pytest.raises(Corrupt, match="without our header"):
            read(path)


def test_a_missing_file_and_a_folder_say_what_to_do(path):
    for where in (path, path.parent.parent):
        with pytest.raises(Missing, match="run the training that writes it"):
            checkpoint.load(where)


def test_a_file_that_goes_away_while_it_is_opened_is_missing(path, monkeypatch):
    """Another process may clear a folder between the look and the opening."""
    small(path)
    opened = tensorfile.safe_open

    def late(name, framework):
        Path(name).unlink()
        return opened(name, framework=framework)

    monkeypatch.setattr(tensorfile, "safe_open", late)
    with pytest.raises(Missing, match="run the training that writes it"):
        checkpoint.load(path)


@pytest.mark.parametrize("gone", [True, False])
def test_torch_says_runtime_error_of_a_file_that_it_cannot_map(path, monkeypatch, gone):
    small(path)

    def unmapped(name, framework):
        if gone:
            Path(name).unlink()
        raise RuntimeError(f"unable to open file <{name}> in read-only mode")

    monkeypatch.setattr(tensorfile, "safe_open", unmapped)
    wanted, words = (Missing, "no checkpoint") if gone else (Corrupt, "unable to open")
    with pytest.raises(wanted, match=words):
        checkpoint.load(path)


def test_a_failed_write_keeps_the_old_file(path, monkeypatch):
    small(path)
    before = path.read_bytes()

    def no_room(self, content):
        import errno

        with self.open("wb") as file:
            file.write(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(path), "write_bytes", no_room)
    with pytest.raises(StorageFull, match="no space left"):
        checkpoint.save(path, {"w": torch.zeros(1)})
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_networks_prefer_the_average(path):
    net = {"w": torch.zeros(2), "b": torch.ones(1)}
    average = {
        "n_averaged": torch.tensor(4),
        "module.w": torch.full((2,), 0.5),
        "module.b": net["b"],
    }
    checkpoint.save(path, {"nets": {"g": net, "d": net}, "ema": {"g": average}})
    found = checkpoint.networks(path)
    equal({"g": {"w": torch.full((2,), 0.5), "b": net["b"]}, "d": net}, found)
    equal({"g": net, "d": net}, checkpoint.networks(path, averaged=False))
