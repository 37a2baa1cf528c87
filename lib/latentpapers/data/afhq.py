"""AFHQ: 512 px faces of cats, dogs and wild animals, versions 1 and 2 (StarGAN v2's authors).

Official splits: `train`, and `val` (v1) or `test` (v2), which is `test` here. Reduced by Pillow's
bilinear filter to the size asked for, as StarGAN v2 and LRC-I2I do. The SHA-256 of v1 is the one
that UVCGAN2's download script publishes; none is known for v2, whose first copy is trusted.
"""

from latentpapers.data.downloads import Source
from latentpapers.data.entry import Entry, Info, table
from latentpapers.data.folders import Folders, bilinear, entry

_LICENCE = "CC BY-NC 4.0 (NAVER)"
_PAGE = "github.com/clovaai/stargan-v2"
_BOX = "https://www.dropbox.com/s"

V1 = Source(
    file="afhq.zip",
    urls=(f"{_BOX}/t9l9o3vsx2jai3z/afhq.zip?dl=1",),
    size=729_484_677,
    licence=_LICENCE,
    page=_PAGE,
    sha256="7f63dcc14ef58c0e849b59091287e1844da97016073aac20403ae6c6132b950f",
    folder="afhq",
)
V2 = Source(
    file="afhq_v2.zip",
    urls=(f"{_BOX}/vkzjokiwof5h8w6/afhq_v2.zip?dl=1",),
    size=6_960_000_000,
    licence=_LICENCE,
    page=_PAGE,
    folder="afhq_v2",
)
# train, test of each kind: the files of the authors' archives
COUNTS = {
    1: {"cat": (5153, 500), "dog": (4739, 500), "wild": (4738, 500)},
    2: {"cat": (5065, 493), "dog": (4678, 491), "wild": (4593, 483)},
}
SIZES = (16, 32, 64, 128, 256, 512)


def _entry(version: int, kind: str) -> Entry:
    source = V1 if version == 1 else V2
    name = f"afhq-{kind}" if version == 1 else f"afhq-v2-{kind}"
    counts = dict(zip(("train", "test"), COUNTS[version][kind]))
    info = Info(
        name=name,
        what=f"Animal Faces-HQ v{version}, {kind}, aligned, 512 px",
        sizes=SIZES,
        channels=3,
        counts=counts,
        default=counts,
        licence=_LICENCE,
        source="StarGAN v2 (Choi et al. 2020)",
        needs=f"`latentpapers data fetch {name}`",
        download=source.size,
    )
    splits = {"train": (f"train/{kind}",), "test": (f"val/{kind}", f"test/{kind}")}
    return entry(info, Folders((source,), splits, bilinear))


ENTRIES = table(*(_entry(v, kind) for v in COUNTS for kind in COUNTS[v]))
"""afhq-cat, afhq-dog, afhq-wild and the same of version 2."""
