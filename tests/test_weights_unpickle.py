"""Pickles with a payload, and pickles whose numbers sit inside objects of unknown classes."""

import argparse
import collections
import io
import os
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
import torch

from latentpapers import cli, weights
from latentpapers.errors import Corrupt, Missing, UserError
from latentpapers.weights import entries, registry, unpickle
from latentpapers.weights.unpickle import Stub


class Payload:
    """Writes a file when it is unpickled by Python's own reader."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def foreign():
    """A module that exists while files are written, and not when they are read."""
    module = types.ModuleType("theirs")

    class Config:
        pass

    class Network:
        """As NVIDIA's: its state is a dict with the list of variables."""

        def __getstate__(self):
            return self.__dict__

    class Names(list):
        pass

    class Table(dict):
        pass

    for kind in (Config, Network, Names, Table):
        kind.__module__, kind.__qualname__ = "theirs", kind.__name__
        setattr(module, kind.__name__, kind)
    sys.modules["theirs"] = module
    yield module
    sys.modules.pop("theirs", None)


def zipped(content, path):
    torch.save(content, path)


def old(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def plain(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


FORMS = pytest.mark.parametrize("write", [zipped, old, plain])


@FORMS
def test_a_payload_does_not_run(write, tmp_path):
    path, target = tmp_path / "bad.pth", tmp_path / "made"
    write({"weight": np.ones(2), "x": Payload(target)}, path)
    with pytest.raises(UserError, match=r"mkdir, which could run anything.*--allow-pickle-stub"):
        unpickle.load(path)
    content = unpickle.load(path, allow_pickle_stub=True)
    assert not target.exists()
    assert isinstance(content["x"], Stub)
    assert content["x"].args == (str(target),)
    assert type(content["x"]).path == f"{os.name}.mkdir"
    assert unpickle.foreign(path) == [f"{os.name}.mkdir"]
    assert np.array_equal(content["weight"], np.ones(2))


def test_control_the_payload_works(tmp_path):
    path, target = tmp_path / "bad.pkl", tmp_path / "made"
    plain(Payload(target), path)
    pickle.loads(path.read_bytes())
    assert target.is_dir()


@pytest.mark.parametrize(
    "name",
    ["builtins eval", "builtins exec", "builtins getattr", "os system", "__builtin__ eval",
     "subprocess Popen", "torch load", "torch.hub load", "torch._utils _import_dotted_name",
     "numpy load", "numpy.core.multiarray fromfile", "torch.serialization load", "pickle loads",
     "operator attrgetter", "functools partial", "codecs decode", "torch.storage _load_from_bytes",
     "latentpapers.weights.unpickle load", "builtins __import__",
     "torch FloatStorage.from_file"],
)  # fmt: skip
@pytest.mark.parametrize("protocol", [0, 4])
def test_nothing_but_builders_of_arrays_is_looked_up(name, protocol, tmp_path):
    module, what = name.split()
    path = tmp_path / "x.pkl"
    if protocol:
        texts = b"".join(b"\x8c" + bytes([len(t)]) + t.encode() for t in (module, what))
        path.write_bytes(b"\x80\x04" + texts + b"\x93\x8c\x01a\x85R.")
    else:
        path.write_bytes(f"c{module}\n{what}\n(S'a'\ntR.".encode())
    with pytest.raises(UserError, match="could run anything"):
        unpickle.load(path)
    assert isinstance(unpickle.load(path, allow_pickle_stub=True), Stub)


def test_the_gan_zoo_s_layout_gives_up_its_arrays(foreign, tmp_path):
    """{config: an object, netG: state dict, ...}, in torch's own files."""
    config = foreign.Config()
    config.depth, config.size = 5, np.float64(0.5)
    generator = collections.OrderedDict(weight=torch.arange(6.0).view(2, 3))
    content = {"config": config, "netG": generator, "avgG": {"weight": torch.ones(1).half()}}
    for write in (zipped, old):
        write(content, tmp_path / "zoo.pth")
        sys.modules.pop("theirs", None)
        with pytest.raises(UserError, match=r"theirs\.Config"):
            unpickle.load(tmp_path / "zoo.pth")
        read = unpickle.load(tmp_path / "zoo.pth", allow_pickle_stub=True)
        sys.modules["theirs"] = foreign
        assert torch.equal(read["netG"]["weight"], generator["weight"])
        assert read["avgG"]["weight"].dtype is torch.float16
        assert read["config"].state == {"depth": 5, "size": 0.5}
        assert repr(read["config"]) == "<stub of theirs.Config>"


@pytest.mark.parametrize("protocol", range(6))
def test_nvidia_s_layout_gives_up_its_arrays(foreign, tmp_path, protocol):
    """A tuple of objects whose state holds (name, array) pairs and source code."""
    nets = []
    for k in range(3):
        net = foreign.Network()
        pairs = [("lod", np.float32(0)), ("4x4/Dense/weight", np.full((2, 3), k, np.float32))]
        net.__dict__.update(
            version=2, variables=pairs, source=f"import os\nos.mkdir('{tmp_path}/m')"
        )
        nets.append(net)
    path = tmp_path / "karras.pkl"
    path.write_bytes(pickle.dumps(tuple(nets), protocol=protocol))
    sys.modules.pop("theirs", None)
    read = unpickle.load(path, allow_pickle_stub=True)
    assert len(read) == 3
    for k, net in enumerate(read):
        found = dict(net.state["variables"])
        assert np.array_equal(found["4x4/Dense/weight"], np.full((2, 3), k))
        assert found["4x4/Dense/weight"].dtype == np.float32
        assert found["lod"] == 0
    assert not (tmp_path / "m").exists()


def test_lists_and_dicts_of_unknown_classes_keep_their_items(foreign, tmp_path):
    names, table = foreign.Names(["a", "b"]), foreign.Table(x=1)
    plain({"names": names, "table": table, "set": {1, 2}}, tmp_path / "x.pkl")
    sys.modules.pop("theirs", None)
    read = unpickle.load(tmp_path / "x.pkl", allow_pickle_stub=True)
    assert read["names"].items == ["a", "b"]
    assert read["table"].items == [("x", 1)]
    assert read["set"] == {1, 2}


def test_texts_of_python_2_keep_their_bytes(tmp_path):
    array = np.arange(4, dtype="<f4")
    state = b"(I1\n(I4\ntcnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS"
    body = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    text = repr(array.tobytes()).lstrip("b").encode()
    (tmp_path / "old.pkl").write_bytes(body + state + text + b"\ntb.")
    assert np.array_equal(unpickle.load(tmp_path / "old.pkl"), array)


@FORMS
def test_what_needs_no_foreign_class_needs_no_permission(write, tmp_path):
    content = {
        "a": np.arange(3.0), "b": collections.OrderedDict(c=(1, "two", None, b"\xff", 2 + 1j)),
    }  # fmt: skip
    if write is not plain:
        content["t"] = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    write(content, tmp_path / "x")
    read = unpickle.load(tmp_path / "x")
    assert np.array_equal(read["a"], content["a"])
    assert read["b"] == content["b"]
    assert unpickle.foreign(tmp_path / "x") == []


@FORMS
@pytest.mark.parametrize("cut", [0, 1, 30, 0.5, -1])
@pytest.mark.parametrize("allow", [False, True])
def test_truncated_files_are_refused(write, cut, allow, tmp_path):
    path = tmp_path / "x.pth"
    write({"a": torch.zeros(50) if write is not plain else np.zeros(50), "b": {1}}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * cut) if isinstance(cut, float) else cut])
    with pytest.raises(Corrupt, match=r"x\.pth cannot be read"):
        unpickle.load(path, allow_pickle_stub=allow)


