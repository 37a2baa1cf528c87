"""Features of images and their cache: what a name depends on, damage, two writers, a full disk."""

import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

from latentpapers import tensorfile
from latentpapers.errors import StorageFull, UnknownName, UserError
from latentpapers.metrics import cache, entry, features
from latentpapers.metrics.features import extract


class Tiny(nn.Module):
    """A feature network of three numbers that counts what it sees."""

    def __init__(self, seed=0, layer="mean"):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(6, 3, generator=torch.Generator().manual_seed(seed)))
        self.layer = layer

    def forward(self, x):
        assert x.shape[1] == 3
        assert 0 <= x.min() <= x.max() <= 1
        Tiny.shown += len(x)
        return x.mean((2, 3)) @ self.weight.T

    shown = 0


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTPAPERS_CACHE", str(tmp_path))
    Tiny.shown = 0


def pictures(n=12, seed=0, size=8):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=g)


# --- names -------------------------------------------------------------------------------------


def test_second_time_from_disk_bit_for_bit():
    first = extract(pictures(), Tiny())
    assert Tiny.shown == 12
    assert torch.equal(extract(pictures(), Tiny()), first)
    assert Tiny.shown == 12
    assert torch.equal(extract(pictures(), Tiny(), keep=False), first)
    assert Tiny.shown == 24


def one_pixel(x):
    x = x.clone()
    x[5, 1, 2, 3] ^= 1
    return x


@pytest.mark.parametrize(
    ("images", "network"),
    [
        (one_pixel(pictures()), Tiny()),
        (pictures().flip(0), Tiny()),
        (pictures().transpose(2, 3), Tiny()),
        (pictures().reshape(12, 3, 4, 16), Tiny()),
        (pictures()[:11], Tiny()),
        (pictures(), Tiny(seed=1)),
        (pictures(), Tiny(layer="other")),
        (pictures(), nn.Sequential(Tiny())),
    ],
)
def test_anything_else_is_another_name(images, network):
    extract(pictures(), Tiny())
    extract(images, network)
    assert Tiny.shown == 12 + len(images)
    assert len(list(cache.folder().iterdir())) == 2


def test_storage_order_and_batch_are_not_part_of_the_name():
    first = extract(pictures(), Tiny())
    last = pictures().contiguous(memory_format=torch.channels_last)
    assert torch.equal(extract(last, Tiny(), batch=5), first)
    assert Tiny.shown == 12


def test_preparation_and_code_are_part_of_a_fingerprint(tmp_path):
    from latentpapers.nets.digitsnet import DigitsNet

    net = DigitsNet(width=4)
    before = features.fingerprint(net)
    net.size = 224
    assert features.fingerprint(net) != before
    del net.size
    assert features.fingerprint(net) == before
    assert features._ours(DigitsNet)
    assert not features._ours(nn.Linear)


# --- damage ------------------------------------------------------------------------------------


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def empty(path):
    path.write_bytes(b"")


def foreign(path):
    from safetensors.torch import save_file

    save_file({"features": torch.zeros(12, 6)}, path)


def renamed(path):
    tensorfile.save(path, {"features": torch.zeros(12, 6)}, about={"key": "another"})


def shorter(path):
    tensorfile.save(path, {"features": torch.zeros(11, 6)}, about={"key": path.stem})


def other_things(path):
    tensorfile.save(path, {"features": "text"}, about={"key": path.stem})


@pytest.mark.parametrize("damage", [truncate, flip, empty, foreign, renamed, shorter, other_things])
def test_damaged_entry_is_made_again(damage):
    first = extract(pictures(), Tiny())
    (path,) = cache.folder().iterdir()
    damage(path)
    assert torch.equal(extract(pictures(), Tiny()), first)
    assert Tiny.shown == 24
    assert torch.equal(extract(pictures(), Tiny()), first)
    assert Tiny.shown == 24  # mended


def test_full_disk_costs_a_warning_not_the_result(monkeypatch):
    def full(path, tree, *, about=None):
        raise StorageFull("cannot write: no space left on device.")

    monkeypatch.setattr(tensorfile, "save", full)
    with pytest.warns(UserWarning, match="no space left"):
        found = extract(pictures(), Tiny())
    assert found.shape == (12, 6)


def test_nothing_half_written_stays(monkeypatch):
    def dies(self, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", dies)
        with pytest.raises(KeyboardInterrupt):
            extract(pictures(), Tiny())
    assert not list(cache.folder().iterdir())


WRITER = """
import sys, torch
from latentpapers.metrics import cache
rows = torch.arange(200_000.0).reshape(1000, 200) + int(sys.argv[1])
for turn in range(15):
    made = cache.remembered("shared", 1000, lambda: rows)
    if turn % 3 == 2:
        (cache.folder() / "shared.safetensors").unlink(missing_ok=True)
    step = made[0, 0].item()
    assert step in (1, 2) and torch.equal(made - step, rows - int(sys.argv[1])), "torn"
print("done")
"""


def test_two_writers_at_once_never_tear_an_entry():
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, n], stdout=-1, stderr=-1, text=True)
        for n in ("1", "2")
    ]
    for writer in writers:
        out, err = writer.communicate(timeout=300)
        assert (writer.returncode, out) == (0, "done\n"), err
    assert not [p for p in cache.folder().iterdir() if p.suffix == ".tmp"]


