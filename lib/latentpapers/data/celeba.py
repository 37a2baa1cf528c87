"""CelebA (aligned, 218 x 178) in the crop of each paper, and CelebA-HQ. Real people: not published.

`celeba`: BEGAN's crop (rows 50 to 178, columns 25 to 153), 64 px by taking every second pixel as
BEGAN-tensorflow does; AVAE says only "aligned and cropped". `celeba-lag`: LAG's 158 x 158 (30 rows
off top and bottom, 10 columns off both sides), averaged over areas; it trains on the official
partitions 0 and 1. `celeba-pgan`: 64 pixels around (89, 121), as in the PGAN of GAN zoo, averaged.

torchvision reads the lists (and knows their MD5); the SHA-256 are those of TensorFlow Datasets.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latentpapers.data import downloads, folders, imagefiles
from latentpapers.data.downloads import Source
from latentpapers.data.entry import Entry, Info, table
from latentpapers.errors import Corrupt
from latentpapers.transfer import DRIVE

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from latentpapers.data.imageset import ImageSet

_LICENCE = "non-commercial research only; the photographs belong to their owners"
_PAGE = "mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
_IMAGES = "celeba/img_align_celeba"
PARTITION = {"train": ("train",), "valid": ("valid",), "test": ("test",)}
COUNTS = {"train": 162_770, "valid": 19_867, "test": 19_962}


def _list(file: str, drive: str, size: int, md5: str, sha256: str = "") -> Source:
    return Source(f"celeba/{file}", (DRIVE + drive,), size, _LICENCE, _PAGE, sha256, md5)


SOURCES = (
    Source(
        file="celeba/img_align_celeba.zip",
        urls=(f"{DRIVE}0B7EVK8r0v71pZjFTYXZWM3FlRnM",),
        size=1_443_490_838,
        licence=_LICENCE,
        page=_PAGE,
        sha256="46fb89443c578308acf364d7d379fe1b9efb793042c0af734b6112e4fd3a8c74",
        md5="00d2c5bc6d35e252742224ab0c1e8fcb",
        folder=_IMAGES,
    ),
    _list(
        "list_attr_celeba.txt", "0B7EVK8r0v71pblRyaVFSWGxPY0U", 26_721_026,
        "75e246fa4810816ffd6ee81facbd244c",
        "f0e5da289d5ccf75ffe8811132694922b60f2af59256ed362afa03fefba324d0",
    ),
    _list(
        "list_eval_partition.txt", "0B7EVK8r0v71pY0NSMzRuSXJEVkk", 2_836_386,
        "d32c9cbf5e040fd4025c592c306e6668",
        "fc955bcb3ef8fbdf7d5640d9a8693a8431b5f2ee291a5c1449a1549e7e073fe7",
    ),
    _list(
        "list_landmarks_align_celeba.txt", "0B7EVK8r0v71pd0FJY3Blby1HUTQ", 12_156_055,
        "cc24ecafdb5b50baae59b03474781f8c",
        "6c02a87569907f6db2ba99019085697596730e8129f67a3d61659f198c48d43b",
    ),
    _list(
        "identity_CelebA.txt", "1_ee_0u7vcNLOfNLegJRHmolfH5ICW-XS", 3_424_458,
        "32bd1bd63d3c78cd57e08160ec5ed1e2",
    ),
    _list(
        "list_bbox_celeba.txt", "0B7EVK8r0v71pbThiMVRxWXZ4dU0", 6_082_035,
        "00566efa6fedff7a56946cd1c10f1c16",
    ),
)  # fmt: skip


def began(image: "Image", size: int, name: object) -> np.ndarray:
    """BEGAN's 128 x 128; smaller sizes take every second pixel, fourth, ... (nearest).

    Args:
        image: aligned, 178 wide, 218 high.
        size: 128 or 64.

    Raises:
        UserError: the image is smaller than the crop.
    """
    pixels = imagefiles.to_array(imagefiles.crop(image, (25, 50, 153, 178), name))
    return pixels[:, :: 128 // size, :: 128 // size]


def lag(image: "Image", size: int, name: object) -> np.ndarray:
    """LAG's 158 x 158, averaged over areas to `size`; see `began` for arguments."""
    return imagefiles.area(
        imagefiles.to_array(imagefiles.crop(image, (10, 30, 168, 188), name)), size, size
    )


def pgan(image: "Image", size: int, name: object) -> np.ndarray:
    """64 pixels around (x 89, y 121), averaged over areas to `size`; see `began` for arguments."""
    return imagefiles.area(
        imagefiles.to_array(imagefiles.crop(image, (25, 57, 153, 185), name)), size, size
    )


