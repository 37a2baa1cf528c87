"""The landmark network, its masks and the alignment, each beside a plain way of saying the same."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from latentpapers.errors import UserError
from latentpapers.nets import stargan_v2, wing


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def faces(n, seed=0):
    """Landmarks of a face that stands upright, disturbed a little: eyes above, mouth below."""
    g = torch.Generator().manual_seed(seed)
    points = 256 * torch.rand(n, 98, 2, generator=g, dtype=torch.float64)
    for which, place in (([*range(60, 68), 96], (90, 110)), ([*range(68, 76), 97], (166, 110)),
                         ([76], (100, 190)), ([82], (156, 190))):  # fmt: skip
        offset = 4 * torch.rand(n, len(which), 2, generator=g, dtype=torch.float64)
        points[:, which] = torch.tensor(place, dtype=torch.float64) + offset
    return points


# --- the network ------------------------------------------------------------------------------


def test_count_by_arithmetic():
    """Layer by layer; batch norms have two parameters a channel."""

    def block(a, b):
        convs = 9 * (a * b // 2 + b // 2 * b // 4 + (b // 4) ** 2)
        return convs + 2 * (a + b // 2 + b // 4) + (a * b + 2 * a if a != b else 0)

    first = 49 * 6 * 64 + 64 + 2 * 64
    glass = 259 * 256 + 256 + 13 * block(256, 256)
    last = block(256, 256) + 256 * 256 + 256 + 2 * 256 + 257 * 99
    total = first + block(64, 128) + block(128, 128) + block(128, 256) + glass + last
    with torch.device("meta"):
        net = wing.FAN()
    assert sum(p.numel() for p in net.parameters()) == total == 6_333_603
    assert "6,333,603" in wing.FAN.__doc__


def test_names_of_the_public_file():
    with torch.device("meta"):
        keys = set(wing.FAN().state_dict())
    assert {"conv1.conv.weight", "conv2.downsample.2.weight", "m0.coordconv.conv.bias",
            "m0.b2_plus_1.bn3.running_var", "m0.b3_4.conv1.weight", "top_m_0.conv3.weight",
            "conv_last0.bias", "bn_end0.weight", "l0.weight"} <= keys  # fmt: skip
    assert not any("coordinates" in key for key in keys)


def test_coordinates():
    place = wing.coordinates(5, 3)[0]
    torch.testing.assert_close(place[0, :, 0], torch.tensor([-1, -0.5, 0, 0.5, 1]))
    torch.testing.assert_close(place[1, 0], torch.tensor([-1.0, 0, 1]))
    assert place[2].max() == 1  # corners
    assert place[2, 2, 1] == 0  # middle
    torch.testing.assert_close(place[2, 0, 1], torch.tensor(1 / math.sqrt(2)))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return wing.FAN().eval()


def test_shapes_and_sizes(net):
    x = torch.rand(1, 3, 128, 128) * 2 - 1
    maps = net.heatmaps(x)
    assert maps.shape == (1, 98, 64, 64)
    assert not maps.requires_grad
    wide = F.interpolate(x, size=256, mode="bilinear")
    torch.testing.assert_close(maps, net((wide + 1) / 2)[:, :-1].detach())
    whole, fine = net.masks(x)
    assert whole.shape == fine.shape == (1, 1, 256, 256)
    assert (whole >= fine).all()  # parts are only taken away
    torch.testing.assert_close(net.landmarks(x), 2 * wing.peaks(maps))
    with pytest.raises(UserError, match="256 px"):
        net(x)


def test_masks_of_the_landmarks_steer_the_generator_of_the_celeba_hq_mode(net):
    """The whole path of `w_hpf 1`: heat maps, masks, high-passed skips, an image."""
    torch.manual_seed(0)
    make = stargan_v2.Generator(64, width=4, cap=8, style=6, high_pass=1.0).eval()
    x, style = torch.rand(1, 3, 64, 64) * 2 - 1, torch.randn(1, 6)
    masks = net.masks(x)
    out, bare = make(x, style, masks), make(x, style)
    assert out.shape == x.shape
    assert (out - bare).abs().max() > 1e-4
    style.requires_grad_()
    (slope,) = torch.autograd.grad(make(x, style, masks).square().mean(), style)
    assert slope.abs().max() > 0
    empty = tuple(torch.zeros_like(m) for m in masks)  # control: nothing passes
    torch.testing.assert_close(make(x, style, empty), bare)


def test_a_block_joins_its_three_stages():
    torch.manual_seed(0)
    block, x = wing.ConvBlock(8, 8).double().eval(), draw(2, 8, 4, 4)
    one = F.conv2d(F.relu(x), block.conv1.weight, padding=1) / math.sqrt(1 + 1e-5)
    assert block(x).shape == x.shape
    # batch norm at its start divides by sqrt(1 + 1e-5)
    torch.testing.assert_close(block(x)[:, :4], one + x[:, :4])


# --- peaks ------------------------------------------------------------------------------------


def test_peaks_of_round_hills():
    """A hill off the middle of its pixel is found a quarter towards it."""
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    places = torch.tensor([[10.75, 20.25], [33.6, 5.9], [50.4, 60.2]], dtype=torch.float64)
    maps = torch.stack(
        [
            torch.exp(-((columns.double() + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2) / 8)
            for x, y in places
        ]
    )[None]
    found = wing.peaks(maps)[0]
    torch.testing.assert_close(found[0], places[0])  # exactly a quarter off
    # at most a quarter of a pixel wrong anywhere, where rounding alone may be a half
    assert (found - places).abs().max() <= 0.25


def test_peaks_at_the_border_stay():
    maps = torch.zeros(1, 2, 8, 8)
    maps[0, 0, 0, 3] = maps[0, 1, 7, 7] = 1.0
    maps[0, 0, 0, 4] = 0.5
    assert wing.peaks(maps).tolist() == [[[3.5, 0.5], [7.5, 7.5]]]


# --- masks ------------------------------------------------------------------------------------


def plain_masks(maps):
    """Map by map, in numpy: (moved up by, power) of each kept map, the eyes as the sum of two."""
    moves = {**dict.fromkeys(range(8, 25), (0, 3)), **dict.fromkeys(range(33, 51), (-7, 2)),
             51: (0, 1), **dict.fromkeys(range(52, 55), (4, 1)),
             **dict.fromkeys(range(55, 60), (8, 4)), **dict.fromkeys(range(77, 82), (-8, 4)),
             **dict.fromkeys(range(83, 88), (8, 4)), **dict.fromkeys(range(88, 96), (-2, 3)),
             96: (0, 1), 97: (0, 1)}  # fmt: skip
    whole, fine = np.zeros(maps.shape[1:]), np.zeros(maps.shape[1:])
    for i, raw in enumerate(maps):
        kept = np.where(raw < 0.1, 0, raw)
        kept = (kept - kept.min()) / (kept.max() - kept.min() + 1e-6)
        if i in (33, 46):
            continue
        if 60 <= i < 76:
            part = np.roll(kept, 8, 0) ** 3 + np.roll(kept, 24, 0)
        elif i in moves:
            part = np.roll(kept, -moves[i][0], 0) ** moves[i][1]
        else:
            continue
        whole += part
        if not (8 <= i < 25 or 33 <= i < 51 or 76 <= i < 96):
            fine += part
    return whole.clip(0, 1), fine.clip(0, 1)


def test_masks_map_by_map():
    maps = torch.rand(1, 98, 256, 256, generator=torch.Generator().manual_seed(0)).double() ** 40
    maps[0, 60] = 0  # a landmark that is nowhere
    before = maps.clone()
    got, want = wing.masks(maps), plain_masks(maps[0].numpy())
    assert torch.equal(maps, before)
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours[0, 0], torch.from_numpy(theirs))
        assert 0 < (ours > 0.1).double().mean() < 1
    assert (got[0] - got[1]).abs().max() > 0.5  # control: the two differ
    for bad in (maps[:, :97], maps[:, :, :128]):
        with pytest.raises(UserError, match="98 maps"):
            wing.masks(bad)


# --- alignment --------------------------------------------------------------------------------


def similarity(angle, scale, shift):
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    return torch.tensor([[c, -s, shift[0]], [s, c, shift[1]]], dtype=torch.float64)


def moved(points, a):
    return points @ a[:, :2].T + a[:, 2]


@pytest.mark.parametrize("angle", [0.0, 0.5, -2.0, math.pi])
def test_a_moved_face_is_moved_back(angle):
    mean = faces(1)[0]
    a = similarity(angle, 1.7, (30.0, -12.0))
    back = wing.alignment(moved(mean, a)[None], mean)[0]
    torch.testing.assert_close(moved(moved(mean, a), back), mean)
    # control: a stretched face is no similarity of the mean, so it does not come back
    stretched = mean * torch.tensor([1.5, 1.0])
    back = wing.alignment(stretched[None], mean)[0]
    assert (moved(stretched, back) - mean).abs().max() > 1


def test_aligned_images_show_what_was_there():
    """A tilted plane of grey: its value at a place is known exactly, bilinear or not."""

    def plane(place):
        return 0.3 * place[..., 0] - 0.2 * place[..., 1]

    line = torch.arange(32, dtype=torch.float64) + 0.5
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    places = torch.stack((columns, rows), -1)
    x = plane(places)[None, None]
    a = similarity(0.3, 1.6, (-6.0, -13.0))  # looks at the inside alone
    source = (places.view(-1, 2) - a[:, 2]) @ torch.linalg.inv(a[:, :2]).T
    inside = ((source > 1) & (source < 31)).all(1)
    assert inside.double().mean() > 0.5
    got = wing.aligned(x, a[None]).flatten()
    torch.testing.assert_close(got[inside], plane(source)[inside])
    assert wing.aligned(x, a[None], 16).shape == (1, 1, 16, 16)


def test_the_mean_face_grows_with_the_image():
    face = wing.MeanFace()
    face.mean.copy_(faces(1)[0])
    torch.testing.assert_close(face(512), 2 * face())
    assert list(face.state_dict()) == ["mean"]
