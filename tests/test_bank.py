"""The image bank: every crop says itself where it comes from. And packs, decoded in parallel."""

import numpy as np
import pytest
import torch

from latentpapers import data
from latentpapers.data import bank as banks
from latentpapers.data import packs
from latentpapers.data.bank import Bank, PairBank
from latentpapers.errors import Corrupt, UserError
from latentpapers.seeds import derive


def coded(image, height, width):
    """(3, H, W) whose pixels hold (image number, row, column)."""
    out = torch.empty(3, height, width, dtype=torch.uint8)
    out[0], out[1], out[2] = image, torch.arange(height)[:, None], torch.arange(width)[None]
    return out


@pytest.fixture
def squares():
    return torch.stack([coded(i, 40, 50) for i in range(7)])


@pytest.fixture
def sizes():
    return [(20, 33), (64, 17), (16, 16), (100, 90), (30, 31)]


def many(n, seed=0, images=7):
    return torch.randint(images, (n,), generator=torch.Generator().manual_seed(seed))


def turned(crop, mirror, upside_down, transpose):
    """The documented order, one image at a time."""
    crop = crop.flip(1) if upside_down else crop
    crop = crop.flip(2) if mirror else crop
    return crop.transpose(1, 2) if transpose else crop


# --- crops --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"flip": True}, {"turn": True}])
@pytest.mark.parametrize("kind", ["one size", "many sizes"])
def test_a_crop_is_a_window_of_its_image(squares, sizes, kind, options):
    images = squares if kind == "one size" else [coded(i, h, w) for i, (h, w) in enumerate(sizes)]
    bank, index = Bank(images), many(200, images=len(images))
    out = bank.crops(index, 16, (3, 5), **options)
    w = bank.draw(index, 16, (3, 5), **options)
    for k in range(len(index)):
        image, top, left = images[int(index[k])], int(w.top[k]), int(w.left[k])
        plain = image[:, top : top + 16, left : left + 16]
        assert plain.shape == (3, 16, 16)
        expected = turned(plain, bool(w.mirror[k]), bool(w.upside_down[k]), bool(w.transpose[k]))
        assert torch.equal(out[k], expected)
    flags = [bool(flag.any()) for flag in (w.mirror, w.upside_down, w.transpose)]
    assert flags == [bool(options), "turn" in options, "turn" in options]


def test_the_largest_crop_is_the_whole_image(squares):
    square = squares[:, :, :, :40]
    assert torch.equal(Bank(square).crops(torch.tensor([4, 2]), 40, (0, 0)), square[[4, 2]])


def test_images_come_back_whole(squares, sizes):
    assert torch.equal(Bank(squares).image(3), squares[3])
    images = [coded(i, h, w) for i, (h, w) in enumerate(sizes)]
    bank = Bank(images)
    assert len(bank) == 5
    assert all(torch.equal(bank.image(i), image) for i, image in enumerate(images))


def test_a_batch_is_the_callers_own(squares):
    bank, index = Bank(squares), torch.arange(7)
    first = bank.crops(index, 8, (0, 0))
    kept = first.clone()
    first.zero_()
    assert torch.equal(bank.crops(index, 8, (0, 0)), kept)


# --- what the random numbers depend on ----------------------------------------------------------


def test_a_crop_depends_on_seed_step_and_sample_alone(squares):
    bank, index = Bank(squares), torch.randperm(7, generator=torch.Generator().manual_seed(0))
    out = bank.crops(index, 16, (1, 2), turn=True)
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    assert torch.equal(bank.crops(index[order], 16, (1, 2), turn=True), out[order])  # any order
    assert torch.equal(bank.crops(index[2:4], 16, (1, 2), turn=True), out[2:4])  # any worker's part
    for other in ((1, 3), (2, 2)):
        assert not torch.equal(bank.crops(index, 16, other, turn=True), out)


def test_sample_numbers_part_what_is_drawn_twice(squares):
    bank, index = Bank(squares), torch.zeros(50, dtype=torch.long)
    same = bank.crops(index, 16, (0, 0))
    assert (same == same[0]).all()
    parted = bank.draw(index, 16, (0, 0), samples=torch.arange(50))
    assert len(set(zip(parted.top.tolist(), parted.left.tolist()))) > 40


