"""The walk, Algorithm 1 and the weights sigma: formulas, and all at once against the loop."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from latent_bed import Toy, codes

from latentpapers.errors import UnknownName, UserError
from latentpapers.latent import method, plain, sphere, walk
from latentpapers.latent.descent import Plan
from latentpapers.latent.pair import Pair, of_networks, sample, statistic_group
from latentpapers.latent.walk import Proto, Sigma

Z0, Z1 = codes(6, 1), codes(6, 2)


def test_walk_stays_on_one_great_circle_with_the_angles_of_the_closed_form():
    path = walk.walk(Z0, Z1, 7)
    assert path.shape == (8, 6, 24)
    np.testing.assert_allclose(path.norm(dim=2), math.sqrt(24), rtol=1e-12)
    for i in range(6):
        plane = torch.linalg.svdvals(path[:, i])
        assert plane[2] < 1e-9 * plane[0]  # two dimensions: a plane through the centre
        steps = sphere.angle(path[1:, i], path[:-1, i])
        np.testing.assert_allclose(steps, sphere.walk_angles(float(steps[0]), 7), rtol=1e-8)


def test_eq_walk():
    new = Z1 + (Z1 - Z0)
    expected = new / new.norm(dim=1, keepdim=True) * math.sqrt(24)
    np.testing.assert_allclose(walk.onward(Z0, Z1), expected, rtol=1e-12)


def test_eq_walk_control():
    # a rotation by the first angle is another walk (diamond-e13)
    turned = sphere.great_circle(Z0, Z1, 2 * sphere.angle(Z0, Z1)[:1])[0, :1]
    assert (walk.onward(Z0, Z1)[:1] - turned).norm() > 0.5
    with pytest.raises(UserError, match="at least one step"):
        walk.walk(Z0, Z1, 0)


def test_eq_alg1():
    q = codes(6, 3)
    d = (Z1 - Z0).numpy()
    along = (q.numpy() * d).sum(1, keepdims=True)
    for reading, power in (("code", 2), ("paper", 1)):
        new = Z1.numpy() + along * d / np.linalg.norm(d, axis=1, keepdims=True) ** power
        new *= math.sqrt(24) / np.linalg.norm(new, axis=1, keepdims=True)
        np.testing.assert_allclose(walk.directed_step(Z0, Z1, q, reading=reading), new, rtol=1e-10)
    # with q = the last step the reading `code` is the plain walk
    np.testing.assert_allclose(walk.directed_step(Z0, Z1, Z1 - Z0), walk.onward(Z0, Z1), rtol=1e-9)


def test_eq_alg1_control():
    q = codes(6, 3)
    # moving along q itself leaves the circle
    aside = sphere.project(Z1 + q)
    assert (walk.directed_step(Z0, Z1, q) - aside).norm(dim=1).min() > 0.1
    with pytest.raises(UnknownName, match="reading"):
        walk.directed_step(Z0, Z1, q, reading="mine")


def test_a_step_of_no_length_stays_and_has_a_gradient():
    q = codes(6, 3).requires_grad_()
    new = walk.directed_step(Z1, Z1, q)
    np.testing.assert_allclose(new.detach(), Z1, rtol=1e-12)
    (gradient,) = torch.autograd.grad(new.sum(), q)
    assert gradient.isfinite().all()


SCORES = torch.tensor([[1.0, 3.0], [0.0, -2.0]], dtype=torch.float64)
COSINES = torch.tensor([[0.5, 0.1], [-0.5, -0.5]], dtype=torch.float64)


def test_eq_6():
    found = walk.protoimage_loss(SCORES, COSINES, weight=3.0)
    np.testing.assert_allclose(found, [2 + 3 * 0.3, -1 - 3 * 0.5], rtol=1e-12)


def test_eq_6_control():
    angles = walk.protoimage_loss(SCORES, torch.acos(COSINES), weight=3.0)
    assert not np.allclose(walk.protoimage_loss(SCORES, COSINES, weight=3.0), angles, atol=0.1)


def test_eq_a4():
    spread = {"score_spread": 1.0, "cosine_spread": 3.0}
    found = walk.even_protoimage_loss(SCORES, COSINES, weight=0.2, **spread)
    s, c = SCORES.numpy(), COSINES.numpy()
    expected = s.mean(1) + 0.2 * c.mean(1) + s.std(1, ddof=1) + 3 * c.std(1, ddof=1)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_eq_a4_control():
    spread = {"score_spread": 1.0, "cosine_spread": 3.0}
    found = walk.even_protoimage_loss(SCORES, COSINES, weight=0.2, **spread)
    without = walk.protoimage_loss(SCORES, COSINES, weight=0.2)
    assert found[0] > without[0] + 0.1
    with pytest.raises(UserError, match="at least two"):
        walk.even_protoimage_loss(SCORES[:, :1], COSINES[:, :1], weight=1, **spread)


def test_eq_8():
    for sigma in (0.0, 0.3, 1.0):
        mixed = sigma * Z1 + (1 - sigma) * Z0
        expected = mixed * math.sqrt(24) / mixed.norm(dim=1, keepdim=True)
        np.testing.assert_allclose(walk.interpolate(Z0, Z1, sigma), expected, rtol=1e-12)
    each = torch.linspace(0, 1, 6, dtype=torch.float64)
    found = walk.interpolate(Z0, Z1, each)
    for i in range(6):
        one = walk.interpolate(Z0[i : i + 1], Z1[i : i + 1], float(each[i]))
        np.testing.assert_allclose(found[i : i + 1], one, rtol=1e-9)
    np.testing.assert_allclose(found[0], Z0[0], rtol=1e-12)
    for bad in (-0.1, 1.01, float("nan")):
        with pytest.raises(UserError, match="between start"):
            walk.interpolate(Z0, Z1, bad)


def test_eq_8_control():
    swapped = walk.interpolate(Z1, Z0, 0.3)
    assert (walk.interpolate(Z0, Z1, 0.3) - swapped).norm(dim=1).min() > 0.5
    unprojected = 0.5 * Z0 + 0.5 * Z1
    assert (walk.interpolate(Z0, Z1, 0.5) - unprojected).norm(dim=1).min() > 0.5


def test_eq_9():
    np.testing.assert_allclose(walk.weight_loss(SCORES), [(1 + 9) / 2, (0 + 4) / 2], rtol=1e-12)
    found = walk.weight_loss(SCORES, target=-1.0, spread=1.0)
    np.testing.assert_allclose(found, [(4 + 16) / 2 + 2, (1 + 1) / 2 + 2], rtol=1e-12)


def test_eq_9_control():
    # diamond-e17: k + 1 terms over k
    assert not np.allclose(walk.weight_loss(SCORES), [(1 + 9) / 1, (0 + 4) / 1])
    with pytest.raises(UserError, match="at least two"):
        walk.weight_loss(SCORES[:, :1], spread=1.0)


# --- searches ------------------------------------------------------------------------------------

SHORT = Plan(rate=0.1, steps=30, decay_every=20, tolerance=1e-3)
HOWS = {
    "code": Proto(descent=SHORT),
    "paper": Proto(step="paper", descent=dataclasses.replace(SHORT, stop="below")),
    "forward": Proto(start="forward", cosine="absolute", descent=SHORT),
    "wgan_gp": dataclasses.replace(walk.PROTO["wgan_gp"], descent=SHORT),
}


@pytest.mark.parametrize("name", HOWS)
@pytest.mark.parametrize("batch", [1, 4])
def test_all_protoimages_at_once_are_those_of_the_loop(name, batch):
    if name == "wgan_gp" and batch == 1:
        pytest.skip("eq A4 needs a batch: its standard deviations have no meaning for one")
    pair, z0, z1 = Toy().pair(), codes(16, 3), codes(16, 4)
    found = walk.protoimages(pair, z0, z1, HOWS[name], batch=batch, chunk=8)
    parts = zip(z0.split(batch), z1.split(batch))
    paths = [plain.protoimage(pair, a, b, HOWS[name]) for a, b in parts]
    alone = torch.cat([path[-1] for path in paths])
    np.testing.assert_allclose(found.variable, alone, atol=1e-6)  # float64, 30 steps of 0.1
    assert found.steps.tolist() == [len(path) - 2 for path in paths]


def test_algorithm_1_lowers_its_loss_and_stays_on_the_circle():
    pair, z0, z1 = Toy().pair(), codes(4, 3), codes(4, 4)
    path = plain.protoimage(pair, z0, z1, Proto(descent=dataclasses.replace(SHORT, tolerance=0.0)))

    def loss(z):
        scores = pair.scores(pair.images(z), group=4)
        return float(scores.mean() + 3 * sphere.cosine(z, z0).mean())

    assert loss(path[-1]) < loss(z1) < loss(z0)
    plane = torch.linalg.svdvals(torch.stack(path)[:, 0])
    assert plane[2] < 1e-8 * plane[0]


def test_the_statistic_couples_a_batch_and_nothing_else():
    pair, z0, z1 = Toy(deviation=5.0).pair(), codes(8, 3), codes(8, 4)
    how = Proto(descent=dataclasses.replace(SHORT, tolerance=0.0))
    found = walk.protoimages(pair, z0, z1, how, batch=4).variable
    other = torch.cat([z1[:4], codes(4, 9)])
    moved = walk.protoimages(pair, z0, other, how, batch=4).variable
    np.testing.assert_allclose(moved[:4], found[:4], atol=1e-9)  # another batch changed
    tied = walk.protoimages(pair, z0, torch.cat([z1[:3], codes(5, 9)]), how, batch=4).variable
    assert (tied[:3] - found[:3]).norm(dim=1).max() > 1e-3  # control: a neighbour changed


AIMS = {
    "code": walk.SIGMA["code"],
    "paper": walk.SIGMA["paper"],
    "wgan_gp": walk.SIGMA["wgan_gp"],
    "highest": Sigma(aim="highest"),
}


@pytest.mark.parametrize("name", AIMS)
def test_all_weights_at_once_are_those_of_the_loop(name):
    pair, z0, zp = Toy().pair(), codes(12, 5), codes(12, 6)
    how = AIMS[name]
    found = walk.weights(pair, z0, zp, how, batch=4, chunk=8)
    parts = zip(z0.split(4), zp.split(4))
    alone = torch.cat([plain.weights(pair, a, b, how) for a, b in parts])
    np.testing.assert_allclose(found.variable, alone, atol=1e-8)  # float64
    assert how.low <= found.variable.min()
    assert found.variable.max() <= how.high


def test_bounds_hold_and_impossible_ones_are_refused():
    pair, z0, zp = Toy().pair(), codes(8, 5), codes(8, 6)
    free = walk.weights(pair, z0, zp, walk.SIGMA["paper"], batch=4).variable
    tight = walk.weights(pair, z0, zp, Sigma(0.6, 0.58, 0.62), batch=4).variable
    assert tight.min() >= 0.58
    assert tight.max() <= 0.62
    assert free.max() - free.min() > tight.max() - tight.min()  # control: without them it moves on
    for bad in (Sigma(0.4, 0.5, 0.75), Sigma(0.6, 0.5, 1.2), Sigma(0.6, -0.1, 1.0)):
        with pytest.raises(UserError, match="sigma needs"):
            walk.weights(pair, z0, zp, bad, batch=4)


def test_one_protoimage_may_serve_all():
    pair, z0, zp = Toy().pair(), codes(8, 5), codes(8, 6)
    mean = walk.mean_protoimage(zp)
    assert mean.shape == (1, 24)
    np.testing.assert_allclose(mean.norm(), math.sqrt(24), rtol=1e-12)
    one = walk.weights(pair, z0, mean, Sigma(), batch=4).variable
    many = walk.weights(pair, z0, mean.repeat(8, 1), Sigma(), batch=4).variable
    assert torch.equal(one, many)


def test_the_group_of_the_statistic_follows_the_public_network():
    assert [statistic_group(b) for b in (1, 2, 4, 5, 10, 12, 20)] == [1, 2, 4, 5, 10, 4, 4]
    with pytest.raises(UserError, match="at least one"):
        statistic_group(0)


def test_starts_are_raw_or_projected():
    g = torch.Generator().manual_seed(0)
    raw = sample(200, 512, g, reading="paper").norm(dim=1)
    on = sample(200, 512, g).norm(dim=1)
    assert raw.std() > 0.5  # the chi distribution's 0.71
    np.testing.assert_allclose(on, math.sqrt(512), rtol=1e-5)  # float32


def few_steps(steps: int) -> method.Search:
    """The whole search, each descent cut to `steps`."""
    short = Plan(steps=steps, tolerance=0.0)
    how = method.Search(batch=4, chunk=8)
    return dataclasses.replace(
        how,
        inversion=dataclasses.replace(how.inversion, candidates=20, descent=short),
        proto=dataclasses.replace(how.proto, descent=short),
        sigma=dataclasses.replace(how.sigma, descent=dataclasses.replace(short, rate=0.01)),
    )


def test_the_whole_method_on_small_networks_of_the_library():
    from latentpapers.nets.pgan import Critic, Generator

    torch.manual_seed(0)
    g = Generator(16, fmap_base=64, fmap_max=16, latent=32).requires_grad_(False)
    d = Critic(16, fmap_base=64, fmap_max=16).requires_grad_(False)
    pair = of_networks(g, d)
    how = few_steps(5)
    z0, candidates = method.starts(8, pair, how, torch.Generator().manual_seed(0))
    found = method.search(pair, z0, candidates, how)
    judged = pair.alone(pair.images(candidates))
    x0 = pair.images(z0)
    z1 = torch.cat([plain.invert(pair, x, candidates, judged, how.inversion) for x in x0.split(4)])
    parts = zip(z0.split(4), z1.split(4))
    zp = torch.cat([plain.protoimage(pair, a, b, how.proto)[-1] for a, b in parts])
    # float32, and convolutions of other batch sizes; five steps of 0.1 amplify 1e-7 little
    np.testing.assert_allclose(found.z1, z1, atol=2e-3)
    np.testing.assert_allclose(found.zp, zp, atol=2e-2)
    assert found.improved().shape == z0.shape
    assert found.steps == (5.0, 5.0, 5.0)
    np.testing.assert_allclose(found.improved(0.0), z0, atol=1e-5)


def test_a_result_is_kept_in_half_precision(tmp_path):
    from latentpapers import tensorfile
    from latentpapers.errors import Corrupt
    from latentpapers.latent import found

    z0, z1, zp = (codes(5, s, 512).float() for s in (1, 2, 3))
    result = found.Found(z0, z1, zp, torch.linspace(0.5, 0.75, 5), (10.0, 20.5, 3.0))
    found.save(tmp_path / "a.safetensors", result, {"title": "a search"})
    back, card = found.load(tmp_path / "a.safetensors")
    assert card["title"] == "a search"
    assert back.steps == result.steps
    assert torch.equal(back.sigma, result.sigma)
    for name in ("z0", "z1", "zp"):
        assert float(sphere.angle(getattr(back, name), getattr(result, name)).max()) < 0.1
    np.testing.assert_allclose(back.zp.norm(dim=1), math.sqrt(512), rtol=1e-6)
    # control: the half numbers themselves are off the sphere by more
    assert (zp.half().float().norm(dim=1) - math.sqrt(512)).abs().max() > 1e-4
    assert len(back.first(2).improved()) == 2
    tensorfile.save(tmp_path / "b.safetensors", {"parts": {}})
    with pytest.raises(Corrupt, match="no result"):
        found.load(tmp_path / "b.safetensors")


def test_a_result_without_its_starts_is_the_same_result(tmp_path):
    from latentpapers.errors import Corrupt
    from latentpapers.latent import found

    z0, z1, zp = (sphere.project(codes(5, s, 512).float()) for s in (1, 2, 3))
    result = found.Found(z0, z1, zp, torch.linspace(0.5, 0.75, 5), (10.0, 20.5, 3.0))
    with_starts, without = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    found.save(with_starts, result, {})
    found.save(without, result, {}, starts=False)
    assert without.stat().st_size < 0.7 * with_starts.stat().st_size
    whole, less = found.load(with_starts)[0], found.load(without, z0)[0]
    for name in ("z0", "z1", "zp", "sigma"):
        assert torch.equal(getattr(whole, name), getattr(less, name)), name
    assert torch.equal(found.load(with_starts, z1)[0].z0, whole.z0)  # its own starts are taken
    with pytest.raises(Corrupt, match="keeps no starts"):
        found.load(without)
    for starts in (z1, z0[:4]):
        with pytest.raises(Corrupt, match="other starts"):
            found.load(without, starts)


def test_other_readings_are_kept_as_far_as_they_differ(tmp_path):
    from latentpapers.errors import Corrupt
    from latentpapers.latent import found

    z0, z1, own = (sphere.project(codes(5, s, 512).float()) for s in (1, 2, 3))

    def search(z1, *degrees):
        zp = sphere.great_circle(z0, z1, torch.tensor(degrees)[None])[0]
        return found.Found(z0, z1, zp, torch.linspace(0, 1, 5), (0.0, 7.0, degrees[0]))

    first = search(z1, 100.0, 110.0, 120.0, 130.0, 140.0)
    others = {"e9": search(z1, 50.0, -60.0, 70.0, 179.0, 5.0),
              "e2": search(own, 90.0, 91.0, 92.0, 93.0, 94.0)}  # fmt: skip
    path = tmp_path / "r.safetensors"
    found.save_readings(path, first, others, {"n": 5})
    back = found.load_readings(path, first)
    assert list(back) == ["e9", "e2"]
    assert torch.equal(back["e9"].z1, first.z1)  # not written twice
    for name, r in others.items():
        assert back[name].steps == r.steps
        assert torch.equal(back[name].sigma, r.sigma)
        for code in ("z1", "zp"):
            assert float(sphere.angle(getattr(r, code), getattr(back[name], code)).max()) < 1.0
    assert float(sphere.angle(back["e2"].z1, first.z1).min()) > 45  # control: another inversion
    found.save_readings(path, first, {"e9": others["e9"]}, {})  # none has one of its own
    torch.testing.assert_close(found.load_readings(path, first)["e9"].zp, back["e9"].zp)
    with pytest.raises(Corrupt, match="no other readings"):
        found.load_readings(path, first.first(4))
    found.save(path, first, {})
    with pytest.raises(Corrupt, match="no other readings"):
        found.load_readings(path, first)


def test_a_small_result_needs_its_starts_and_loses_half_a_degree(tmp_path):
    from latentpapers.errors import Corrupt
    from latentpapers.latent import found

    z0, z1 = (sphere.project(codes(5, s, 512).float()) for s in (1, 2))
    angles = torch.tensor([130.0, -20.0, 179.0, 91.5, 0.0])
    zp = sphere.great_circle(z0, z1, angles[None])[0]
    extra = {"free": torch.linspace(0, 1, 3), "again": zp[:2]}
    result = found.Found(z0, z1, zp, torch.linspace(0.5, 0.75, 5), (10.0, 20.5, 3.0), extra)
    path = tmp_path / "a.safetensors"
    found.save_small(path, result, {"title": "a search"})
    back, card = found.load_small(path, z0)
    assert card["title"] == "a search"
    assert back.steps == result.steps
    assert torch.equal(back.z0, z0)
    assert torch.equal(back.sigma, result.sigma)
    np.testing.assert_allclose(back.extra["free"], extra["free"], atol=1e-3)
    # 8 bits of numbers up to 3.5 or so: a step of 0.03, a deviation of 0.008 in each of 512
    for name, good, got in (("z1", z1, back.z1), ("zp", zp, back.zp),
                            ("again", zp[:2], back.extra["again"])):  # fmt: skip
        off = sphere.angle(good, got)
        assert float(off.max()) < 1.0, name
    assert float(sphere.angle(z1, back.z1).min()) > 0.1  # control: it is 8 bits that are kept
    np.testing.assert_allclose(back.zp.norm(dim=1), math.sqrt(512), rtol=1e-5)
    found.save(tmp_path / "b.safetensors", result, {})
    assert path.stat().st_size < 0.4 * (tmp_path / "b.safetensors").stat().st_size
    for starts in (z1, z0[:4]):
        with pytest.raises(Corrupt, match="other starts"):
            found.load_small(path, starts)
    with pytest.raises(Corrupt, match="no small result"):
        found.load_small(tmp_path / "b.safetensors", z0)
    with pytest.raises(Corrupt, match="no result"):
        found.load(path)


def test_memory_of_a_whole_search_does_not_grow_with_the_number_of_starts():
    """The networks hold what a search needs; they never see more than a chunk at once."""
    how = few_steps(3)
    seen = {}
    for n, chunk in ((8, 8), (80, 8), (80, 40)):
        toy = Toy()
        method.search(toy.pair(), codes(n, 1), codes(20, 2), dataclasses.replace(how, chunk=chunk))
        seen[n, chunk] = max(toy.sizes)
    assert seen == {(8, 8): 8, (80, 8): 8, (80, 40): 40}  # the last one is the control


def test_a_whole_search_never_holds_all_images():
    """Those of the starts and of the candidates are made, used and dropped chunk by chunk."""
    held = {}
    for chunk in (8, 80):
        made, pair = [], Toy().pair()

        class Watched(Pair):
            def images(self, z, *, block=64, made=made):
                made.append(len(z))
                return super().images(z, block=block)

        watched = Watched(pair.generate, pair.score, pair.features, pair.latent)
        how = dataclasses.replace(few_steps(2), chunk=chunk)
        method.search(watched, codes(80, 1), codes(20, 2), how)
        held[chunk] = max(made)
    assert held == {8: 8, 80: 80}  # the second is the control


@pytest.mark.parametrize(
    "make",
    [lambda: Proto(step="authors"), lambda: Proto(start="zeros"), lambda: Proto(cosine="none"),
     lambda: Sigma(aim="lowest"), lambda: method.Search(start="raw"),
     lambda: sample(2, 8, torch.Generator(), reading="raw"),
     lambda: method.tuned(method.Search(), "bedrooms"),
     lambda: method.tuned(method.Search(), "celeba", reading="authors")],
)  # fmt: skip
def test_an_unknown_name_is_not_taken_for_another(make):
    with pytest.raises(UnknownName, match="known:"):
        make()


def test_searches_are_tuned_as_printed_or_as_configured():
    how = method.Search()
    assert method.tuned(how, "celeba") == how  # the default is the code's CelebA
    printed, coded = (method.tuned(how, "celebahq512", reading=r) for r in ("paper", "code"))
    # appendix C: 10, 1, 100; the authors' files: 15, 1, 50 (diamond-e32)
    assert (printed.inversion.alpha, printed.inversion.beta, printed.proto.weight) == (10, 1, 100)
    assert (coded.inversion.alpha, coded.inversion.beta, coded.proto.weight) == (15, 1, 50)
    assert (printed.sigma.low, printed.sigma.high) == (0, 1)
    assert (coded.sigma.low, coded.sigma.high) == (0.5, 0.75)
    late = method.tuned(method.SEARCHES["paper"], "celebahq1024")  # 0.7 is its upper bound
    assert (late.sigma.low, late.sigma.start, late.sigma.high) == (0.4, 0.7, 0.7)