Cut = Callable[["Image", int, object], np.ndarray]


def _load(
    info: Info, size: int, split: str, n: int, parts: tuple[str, ...], cut: Cut
) -> "ImageSet":
    from latentpapers.data.imageset import assemble

    base = folders.root(info.name, SOURCES)
    names, attributes, attribute_names = _lists(info.name, base, parts)

    def make(count: int) -> np.ndarray:
        def one(file: Path) -> np.ndarray:
            return cut(imagefiles.open_image(file), size, file)

        return imagefiles.stack([base / name for name in names[:count]], count, one, size)

    mark = downloads.mark(base)
    pixels = folders.decoded(info, size, split, mark, n, len(names), make)
    return assemble(
        info,
        size,
        split,
        np.array(pixels),
        attributes=attributes[:n],
        attribute_names=attribute_names,
    )


def _lists(
    name: str, base: Path, parts: tuple[str, ...]
) -> "tuple[list[str], Tensor, tuple[str, ...]]":
    """File names, attributes (N, 40) bool and their names, in the order of the official list."""
    import torch
    from torchvision.datasets import CelebA

    try:
        found = [CelebA(str(base.parent.parent), split=part) for part in parts]
    except (RuntimeError, OSError, ValueError, IndexError) as error:
        lists = ", ".join(Path(s.file).name for s in SOURCES[1:])
        raise Corrupt(
            f"the lists of CelebA in {base.parent} are absent or not the published ones; remove "
            f"{lists}, then `latentpapers data fetch {name}`."
        ) from error
    files = [file for part in found for file in part.filename]
    attributes = torch.cat([part.attr for part in found]).bool()
    return files, attributes, tuple(filter(None, found[0].attr_names))


def _entry(
    name: str, what: str, sizes: tuple[int, ...], cut: Cut, splits: dict[str, tuple[str, ...]]
) -> Entry:
    counts = {split: sum(COUNTS[part] for part in parts) for split, parts in splits.items()}
    info = Info(
        name=name,
        what=f"CelebA, aligned, {what}, 40 attributes",
        sizes=sizes,
        channels=3,
        counts=counts,
        default=counts,
        licence=_LICENCE,
        source="CelebA (Liu et al. 2015)",
        needs=f"`latentpapers data fetch {name}`",
        publishable=False,
        download=sum(source.size for source in SOURCES),
    )

    def load(info: Info, size: int, split: str, n: int) -> "ImageSet":
        return _load(info, size, split, n, splits[split], cut)

    return Entry(
        info,
        parts=lambda split, n: [
            *folders.code(), *(s.sha256 or s.md5 for s in SOURCES),
            downloads.mark(folders.root(name, SOURCES)),
        ],
        load=load,
        fetch=lambda dest: downloads.bring(name, SOURCES, dest),
        files=lambda: [p for p in map(downloads.present, SOURCES) if p],
        verify=lambda: downloads.verify(SOURCES, name),
    )  # fmt: skip


HQ = Source(
    file="celeba_hq.zip",
    urls=("https://www.dropbox.com/s/f7pvjij2xlpff59/celeba_hq.zip?dl=1",),
    size=2_700_000_000,
    licence=_LICENCE,
    page="github.com/clovaai/stargan-v2",
    sha256="f56b0d8c505aa01ec4792f8ee2fc2ca128e2cc669277438c0b27d5d69b7e4514",
    folder="celeba_hq",
)


def _hq() -> Entry:
    counts = {"train": 28_000, "test": 2_000}
    info = Info(
        name="celeba-hq",
        what="CelebA-HQ as StarGAN v2 splits it, classes female and male",
        sizes=(16, 32, 64, 128, 256, 512, 1024),
        channels=3,
        counts=counts,
        default=counts,
        licence=_LICENCE,
        source="CelebA-HQ (Karras et al. 2018), copy of StarGAN v2",
        needs="`latentpapers data fetch celeba-hq`",
        publishable=False,
        download=HQ.size,
    )
    splits = {"train": ("train",), "test": ("val", "test")}
    where = folders.Folders((HQ,), splits, folders.bilinear, classes=("female", "male"))
    return folders.entry(info, where)


ENTRIES = table(
    _entry("celeba", "BEGAN's crop", (64, 128), began, PARTITION),
    _entry(
        "celeba-lag", "LAG's 158 px crop", (16, 32, 64, 128), lag,
        {"train": ("train", "valid"), "test": ("test",)},
    ),
    _entry("celeba-pgan", "PGAN's 128 px crop", (16, 32, 64, 128), pgan, PARTITION),
    _hq(),
)  # fmt: skip
