"""The pictures of training and evaluation, as pairs of low and high resolution."""

from torch import Tensor

from latentpapers import data
from latentpapers.errors import UserError
from latentpapers.papers.lsrgan.training import FACTOR, Training


def pairs_for(job: Training) -> tuple[list[Tensor], list[Tensor]]:
    """Training photographs and their low resolution, reduced whole (lsrgan-e38).

    Returns:
        uint8 (3, H, W) each, sides multiples of 4, and (3, H / 4, W / 4).

    Raises:
        UnknownName, Missing, Corrupt: as `data.pictures`.
    """
    found = data.pictures(job.data, "train", job.images or None)
    high = [p[:, : p.shape[1] // 4 * 4, : p.shape[2] // 4 * 4].contiguous() for p in found]
    return high, [reduced(p) for p in high]


def reduced(hr: Tensor) -> Tensor:
    """(3, H, W) -> (3, H / 4, W / 4), bytes: MATLAB's bicubic `imresize`.

    Raises:
        UserError: sides that 4 does not divide: such a picture would be stretched.
    """
    if hr.shape[1] % FACTOR or hr.shape[2] % FACTOR:
        raise UserError(f"{tuple(hr.shape[1:])} px do not divide by {FACTOR}; cut the picture.")
    size = hr.shape[1] // FACTOR, hr.shape[2] // FACTOR
    return data.imresize(hr[None], size)[0]


TITLES = {
    "set5": "Set5", "set14": "Set14", "bsd100": "BSD100", "urban100": "Urban100", "pirm": "PIRM",
    "photos": "photos",
}  # fmt: skip


def title_of_set(name: str, count: int, table: str = "") -> str:
    """How a table's column calls a test set: the paper's name, or ours where it is not whole.

    Args:
        count: pictures that were measured.
        table: Tables 1 and 2 say BSD where the others say BSD100.
    """
    whole = {"set5": 5, "set14": 14}.get(name, 100)
    if name != "photos" and count != whole:
        return f"{TITLES[name]} ({count} of {whole})"
    return "BSD" if (name, table[-1:]) in (("bsd100", "1"), ("bsd100", "2")) else TITLES[name]


_PUBLISHABLE = ("chelsea", "china", "coffee", "flower", "hubble", "rocket")  # free licences


def evaluation_pairs(name: str, *, crop: int = 208, each: int = 2) -> list[data.Pair]:
    """Pictures of a test set; for `photos` crops of the photographs inside scikit-image and
    scikit-learn, on which no shipped network was trained.

    Args:
        name: `photos`, or a super-resolution set.
        crop, each: side and number of crops a photograph; they lie evenly on its diagonal, or are
            all that fit side by side where `each` is 0. The whole photograph is reduced before it
            is cut.

    Raises:
        UnknownName, Missing, Corrupt: as `data.pairs`.
        UserError: a crop that 4 does not divide, or larger than a photograph.
    """
    if name != "photos":
        return list(data.pairs(name, FACTOR, "test"))
    out = []
    for photo, whole in data.photos().items():
        if photo in _PUBLISHABLE:
            out += _cut(photo, whole, crop, each)
    return out


def _cut(photo: str, whole: Tensor, crop: int, each: int) -> list[data.Pair]:
    hr = whole[:, : whole.shape[1] // 4 * 4, : whole.shape[2] // 4 * 4]
    if crop < FACTOR or crop % FACTOR or crop > min(hr.shape[1:]):
        raise UserError(
            f"crops of {crop} px: take a multiple of {FACTOR} that fits {tuple(hr.shape[1:])}."
        )
    lr, small, out = reduced(hr.contiguous()), crop // FACTOR, []
    for i, (top, left) in enumerate(_places(lr.shape[1], lr.shape[2], small, each)):
        high = hr[:, 4 * top : 4 * top + crop, 4 * left : 4 * left + crop]
        low = lr[:, top : top + small, left : left + small]
        out.append(data.Pair(f"{photo} {i + 1}", high.contiguous(), low.contiguous()))
    return out


def _places(height: int, width: int, side: int, each: int) -> list[tuple[int, int]]:
    """Tops and lefts of crops: `each` on the diagonal, or (0) a grid without overlap, centred."""
    if each:
        shares = [(i + 1) / (each + 1) for i in range(each)]
        return [(int(s * (height - side)), int(s * (width - side))) for s in shares]
    tops, lefts = (range(n % side // 2, n - side + 1, side) for n in (height, width))
    return [(top, left) for top in tops for left in lefts]


def photographs(pairs: list[data.Pair]) -> tuple[str, ...] | None:
    """What each picture was cut from; None where every picture is whole."""
    whole = tuple(pair.name.rpartition(" ")[0] for pair in pairs)
    return whole if all(whole) else None
