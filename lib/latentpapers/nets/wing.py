"""Where a face's parts are: the landmark network of StarGAN v2's CelebA-HQ mode, its masks, and the
similarity that puts a face into CelebA-HQ's place.

A face alignment network (Bulat and Tzimiropoulos 2017) of one hourglass with coordinate channels,
trained with the adaptive wing loss (Wang et al. 2019), gives 98 heat maps of 64 x 64 and one of
the boundary. StarGAN v2's generator keeps a source's details where these maps say
(`stargan_v2.details`). Written from the facts of the public code; tensors carry the public file's
names (`wing.ckpt`), so that it loads without renaming. Nothing here is trained.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from latentpapers.errors import UserError
from latentpapers.shapes import Images

SIDE = 256  # pixels that the network was trained on
DEPTH = 4  # halvings of the hourglass
Map = Float[Tensor, "N C H W"]
HeatMaps = Float[Tensor, "N 98 H W"]
Landmarks = Float[Tensor, "N 98 2"]


def coordinates(height: int, width: int) -> Float[Tensor, "1 3 H W"]:
    """Row, column and distance from the middle: the first two on [-1, 1], the third at most 1."""
    rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    radius = (x.square() + y.square()).sqrt()
    return torch.stack((y, x, radius / radius.max()))[None]


class CoordConv(nn.Module):
    """A convolution that is told where it is: three more channels at its input."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs + 3, outputs, kernel, stride, padding=kernel // 2)

    def forward(self, x: Map) -> Map:
        place = coordinates(*x.shape[2:]).to(x).expand(len(x), -1, -1, -1)
        return self.conv(torch.cat((x, place), 1))


class ConvBlock(nn.Module):
    """Three convolutions of a half, a quarter and a quarter of the channels, joined and added."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half, quarter = outputs // 2, outputs // 4
        for i, (a, b) in enumerate(((inputs, half), (half, quarter), (quarter, quarter)), 1):
            self.add_module(f"bn{i}", nn.BatchNorm2d(a))
            self.add_module(f"conv{i}", nn.Conv2d(a, b, 3, padding=1, bias=False))
        same = inputs == outputs
        self.downsample = nn.Identity() if same else nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False)
        )  # fmt: skip

    def forward(self, x: Map) -> Map:
        y, parts = x, []
        for i in (1, 2, 3):
            y = self.get_submodule(f"conv{i}")(F.relu(self.get_submodule(f"bn{i}")(y)))
            parts.append(y)
        return torch.cat(parts, 1) + self.downsample(x)


class Hourglass(nn.Module):
    """Four halvings and back, each level's features added on the way up; 256 channels."""

    def __init__(self, channels: int = 256) -> None:
        super().__init__()
        self.coordconv = CoordConv(channels, channels, 1)
        for level in range(DEPTH, 0, -1):
            for name in ("b1", "b2", *(("b2_plus",) if level == 1 else ()), "b3"):
                self.add_module(f"{name}_{level}", ConvBlock(channels, channels))

    def forward(self, x: Map) -> Map:
        return self._level(self.coordconv(x), DEPTH)

    def _level(self, x: Map, level: int) -> Map:
        def block(name: str, y: Map) -> Map:
            return self.get_submodule(f"{name}_{level}")(y)

        low = block("b2", F.avg_pool2d(x, 2))
        low = self._level(low, level - 1) if level > 1 else block("b2_plus", low)
        return block("b1", x) + F.interpolate(block("b3", low), scale_factor=2, mode="nearest")


