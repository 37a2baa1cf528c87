"""`cats-generated`: cats that never lived, drawn by this project's own PGAN of AFHQ cats, 32 px.

The network is the shipped checkpoint `diamond/cats_pgan_s0`, small and trained for a hundredth of
the published length: its images are rough. The first 192 images of one random stream and the first
64 of another, not selected by anyone, ship as a lossless pack, written by

    latentpapers train diamond --pack cats_pgan --out lib/latentpapers/data/packs
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latentpapers.data import packs
from latentpapers.shapes import Bytes

if TYPE_CHECKING:
    from latentpapers.data.imageset import ImageSet
    from latentpapers.data.registry import Info

SEEDS = {"train": 0, "test": 1}
SHIPPED = {"train": 192, "test": 64}
SIZE = 32
LICENCE = "CC BY-NC 4.0, as AFHQ, whose images trained the generator"
PACK = Path(__file__).with_name("packs") / "cats_generated_256.npz"


def load(info: "Info", size: int, split: str, n: int) -> "ImageSet":
    """The first `n` cats of a split, in the order in which they were drawn.

    Raises:
        Missing, Corrupt: the pack is not as it was shipped.
    """
    from latentpapers.data.imageset import assemble

    pack = packs.read_pack(PACK)
    rows = np.flatnonzero(pack.is_test == (split == "test"))[:n]
    return assemble(info, size, split, pack.decode(rows))


def write(drawn: dict[str, Bytes], out: Path, source: str) -> Path:
    """Writes the pack.

    Args:
        drawn: split -> its images, `SHIPPED` many of `SIZE` pixels.
        out: folder.
        source: which network, and how long it was trained.
    """
    names = [f"{split}/{i:03d}.webp" for split, n in SHIPPED.items() for i in range(n)]
    pixels = (image.numpy() for split, n in SHIPPED.items() for image in drawn[split][:n])
    is_test = [name.startswith("test") for name in names]
    return packs.write_pack(
        Path(out) / PACK.name, pixels, SIZE, names=names, is_test=is_test, licence=LICENCE,
        source=source,
    )  # fmt: skip
