"""LPIPS and diversity: equal to the lpips package, each image through the network once."""

import itertools
import warnings

import pytest
import torch

from latentpapers import weights
from latentpapers.errors import Missing, UnknownName, UserError
from latentpapers.metrics import entry, perceptual


@pytest.fixture(scope="module")
def pair():
    """The package's LPIPS on a random AlexNet, and ours from the same random numbers."""
    return both("alexnet", "alex")


def both(trunk, net):
    import lpips

    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        theirs = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
    numbers = theirs.net.state_dict().items()
    state = {"features." + key.split(".", 1)[1]: value for key, value in numbers}
    return theirs, perceptual.network(trunk, state)


def images(n, seed=0, size=40):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def naive(theirs, x):
    with torch.no_grad():
        pairs = itertools.combinations(x, 2)
        return torch.cat([theirs(a[None], b[None], normalize=True).flatten() for a, b in pairs])


def test_equal_to_the_package(pair):
    theirs, ours = pair
    x, y = images(5), images(5, seed=1)
    with torch.no_grad():
        expected = theirs(x, y, normalize=True).flatten()
        wrong_range = theirs(x, y, normalize=False).flatten()
    found = perceptual.distance(x, y, ours, block=2)
    assert torch.allclose(found, expected, rtol=1e-4)  # the promise; measured 1e-7
    assert not torch.allclose(wrong_range, expected, rtol=0.01)  # control: the classic mistake
    assert torch.allclose(perceptual.distance(y, x, ours), found, rtol=1e-5)
    assert perceptual.distance(x, x, ours).abs().max() == 0


def test_all_pairs_equal_the_naive_loop(pair):
    theirs, ours = pair
    x = images(6)
    expected = naive(theirs, x)
    assert torch.allclose(perceptual.pair_distances(x, ours), expected, rtol=1e-4)
    assert torch.allclose(perceptual.pair_distances(x, ours, block=4), expected, rtol=1e-4)
    found = perceptual.diversity([x, x[:2]], ours)
    assert found.tolist() == pytest.approx([expected.mean().item(), expected[0].item()], rel=1e-4)


def test_blocks_of_pairs_do_not_matter(pair, monkeypatch):
    whole = perceptual.pair_distances(images(6), pair[1])
    monkeypatch.setattr(perceptual, "_NUMBERS", 1)
    assert torch.allclose(perceptual.pair_distances(images(6), pair[1]), whole, rtol=1e-5)


def test_squeezenet_too():
    theirs, ours = both("squeeze_deepscale", "squeeze")
    assert torch.allclose(perceptual.pair_distances(images(4), ours), naive(theirs, images(4)),
                          rtol=1e-4)  # fmt: skip


def test_each_image_passes_once(pair):
    seen = []
    hook = pair[1].net.register_forward_hook(lambda _, args, out: seen.append(len(args[0])))
    try:
        perceptual.pair_distances(images(10), pair[1], block=4)
    finally:
        hook.remove()
    assert sum(seen) == 10  # not 90


def test_more_distortion_is_farther(pair):
    x = images(4) * 0.8 + 0.1
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    far = [perceptual.distance(x, (x + s * noise).clamp(0, 1), pair[1]).mean() for s in (0.02, 0.1)]
    assert 0 < far[0] < far[1]


def test_building_leaves_random_numbers_and_warnings_alone(pair):
    state = {"features." + k.split(".", 1)[1]: v for k, v in pair[0].net.state_dict().items()}
    before = torch.random.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        perceptual.network("alexnet", state)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_feature_distances():
    x = torch.tensor([[2.0, 0], [0, 5], [-1, 0]])
    root = 2**0.5
    assert perceptual.feature_distances(x).tolist() == pytest.approx([root, 2, root], rel=1e-6)


# --- by id -------------------------------------------------------------------------------------


def test_diversity_by_id(pair, monkeypatch):
    monkeypatch.setattr(perceptual, "_loaded", lambda trunk, path: pair[1])
    same, varied = images(1).repeat(10, 1, 1, 1), images(10, seed=4)
    half = torch.cat([same[:5], varied[:5]])
    found = entry.score("lpips_alex_pairs45", torch.stack([varied, half, same]))
    expected = [perceptual.pair_distances(x, pair[1]).mean().item() for x in (varied, half)] + [0]
    assert found.value == pytest.approx(sum(expected) / 3, rel=1e-4)
    assert found.n == 3
    assert found.low < found.value < found.high
    assert "over inputs" in found.method
    single = entry.score("lpips_alex_pairs45", varied[None])
    assert single.low is None
    with pytest.raises(UserError, match="ten outputs, not of 9"):
        entry.score("lpips_alex_pairs45", varied[None, :9])