def test_a_generator_is_a_stream_too(squares):
    bank, index = Bank(squares), torch.arange(7)

    def two(seed):
        g = torch.Generator().manual_seed(seed)
        return [bank.crops(index, 16, g) for _ in range(2)]

    first, second = two(0)
    assert not torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(two(0), (first, second)))
    assert not torch.equal(two(1)[0], first)


def test_the_numbers_are_splitmix64():
    """The same in Python's whole numbers, as Steele, Lea and Flood print it (2014, figure 14)."""
    key, mask = 123456789, 2**64 - 1
    samples = torch.tensor([0, 1, 77, 2**40])
    ours = banks._bits(key, samples)
    for b, sample in enumerate(samples.tolist()):
        for lane in range(8):
            z = (key + (sample * 8 + lane + 1) * 0x9E3779B97F4A7C15) & mask
            z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
            assert int(ours[lane, b]) == (z ^ (z >> 31)) >> 33
    assert banks._key((5, 6)) == derive(5, "crops", 6)


def chi_square(values, bins):
    counts = np.bincount(values, minlength=bins)
    assert len(counts) == bins
    expected = len(values) / bins
    return float(((counts - expected) ** 2 / expected).sum())


def test_places_and_turns_are_uniform_and_independent(squares):
    bank, n = Bank(squares), 20_000
    w = bank.draw(torch.zeros(n, dtype=torch.long), 16, (7, 0), samples=torch.arange(n), turn=True)
    eight = w.mirror * 4 + w.upside_down * 2 + w.transpose
    corner = (w.top >= 12).long() * 2 + (w.left >= 17)
    # five standard deviations above the mean of a chi square: a fixed seed, so it is never flaky
    for values, bins in ((w.top, 25), (w.left, 35), (eight, 8), (eight * 25 + w.top, 200)):
        limit = bins - 1 + 5 * np.sqrt(2 * (bins - 1))
        assert chi_square(values.numpy(), bins) < limit
        skewed = values.clone()
        skewed[: n // 20] = 0  # control: a twentieth of all samples in one place
        assert chi_square(skewed.numpy(), bins) > limit
    assert set(corner.tolist()) == {0, 1, 2, 3}


def test_choose_picks_images_evenly(squares):
    bank = Bank(squares)
    chosen = bank.choose(torch.arange(7000), (0, 1))
    assert chi_square(chosen.numpy(), 7) < 6 + 5 * np.sqrt(12)
    assert torch.equal(bank.choose(torch.tensor([5, 900]), (0, 1)), chosen[[5, 900]])
    assert not torch.equal(bank.choose(torch.arange(7000), (0, 2)), chosen)


# --- pairs --------------------------------------------------------------------------------------


def test_pairs_show_the_same_place_in_all_eight_turns(sizes):
    factor = 4
    lr = [coded(i, h, w) for i, (h, w) in enumerate(sizes)]
    hr = [coded(i, 2, 2).new_zeros(3, factor * h, factor * w) for i, (h, w) in enumerate(sizes)]
    for big, small in zip(hr, lr):
        big[:] = small.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    pairs = PairBank(hr, lr, factor)
    assert len(pairs) == 5
    index = many(100, images=5)
    high, low = pairs.crops(index, 32, (0, 1), samples=torch.arange(100), turn=True)
    assert (high.shape, low.shape) == ((100, 3, 32, 32), (100, 3, 8, 8))
    # nearest enlargement commutes with every symmetry of the square
    assert torch.equal(high, low.repeat_interleave(factor, 2).repeat_interleave(factor, 3))
    other = pairs.crops(index, 32, (0, 2), samples=torch.arange(100), turn=True)
    assert not torch.equal(other[1], low)


def test_pairs_made_by_the_degradation_agree_inside():
    """Away from a crop's border, reducing the crop gives the low resolution crop: bytes equal."""
    g = torch.Generator().manual_seed(0)
    hr = [torch.randint(0, 256, (3, h, w), dtype=torch.uint8, generator=g)
          for h, w in ((96, 128), (160, 100))]  # fmt: skip
    lr = [data.imresize(x[None], (x.shape[1] // 4, x.shape[2] // 4))[0] for x in hr]
    high, low = PairBank(hr, lr, 4).crops(torch.tensor([0, 1, 1]), 64, (0, 0), flip=True)
    again = data.imresize(high, (16, 16))
    assert torch.equal(again[..., 2:-2, 2:-2], low[..., 2:-2, 2:-2])
    assert not torch.equal(again, low)  # at its border a crop knows less than the whole image


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda s: Bank(s.float()), "uint8"),
        (lambda s: Bank(s[0]), "one"),
        (lambda s: Bank(s[:0]), "at least one"),
        (lambda s: Bank([]), "at least one"),
        (lambda s: Bank([s[0], s[0, :1]]), "equal channels"),
        (lambda s: Bank([s[0], s[0, :, :0]]), "without pixels"),
        (lambda s: Bank(s).crops(torch.arange(3), 41, (0, 0)), "only 40 x 50"),
        (lambda s: Bank(s).crops(torch.arange(3), 0, (0, 0)), "cannot cut"),
        (lambda s: Bank(s).crops(torch.tensor([7]), 8, (0, 0)), "image 7 is not among 7"),
        (lambda s: Bank(s).crops(torch.tensor([-1]), 8, (0, 0)), "image -1"),
        (lambda s: Bank(s).crops(torch.tensor([0.5]), 8, (0, 0)), "whole numbers"),
        (lambda s: Bank(s).crops(torch.tensor([], dtype=torch.long), 8, (0, 0)), "whole numbers"),
        (lambda s: Bank(s).crops(torch.arange(3), 8, (0, 0), samples=torch.arange(2)), "not fit"),
        (lambda s: PairBank(s, s, 4), "4 times the size"),
        (lambda s: PairBank(s, s[:3], 1), "low resolution"),
        (lambda s: PairBank(s, s[..., ::2, ::2], 2).crops(torch.arange(3), 9, (0, 0)), "divide"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_a_sentence(squares, call, what):
    with pytest.raises(UserError, match=what):
        call(squares)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_same_crops_on_a_gpu(squares):
    index = many(64)
    ours = Bank(squares).crops(index, 16, (0, 0), turn=True)
    assert torch.equal(Bank(squares, "cuda").crops(index, 16, (0, 0), turn=True).cpu(), ours)


# --- decoding a pack ----------------------------------------------------------------------------


@pytest.fixture
def pack(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTPAPERS_CACHE", str(tmp_path / "cache"))
    pixels = np.random.default_rng(0).integers(0, 256, (300, 3, 16, 16), dtype=np.uint8)
    file = packs.write_pack(
        tmp_path / "p.npz", iter(pixels), 16, names=[f"{i}.png" for i in range(300)],
        licence="CC0", source="here",
    )  # fmt: skip
    return packs.read_pack(file), pixels


def kept(tmp_path):
    return sorted((tmp_path / "cache").rglob("*.npy"))


def test_images_decoded_in_parallel_keep_their_order(pack, tmp_path):
    pack, pixels = pack
    order = np.random.default_rng(1).permutation(300)
    assert np.array_equal(pack.decode(), pixels)
    assert np.array_equal(pack.decode(order), pixels[order])
    assert not kept(tmp_path)  # too few to be worth a file


def test_a_large_pack_is_decoded_once(pack, tmp_path, monkeypatch):
    pack, pixels = pack
    monkeypatch.setattr(packs, "_KEEP", 100)
    assert np.array_equal(pack.decode(np.arange(149)), pixels[:149])
    assert not kept(tmp_path)  # less than half of it
    assert np.array_equal(pack.decode(np.arange(250)[::-1]), pixels[:250][::-1])
    (file,) = kept(tmp_path)
    assert pack.sha256[:16] in file.name
    monkeypatch.setattr(packs.Pack, "_image", None)  # nothing is decoded any more
    again = pack.decode()
    assert np.array_equal(again, pixels)
    again[:] = 0  # the caller's own memory
    assert np.array_equal(pack.decode(), pixels)


def test_an_image_that_does_not_decode_is_named_and_leaves_no_file(pack, tmp_path, monkeypatch):
    pack, _ = pack
    monkeypatch.setattr(packs, "_KEEP", 100)
    pack.blob[pack.offsets[200] : pack.offsets[201]] = 0
    with pytest.raises(Corrupt, match="damaged"):
        pack.decode()
    assert not kept(tmp_path)