class FAN(nn.Module):
    """Face images on [-1, 1] -> landmarks and masks. 6,333,603 parameters.

    Args:
        landmarks: 98 of WFLW; one more map is of the boundary.
    """

    def __init__(self, landmarks: int = 98) -> None:
        super().__init__()
        self.conv1, self.bn1 = CoordConv(3, 64, 7, stride=2), nn.BatchNorm2d(64)
        self.conv2, self.conv3 = ConvBlock(64, 128), ConvBlock(128, 128)
        self.conv4 = ConvBlock(128, 256)
        self.m0, self.top_m_0 = Hourglass(), ConvBlock(256, 256)
        self.conv_last0, self.bn_end0 = nn.Conv2d(256, 256, 1), nn.BatchNorm2d(256)
        self.l0 = nn.Conv2d(256, landmarks + 1, 1)

    def forward(self, x: Float[Tensor, "N 3 256 256"]) -> Float[Tensor, "N 99 64 64"]:
        """Heat maps of images on [0, 1], the boundary's last.

        Raises:
            UserError: another size.
        """
        if x.shape[2:] != (SIDE, SIDE):
            raise UserError(f"the landmark network takes {SIDE} px, not {tuple(x.shape[2:])}.")
        x = F.avg_pool2d(self.conv2(F.relu(self.bn1(self.conv1(x)))), 2)
        x = self.top_m_0(self.m0(self.conv4(self.conv3(x))))
        return self.l0(F.relu(self.bn_end0(self.conv_last0(x))))

    @torch.no_grad()
    def heatmaps(self, x: Images) -> HeatMaps:
        """The 98 maps of 64 x 64 of images of any size on [-1, 1]; about 1 at a landmark."""
        x = F.interpolate(x, size=SIDE, mode="bilinear", align_corners=False)
        return self((x + 1) / 2)[:, :-1]

    def landmarks(self, x: Images) -> Landmarks:
        """(column, row) of each landmark in pixels of these images; a pixel's centre is at 0.5."""
        return peaks(self.heatmaps(x)) * (x.shape[-1] / (SIDE // 4))

    def masks(self, x: Images) -> tuple[Map, Map]:
        """The two masks (N, 1, 256, 256) that the generator takes (`masks`)."""
        maps = F.interpolate(
            self.heatmaps(x), scale_factor=4.0, mode="bilinear", align_corners=True
        )
        return masks(maps)


def peaks(maps: Map) -> Float[Tensor, "N C 2"]:
    """Where each map is highest, as (column, row) with centres at 0.5, to a quarter of a pixel.

    An inner maximum moves a quarter towards its higher neighbour, in either direction.
    """
    height, width = maps.shape[2:]
    place = maps.flatten(2).argmax(2)
    row, column = place // width, place % width
    around = F.pad(maps, (1, 1, 1, 1))
    flat, wide = around.flatten(2), width + 2
    centre = ((row + 1) * wide + column + 1)[..., None]

    def slope(step: int) -> Tensor:
        higher, lower = (flat.gather(2, centre + s)[..., 0] for s in (step, -step))
        return (higher - lower).sign() / 4

    inner = (row > 0) & (row < height - 1) & (column > 0) & (column < width - 1)
    moved = torch.stack((slope(1), slope(wide)), -1) * inner[..., None]
    return (torch.stack((column, row), -1) + 0.5 + moved).to(maps)


class _Part(NamedTuple):
    """Maps of a part of the face: which, how far they move up (in 256ths), which power of them."""

    start: int
    stop: int
    up: int = 0
    power: int = 1


_PARTS = {
    "chin": _Part(8, 25, power=3), "brows": _Part(33, 51, -7, 2), "nose": _Part(52, 55, 4),
    "nostrils": _Part(55, 60, 8, 4), "upper lip": _Part(77, 82, -8, 4),
    "lower lip": _Part(83, 88, 8, 4), "inner lips": _Part(88, 96, -2, 3),
}  # fmt: skip
_EYES = slice(60, 76)
_UNUSED = [*range(8), *range(25, 33), 33, 46, 76, 82]
_NO_DETAIL = [*range(8, 25), *range(33, 51), *range(76, 96)]  # chin, brows, lips
FLOOR = 0.1  # of a heat map; what is below counts as nothing


def masks(maps: HeatMaps) -> tuple[Map, Map]:
    """Heat maps -> where a source's details are kept, on [0, 1] (authors' code).

    Each map is cut off below 0.1, stretched to [0, 1], moved to where its part's details are and
    sharpened by a power; the eyes count twice, once moved down by 24. Nothing is lost at the
    border: what leaves above comes back below.

    Args:
        maps: (N, 98, H, W), H at least 256.

    Returns:
        (N, 1, H, W) of the whole face for coarse features, and without chin, brows and mouth for
        fine ones.

    Raises:
        UserError: another number of maps, or lower ones.
    """
    if maps.shape[1] != 98 or maps.shape[2] < SIDE:
        raise UserError(f"masks need 98 maps of at least {SIDE} rows, not {tuple(maps.shape)}.")
    unit, x = maps.shape[2] // SIDE, _stretched(maps.where(maps >= FLOOR, 0.0))
    out = x.clone()
    for part in _PARTS.values():
        which = slice(part.start, part.stop)
        out[:, which] = _up(x[:, which], part.up * unit) ** part.power
    out[:, _UNUSED] = 0
    out[:, _EYES] = _up(x[:, _EYES], -8) ** 3 + _up(x[:, _EYES], -24)
    fine = out.clone()
    fine[:, _NO_DETAIL] = 0
    return out.sum(1, keepdim=True).clamp(0, 1), fine.sum(1, keepdim=True).clamp(0, 1)


def _up(x: Map, rows: int) -> Map:
    return x.roll(-rows, 2)


def _stretched(x: Map) -> Map:
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return (x - low) / (high - low + 1e-6)


# --- the place of a face ------------------------------------------------------------------------

_LEFT_EYE, _RIGHT_EYE = [*range(60, 68), 96], [*range(68, 76), 97]
_MOUTH = [76, 82]  # its corners
_SCALED_BY = [96, 97, *_MOUTH]


class MeanFace(nn.Module):
    """The mean landmarks of CelebA-HQ at 256 px (`celeba_lm_mean.npz`), as a network without a
    parameter, so that it is kept and checked like one."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(98, 2))

    def forward(self, size: int = SIDE) -> Float[Tensor, "98 2"]:
        """The landmarks in pixels of images of this size."""
        return self.mean * (size / SIDE)


def alignment(found: Landmarks, mean: Float[Tensor, "98 2"]) -> Float[Tensor, "N 2 3"]:
    """The similarity that takes each face to the mean one (authors' code, as CelebA-HQ's).

    Its turn makes the faces' horizontal axes parallel, its scale is the mean over eyes and corners
    of the mouth of how far they lie from the face's centre, its shift joins the centres.

    Args:
        found, mean: (column, row) in pixels.

    Returns:
        A of A (x, y, 1)^T, from places of the image to places of the aligned one.
    """
    u, v = _axis(found), _axis(mean[None])
    cosine = (u * v).sum(1)
    sine = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    centre, middle = found.mean(1, keepdim=True), mean.mean(0, keepdim=True)
    far = (mean - middle)[_SCALED_BY].norm(dim=-1)
    scale = (far / (found - centre)[:, _SCALED_BY].norm(dim=-1)).mean(1)
    turn = torch.stack((cosine, -sine, sine, cosine), 1).view(-1, 2, 2)
    linear = scale[:, None, None] * turn
    shift = middle[..., None] - linear @ centre.transpose(1, 2)
    return torch.cat((linear, shift), 2)


def aligned(x: Images, matrix: Float[Tensor, "N 2 3"], size: int | None = None) -> Images:
    """The images moved by `alignment`; beyond their border they are mirrored.

    Bilinear; the authors' code takes a Lanczos kernel and blurs what it mirrors.

    Args:
        size: pixels a side of the result; None keeps them.
    """
    side = size or x.shape[-1]
    line = torch.arange(side, dtype=x.dtype, device=x.device) + 0.5
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    wanted = torch.stack((columns, rows), -1).view(1, -1, 2) - matrix[:, None, :, 2].to(x)
    place = wanted @ torch.linalg.inv(matrix[:, :, :2].to(x)).transpose(1, 2)
    grid = (2 / x.shape[-1] * place - 1).view(len(x), side, side, 2)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def _axis(found: Landmarks) -> Float[Tensor, "N 2"]:
    """A face's horizontal direction: eye to eye, and at right angles to mouth to eyes."""
    left, right = found[:, _LEFT_EYE].mean(1), found[:, _RIGHT_EYE].mean(1)
    upward = (left + right) / 2 - found[:, _MOUTH].mean(1)
    across = right - left - torch.stack((upward[:, 1], -upward[:, 0]), 1)
    return across / across.norm(dim=1, keepdim=True)