def test_what_is_no_pickle_is_refused(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(Missing):
        unpickle.load(path)
    program, archive = io.BytesIO(), io.BytesIO()
    torch.save({"a": torch.ones(1)}, program)
    with zipfile.ZipFile(program, "a") as script:  # what marks a TorchScript program
        script.writestr("archive/constants.pkl", pickle.dumps(()))
    with zipfile.ZipFile(archive, "w") as other:
        other.writestr("readme.txt", "hello")
    for content in (b"<!doctype html><title>Quota exceeded</title>", program.getvalue(),
                    archive.getvalue(), b"\x80\x04\x8d" + b"\xff" * 8):  # fmt: skip
        path.write_bytes(content)
        for allow in (False, True):
            with pytest.raises(Corrupt, match="cannot be read"):
                unpickle.load(path, allow_pickle_stub=allow)


def toy():
    with torch.device("meta"):
        return torch.nn.Linear(3, 2)


def test_the_registry_refuses_and_reads_such_a_file(tmp_path, monkeypatch, capsys):
    """`argparse.Namespace` stands for any class: torch's own reader does not admit it."""
    monkeypatch.setenv("LATENTPAPERS_CACHE", str(tmp_path / "cache"))
    file = entries.Local("x.pth", "0" * 64, "nowhere")
    entry = entries.Entry("toy", "a toy", 1, "CC0", file, entries._saved, toy, None)
    monkeypatch.setattr(registry, "ENTRIES", {"toy": entry})
    state = {"weight": torch.full((2, 3), 0.5), "bias": torch.full((2,), 0.5)}
    path = tmp_path / "theirs.pth"
    torch.save({"args": argparse.Namespace(lr=1), "state_dict": state}, path)
    with pytest.raises(UserError, match=r"argparse\.Namespace"):
        weights.load("toy", path)
    read = weights.load("toy", path, allow_pickle_stub=True)
    assert all(torch.equal(read[k], v) for k, v in state.items())
    assert cli.main(["weights", "convert", "toy", str(path)]) == 2
    assert "--allow-pickle-stub" in capsys.readouterr().err
    assert not weights.available("toy")
    words = ["weights", "convert", "toy", str(path), "--allow-pickle-stub"]
    assert cli.main(words) == 0
    assert weights.available("toy")