def test_digest_of_every_kind_of_tensor():
    kinds = [torch.tensor(3), torch.zeros(0, 3), torch.zeros(2, dtype=torch.bfloat16),
             torch.zeros(2, dtype=torch.bool), torch.zeros(2), torch.zeros(1, 2)]  # fmt: skip
    found = [cache.digest(x) for x in kinds]
    assert len(set(found)) == len(kinds)
    long = torch.rand(600, 2)
    assert cache.digest(long) == cache.digest(long.T.contiguous().T)


# --- extraction --------------------------------------------------------------------------------


def test_grey_images_maps_and_bad_images():
    grey = pictures()[:, :1]
    assert torch.equal(extract(grey, Tiny()), extract(grey.expand(-1, 3, -1, -1), Tiny()))
    maps = extract(pictures(), nn.Identity())
    assert maps == pytest.approx(pictures().float().mean((2, 3)) / 255, abs=1e-6)  # float32
    for bad in (pictures().float(), pictures()[0], pictures()[:, :2]):
        with pytest.raises(UserError, match="uint8 images"):
            extract(bad, Tiny())
    with pytest.raises(UnknownName):
        extract(pictures(), "no-such-network")


def test_batches_and_order_move_results_by_rounding_alone():
    x = pictures(8, size=32)
    whole = extract(x, "efficientnetlite0", keep=False)
    parts = extract(x.flip(0), "efficientnetlite0", batch=3, keep=False).flip(0)
    # float32 sums of 1e3 terms in another order through 50 layers
    assert torch.allclose(whole, parts, rtol=1e-3, atol=1e-4 * whole.std().item())
    assert not torch.allclose(whole, whole.roll(1, 0), rtol=1e-3)  # control


# --- metrics by id -----------------------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(features, "_named", lambda name, layer: Tiny(layer=f"{name}.{layer}"))


def noise(n, seed, spread=40):
    """Images of random colour, so that their three numbers vary."""
    g = torch.Generator().manual_seed(seed)
    colour = 128 + spread * torch.randn(n, 1, 1, 3, generator=g)
    return colour.clamp(0, 255).to(torch.uint8).expand(n, 4, 4, 3)


def test_frechet_density_and_coverage_by_id(tiny):
    fake, real, same = noise(2000, 0), noise(2000, 1), noise(2000, 2, spread=5)
    found = {
        i: entry.score(i, fake, real)
        for i in ("fd_efficientnetlite0_n2000", "density_efficientnetlite0_k5_n2000",
                  "coverage_efficientnetlite0_k5_n2000")
    }  # fmt: skip
    for name, score in found.items():
        assert score.n == 2000
        assert score.low <= score.value <= score.high, name
    fd, density, coverage = found.values()
    assert 0.9 < density.value < 1.1
    assert coverage.value > 0.9
    dull = {i: entry.score(i, same, real).value for i in found}
    assert dull["fd_efficientnetlite0_n2000"] > 10 * fd.value
    assert dull["coverage_efficientnetlite0_k5_n2000"] < 0.3
    assert dull["density_efficientnetlite0_k5_n2000"] > density.value  # faithful but not varied


def test_number_of_images_is_part_of_the_id(tiny):
    for i in ("fd_efficientnetlite0_n2000", "coverage_efficientnetlite0_k5_n2000"):
        with pytest.raises(UserError, match="2,000 images, not 1,999"):
            entry.score(i, noise(1999, 0), noise(2000, 1))
        with pytest.raises(UserError, match="as reference"):
            entry.score(i, noise(2000, 0))
    with pytest.raises(UserError, match="1999 against 2000"):
        entry.score("coverage_efficientnetlite0_k5_n2000", noise(2000, 0), noise(1999, 1))
    with pytest.raises(UserError, match="k = 3"):
        entry.score("coverage_efficientnetlite0_k5_n2000", noise(2000, 0), noise(2000, 1), k=3)
    # the reference of a Frechet distance may have any size
    fd = entry.score("fd_efficientnetlite0_n2000", noise(2000, 0), noise(500, 1))
    assert fd.value >= 0


def test_a_standin_serves_under_its_own_name(monkeypatch):
    here = {"efficientnetlite0"}
    monkeypatch.setattr(features.weights, "available", lambda name: name in here)
    assert features.choose("fid_tf2015_n10000") == "fd_efficientnetlite0_n2000"
    assert features.choose("lpips_alex_pairs45") == "featdist_efficientnetlite0_pairs45"
    here.add("squeeze_deepscale")
    assert features.choose("lpips_alex_pairs45") == "lpips_squeeze_deepscale_pairs45"
    here.add("inception_tf2015")
    assert features.choose("fid_tf2015_n10000") == "fid_tf2015_n10000"
    assert features.choose("psnr_y_b4_u8") == "psnr_y_b4_u8"
    here.clear()
    with pytest.raises(UserError, match="weights fetch efficientnetlite0"):
        features.choose("fid_tf2015_n10000")


def test_standins_are_marked_in_the_ledger():
    from latentpapers import ledger

    known, built = ledger.metrics(), entry.protocols()
    for metric, standin in features.STANDINS.items():
        assert known[standin].standin
        assert not known[standin].comparable_with_paper
        assert {metric, standin} <= built.keys()


def test_no_warning_in_plain_use():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extract(pictures(), Tiny())