def test_distance_to_the_truth_by_id(pair, monkeypatch):
    """Against the package itself; bytes and floats; the order of pairs counts."""
    theirs, ours = pair
    monkeypatch.setattr(perceptual, "_loaded", lambda trunk, path: ours)
    x, y = images(5), images(5, seed=1)
    with torch.no_grad():
        expected = theirs(x, y, normalize=True).flatten().double()
    found = entry.values("lpips_alex", x, y)
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    assert entry.values("lpips_alex", x, x).abs().max() == 0
    score = entry.score("lpips_alex", x, y)
    assert score.value == pytest.approx(float(expected.mean()), rel=1e-4)
    assert (score.n, score.low < score.value < score.high) == (5, True)
    in_bytes = [(v * 255).round().byte() for v in (x, y)]
    as_floats = [v.float() / 255 for v in in_bytes]
    assert torch.equal(entry.values("lpips_alex", *in_bytes, layout="NCHW"),
                       entry.values("lpips_alex", *as_floats))  # fmt: skip
    # control: other partners are other distances
    assert entry.values("lpips_alex", x, y.flip(0)).tolist() != pytest.approx(
        expected.tolist(), rel=1e-3
    )
    with pytest.raises(UserError, match="compares with a reference"):
        entry.score("lpips_alex", x)


def test_feature_distance_by_id(monkeypatch):
    found = entry.score("featdist_efficientnetlite0_pairs45", images(10, size=32)[None])
    assert 0 < found.value < 2
    same = images(1, size=32).repeat(10, 1, 1, 1)
    none = entry.score("featdist_efficientnetlite0_pairs45", same[None])
    assert none.value == pytest.approx(0, abs=1e-3)  # rounding between places of a batch


def test_missing_trunk_is_one_sentence():
    if weights.available("alexnet"):
        pytest.skip("the AlexNet trunk is on this machine")
    with pytest.raises(Missing, match="alexnet"):
        perceptual.distance(images(1), images(1))


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (images(2) * 2 - 1, r"\[0, 1\]"),
        (images(2) * 255, r"\[0, 1\]"),
        (torch.full((2, 3, 40, 40), torch.nan), r"\[0, 1\]"),
        ((images(2) * 255).to(torch.uint8), "float images"),
        (images(2)[:, :2], "float images"),
        (images(2)[0], "float images"),
        (images(2, size=24), "at least 32 px"),
    ],
)
def test_bad_images_are_refused(pair, x, words):
    with pytest.raises(UserError, match=words):
        perceptual.distance(x, x, pair[1])
    with pytest.raises(UserError, match=words):
        perceptual.pair_distances(x, pair[1])


def test_other_bad_input(pair):
    with pytest.raises(UserError, match="LPIPS of images"):
        perceptual.distance(images(2), images(3), pair[1])
    with pytest.raises(UserError, match="no pair"):
        perceptual.pair_distances(images(1), pair[1])
    with pytest.raises(UserError, match="at least 2 rows"):
        perceptual.feature_distances(torch.ones(1, 3))
    with pytest.raises(UnknownName, match="resnet"):
        perceptual.distance(images(1), images(1), "resnet")
    with pytest.raises(UserError, match="not those of alexnet"):
        perceptual.network("alexnet", {"features.0.weight": torch.zeros(1)})


@pytest.mark.skipif(
    not weights.available("squeeze_deepscale"), reason="the DeepScale SqueezeNet is not here"
)
def test_real_squeezenet_ranks_distortions():
    from skimage import data

    picture = torch.from_numpy(data.astronaut()[:256, :256]).movedim(2, 0)[None].float() / 255
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(picture, 9, 1, 4)
    a_bit, a_lot = ((picture + s * noise).clamp(0, 1) for s in (0.01, 0.2))
    far = [perceptual.distance(picture, x, "squeeze_deepscale").item()
           for x in (a_bit, a_lot, blurred)]  # fmt: skip
    assert 0 < far[0] < 0.1 < min(far[1:])
