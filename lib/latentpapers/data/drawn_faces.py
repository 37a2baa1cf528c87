"""Drawn faces: a differentiable renderer whose every factor is known and continuous.

Photographs of faces have no ground truth for pose, age or hair; these drawings have one, so the
distance travelled in a factor, or the attribute that a traversal changes, can be measured exactly
(the attributes bald, black hair and pale skin are those of "Diamond in the rough", figure 8).

How a face is drawn. Every outline is the zero set of a field `column(x) + row(y)`: ellipses,
shapes of the form `x^2 < profile(y)` and curves `y < curve(x)` all have it, and intersections are
products. So a mask costs one broadcast addition and one sigmoid, and shapes are evaluated in
batches. The sigmoid's width is a fixed part of a pixel: an image at 64 px is close to the area
average of the one at 128 px, and the gradient with respect to every factor is smooth. Layers are
painted back to front; features that stay inside a band of rows are painted on that band alone.
"""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from latentpapers import seeds
from latentpapers.shapes import Images

if TYPE_CHECKING:
    from latentpapers.data.imageset import ImageSet
    from latentpapers.data.registry import Info

FACTORS = (
    "yaw",
    "pitch",
    "face_width",
    "face_height",
    "jaw",
    "skin_tone",
    "hair_colour",
    "hair_length",
    "hair_volume",
    "fringe",
    "eye_size",
    "eye_spacing",
    "eye_colour",
    "brow_thickness",
    "brow_tilt",
    "nose_length",
    "mouth_width",
    "smile",
    "mouth_open",
    "lip_fullness",
    "blush",
    "glasses",
    "beard",
    "hat",
    "background",
    "clothes",
    "light",
)
"""Names of the factors, in the order of the columns; each lives in [0, 1].

yaw 0 looks to the image's left, 1 to its right; pitch 0 looks up; jaw 1 is a pointed chin;
skin_tone 0 is pale; hair_colour runs from black over brown, red and blond to grey; hair_volume 0
is bald; fringe 1 is a low hairline; brow_tilt 1 lowers the inner ends; light 0 comes from the
left. glasses, beard and hat are opacities. background and clothes are hues.
"""

_RULES: dict[str, tuple[tuple[str, str, float], ...]] = {
    "bald": (("hair_volume", "<", 0.12),),
    "black_hair": (("hair_colour", "<", 0.25), ("hair_volume", ">=", 0.12)),
    "blond_hair": (
        ("hair_colour", ">=", 0.65),
        ("hair_colour", "<", 0.85),
        ("hair_volume", ">=", 0.12),
    ),
    "grey_hair": (("hair_colour", ">=", 0.85), ("hair_volume", ">=", 0.12)),
    "long_hair": (("hair_length", ">=", 0.6), ("hair_volume", ">=", 0.12)),
    "fringe": (("fringe", ">=", 0.7), ("hair_volume", ">=", 0.12)),
    "pale_skin": (("skin_tone", "<", 0.15),),
    "glasses": (("glasses", ">=", 0.5),),
    "smiling": (("smile", ">=", 0.6),),
    "mouth_open": (("mouth_open", ">=", 0.5),),
    "beard": (("beard", ">=", 0.5),),
    "hat": (("hat", ">=", 0.5),),
    "thick_brows": (("brow_thickness", ">=", 0.7),),
    "big_eyes": (("eye_size", ">=", 0.7),),
    "pointed_chin": (("jaw", ">=", 0.7),),
    "rosy_cheeks": (("blush", ">=", 0.7),),
    "looking_left": (("yaw", "<", 0.3),),
}
"""Attribute -> the conditions on factors that all have to hold."""

ATTRIBUTES = tuple(_RULES)

SEEDS = {"train": 0, "test": 1}
"""The stream of factors behind each split of the data set `drawn-faces`."""

# How each factor is sampled: "flat" uniform, "bell" mean of two uniforms (around 0.5),
# ("switch", p): with probability p in [0.9, 1], else in [0, 0.03]; ("skew", k): u ** k;
# ("off", p): with probability p in [0, 0.08], else uniform in [0.25, 1].
_LAWS: dict[str, tuple[str, float]] = {
    "yaw": ("bell", 0),
    "pitch": ("bell", 0),
    "face_width": ("bell", 0),
    "face_height": ("bell", 0),
    "jaw": ("flat", 0),
    "skin_tone": ("flat", 0),
    "hair_colour": ("skew", 1.3),
    "hair_volume": ("off", 0.08),
    "eye_size": ("bell", 0),
    "eye_spacing": ("bell", 0),
    "brow_tilt": ("bell", 0),
    "mouth_open": ("skew", 2.2),
    "glasses": ("switch", 0.18),
    "beard": ("switch", 0.15),
    "hat": ("switch", 0.10),
}

_PLAN = 256  # images whose one-dimensional parts are computed at once
_BLOCK = 16  # images painted at once: the working set stays inside a core's cache
_DRAW = 1024  # factors are drawn in whole blocks, so that row i does not depend on n
_FAR = -16.0  # masks end at 1e-7: products of smaller ones are denormal, and slow
_EDGE = 0.5  # width of the sigmoid edge, in pixels

# Rows (in image coordinates) that the features can reach for any factors; checked by a test.
_ALL_ROWS = (-1.0, 1.0)
_BACK_ROWS = (-0.8125, 1.0)
_BUST_ROWS = (0.25, 1.0)
_HEAD_ROWS = (-0.75, 1.0)
_MOUTH_ROWS = (-0.1875, 0.8125)
_EYE_ROWS = (-0.5625, 0.375)
_FRINGE_ROWS = (-0.8125, 0.875)
_HAT_ROWS = (-1.0, 0.125)


# Control colours of the Bézier curves that skin, hair and iris follow.
_SKIN = (
    (1.00, 0.91, 0.85),
    (0.98, 0.78, 0.62),
    (0.82, 0.56, 0.40),
    (0.54, 0.34, 0.23),
    (0.34, 0.21, 0.16),
)
_HAIR = (
    (0.05, 0.05, 0.07),
    (0.13, 0.06, 0.03),
    (0.72, 0.16, 0.02),
    (1.00, 0.84, 0.22),
    (0.92, 0.92, 0.95),
)
_EYES = ((0.24, 0.12, 0.05), (0.52, 0.34, 0.08), (0.16, 0.58, 0.28), (0.20, 0.48, 0.86))

_Field = tuple[Tensor, Tensor]


def render(factors: Float[Tensor, "N F"], size: int) -> Images:
    """Draws one face for each row of factors.

    Args:
        factors: (N, 27), columns named by `FACTORS`, values in [0, 1], any float type; the
            drawing is differentiable with respect to them.
        size: height and width in pixels, 16 to 1024.

    Returns:
        (N, 3, size, size), values in [-1, 1], type and device of `factors`.

    Raises:
        ValueError: another number of columns, values outside [0, 1], or another size.
    """
    _checked(factors, size)
    images = [image for part in factors.split(_PLAN) for image in _images(part, size)]
    return torch.cat(images) if len(factors) else factors.new_zeros(0, 3, size, size)


def load(info: "Info", size: int, split: str, n: int) -> "ImageSet":
    """The first `n` faces of a split, with their factors and attributes.

    Faces are drawn in whole plans, beyond `n` if need be: vectorised code may round the last
    elements of an odd-sized tensor differently, and image i must not depend on n.
    """
    from latentpapers.data.imageset import assemble, to_bytes

    factors = sample_factors(_PLAN * math.ceil(n / _PLAN), SEEDS[split])
    with torch.no_grad():
        pixels = torch.cat([to_bytes(render(part, size)) for part in factors.split(_PLAN)])[:n]
    factors = factors[:n].clone()
    return assemble(
        info,
        size,
        split,
        pixels.clone(),
        attributes=attributes(factors),
        attribute_names=ATTRIBUTES,
        factors=factors,
        factor_names=FACTORS,
    )


def attributes(factors: Float[Tensor, "N F"]) -> Bool[Tensor, "N A"]:
    """The binary attributes of faces, columns named by `ATTRIBUTES`, by fixed thresholds.

    Args:
        factors: (N, 27) in [0, 1].

    Returns:
        (N, 17); column k is true where all conditions of that attribute's rule hold.
    """
    _checked(factors, 64)
    column = dict(zip(FACTORS, factors.detach().unbind(1)))
    return torch.stack([_holds(rule, column) for rule in _RULES.values()], dim=1)


def rule(attribute: str) -> str:
    """The rule of an attribute in words, such as `hair_volume < 0.12`."""
    return " and ".join(f"{name} {sign} {bound:g}" for name, sign, bound in _RULES[attribute])


def sample_factors(n: int, seed: int) -> Float[Tensor, "N F"]:
    """Independent factors of `n` faces; row i depends on (seed, i) alone, not on n.

    Glasses (18 %), beards (15 %), hats (10 %) and bald heads (8 %) are the rarer attributes.

    Returns:
        (n, 27) float32 in [0, 1].
    """
    blocks = [
        torch.rand(_DRAW, len(FACTORS), 2, generator=seeds.generator(seed, "drawn-faces", k))
        for k in range(math.ceil(n / _DRAW))
    ]
    u = torch.cat([torch.empty(0, len(FACTORS), 2), *blocks])[:n]
    return torch.stack([_law(name, *u[:, k].unbind(1)) for k, name in enumerate(FACTORS)], dim=1)


def _law(name: str, u: Tensor, v: Tensor) -> Tensor:
    kind, p = _LAWS.get(name, ("flat", 0))
    if kind == "bell":
        return (u + v) / 2
    if kind == "skew":
        return u**p
    if kind == "switch":
        return torch.where(v < p, 0.9 + 0.1 * u, 0.03 * u)
    if kind == "off":
        return torch.where(v < p, 0.08 * u, 0.25 + 0.75 * u)
    return u


def _holds(conditions: tuple[tuple[str, str, float], ...], column: dict[str, Tensor]) -> Tensor:
    tests = [
        column[name] < bound if sign == "<" else column[name] >= bound
        for name, sign, bound in conditions
    ]
    return torch.stack(tests).all(0)


def _checked(factors: Tensor, size: int) -> None:
    if factors.ndim != 2 or factors.shape[1] != len(FACTORS):
        raise ValueError(f"factors are (N, {len(FACTORS)}), not {tuple(factors.shape)}.")
    if not factors.is_floating_point():
        raise ValueError(f"factors are floating point, not {factors.dtype}.")
    if not 16 <= size <= 1024:
        raise ValueError(f"the size is 16 to 1024 pixels, not {size}.")
    if factors.numel() and not bool(((factors >= 0) & (factors <= 1)).all()):
        raise ValueError("factors lie in [0, 1]; clamp them, or optimise them through a sigmoid.")


# --- plan and paint ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layer:
    """One colour through one mask: the product of named shapes and of a column and a row part."""

    colour: Tensor
    shapes: tuple[str, ...]
    column: Tensor | None
    row: Tensor | None


@dataclass(frozen=True)
class _Band:
    """A band of rows: its coordinates in [-1, 1] (x right, y down), shapes and layers.

    `sharp` is the sigmoid's steepness per unit of distance.
    """

    x: Tensor
    y: Tensor
    rows: slice
    sharp: float
    fields: dict[str, _Field] = field(default_factory=dict)
    layers: list[_Layer] = field(default_factory=list)

    def shapes(self, **fields: _Field) -> None:
        """Adds shapes; all of a band are evaluated together."""
        self.fields.update(fields)

    def paint(
        self, colour: Tensor, *shapes: str, column: Tensor | None = None, row: Tensor | None = None
    ) -> None:
        """Adds a layer on top; `row` may be an opacity (N, 1, 1)."""
        self.layers.append(_Layer(colour, shapes, column, row))


@dataclass(frozen=True)
class _Face:
    """Geometry shared by the layers, each entry (N, 1, 1)."""

    f: dict[str, Tensor]
    turn: Tensor
    hx: Tensor
    hy: Tensor
    a: Tensor
    b: Tensor
    fx: Tensor
    fy: Tensor
    eye_y: Tensor
    eye_l: Tensor
    eye_r: Tensor
    hair: Tensor


def _images(factors: Tensor, size: int) -> list[Tensor]:
    """Paints the faces of one plan, block by block."""
    face = _face(factors)
    plan = [
        (draw, _band(factors, size, rows))
        for draw, rows in (
            (_back_hair, _BACK_ROWS),
            (_bust, _BUST_ROWS),
            (_head, _HEAD_ROWS),
            (_mouth, _MOUTH_ROWS),
            (_eyes, _EYE_ROWS),
            (_fringe, _FRINGE_ROWS),
            (_hat, _HAT_ROWS),
        )
    ]
    for draw, band in plan:
        draw(band, face)
    stacks = [(band, *_stacked(band, len(factors))) for _, band in plan]
    full = _band(factors, size, _ALL_ROWS)
    base, light = _background(full, face), _shading(full, face)
    images, scratch = [], factors.new_empty(0)
    for start in range(0, len(factors), _BLOCK):
        part = slice(start, start + _BLOCK)
        colour, ramp_x, ramp_y = (t[part] for t in base)
        image = colour * torch.addcmul(torch.full_like(ramp_y, 0.8), ramp_x, ramp_y).unsqueeze(1)
        for band, columns, rows in stacks:
            image = _painted(image, band, columns[:, part], rows[:, part], part, scratch)
        images.append(torch.addcmul(image.new_full((1,), -1.0), image, _sum(light, part)))
    return images


def _painted(
    image: Tensor, band: _Band, columns: Tensor, rows: Tensor, part: slice, scratch: Tensor
) -> Tensor:
    """`image` with the band's layers on it; in place when no gradient is recorded."""
    record = torch.is_grad_enabled()
    shape = (*columns.shape[:2], rows.shape[2], columns.shape[3])
    if record:
        fields = columns + rows
    else:  # fresh megabytes for every block would cost more than the arithmetic
        fields = scratch.resize_(max(math.prod(shape), scratch.numel()))[: math.prod(shape)]
        fields = torch.add(columns, rows, out=fields.view(shape))
    masks = dict(zip(band.fields, fields.clamp_(min=_FAR).sigmoid_().unbind(0)))
    window = image[:, :, band.rows]
    for layer in band.layers:
        mask = _mask(layer, masks, part).unsqueeze(1).expand_as(window)
        colour = layer.colour[part].expand_as(window)
        window = window.lerp(colour, mask) if record else window.lerp_(colour, mask)
    if not record:
        return image
    return torch.cat((image[:, :, : band.rows.start], window, image[:, :, band.rows.stop :]), dim=2)


def _mask(layer: _Layer, masks: dict[str, Tensor], part: slice) -> Tensor:
    parts = [masks[name] for name in layer.shapes]
    column, row = (None if t is None else t[part] for t in (layer.column, layer.row))
    if column is not None and row is not None:
        parts.append(column * row)
    elif column is not None or row is not None:
        parts.append(row if column is None else column)
    return math.prod(parts[1:], start=parts[0])


def _stacked(band: _Band, n: int) -> tuple[Tensor, Tensor]:
    columns = torch.stack([column.expand(n, 1, -1) for column, _ in band.fields.values()])
    rows = torch.stack([row.expand(n, -1, 1) for _, row in band.fields.values()])
    return columns, rows


def _sum(terms: list[_Field], part: slice) -> Tensor:
    """Sum (N, 1, H, W) of outer products of columns and rows."""
    columns = torch.cat([c[part] for c, _ in terms], dim=1)
    rows = torch.cat([r[part] for _, r in terms], dim=2)
    return (rows @ columns).unsqueeze(1)


# --- geometry ---------------------------------------------------------------------------------


def _band(like: Tensor, size: int, rows: tuple[float, float]) -> _Band:
    at = (torch.arange(size, dtype=like.dtype, device=like.device) + 0.5) * (2 / size) - 1
    span = slice(*(round((edge + 1) / 2 * size) for edge in rows))
    return _Band(at.view(1, 1, -1), at[span].view(1, -1, 1), span, size / (2 * _EDGE))


def _face(factors: Tensor) -> _Face:
    f = {name: column.view(-1, 1, 1) for name, column in zip(FACTORS, factors.unbind(1))}
    turn, nod = 2 * f["yaw"] - 1, 2 * f["pitch"] - 1
    hx, hy = 0.03 * turn, 0.06 + 0.02 * nod
    fx, fy = hx + 0.10 * turn, hy + 0.05 * nod
    spacing = 0.165 + 0.06 * f["eye_spacing"]
    return _Face(
        f=f,
        turn=turn,
        hx=hx,
        hy=hy,
        a=0.38 + 0.10 * f["face_width"],
        b=0.50 + 0.09 * f["face_height"],
        fx=fx,
        fy=fy,
        eye_y=fy - 0.01,
        eye_l=fx - spacing * (1 + 0.12 * turn),  # the far eye is closer to the nose
        eye_r=fx + spacing * (1 - 0.12 * turn),
        hair=torch.sigmoid((f["hair_volume"] - 0.13) / 0.025),
    )


def _ellipse(
    c: _Band, x2: Tensor, y: Tensor | float, a: Tensor | float, b: Tensor | float
) -> _Field:
    """An ellipse: `x2` is the squared column distance, `y` the centre's row."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        low = torch.minimum(a, b)
    else:
        low = min(a, b) if isinstance(a, float) and isinstance(b, float) else b
    scale = 0.5 * c.sharp * low
    return scale * (0.5 - x2 / a**2), scale * (0.5 - (c.y - y) ** 2 / b**2)


def _profile(c: _Band, x: Tensor, half2: Tensor, width: Tensor | float) -> _Field:
    """The shape `(X - x)^2 < half2(y)`, about `width` wide on each side."""
    scale = c.sharp / (2 * width)
    return -scale * (c.x - x) ** 2, scale * half2


def _below(c: _Band, curve: Tensor, sharp: float = 1.0) -> _Field:
    """The half plane under `curve(x)`."""
    return -c.sharp * sharp * curve, c.sharp * sharp * c.y


def _above(c: _Band, curve: Tensor, sharp: float = 1.0) -> _Field:
    """The half plane over `curve(x)`."""
    return _outside(_below(c, curve, sharp))


def _outside(shape: _Field, sharp: float = 1.0) -> _Field:
    """The complement of a shape."""
    return -sharp * shape[0], -sharp * shape[1]


def _step(c: _Band, distance: Tensor) -> Tensor:
    """The same soft edge in one dimension, for columns and rows."""
    return torch.sigmoid(c.sharp * distance)


def _bump(t: Tensor, width: Tensor | float) -> Tensor:
    return torch.exp(((t / width) ** 2).clamp(max=-_FAR).neg())


def _cut(t: Tensor) -> Tensor:
    """`max(t, 0)^2`: the once differentiable way to end a profile."""
    return t.clamp(min=0) ** 2


def _both(x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Squared distance to the nearer of two columns: one mask draws both eyes."""
    return torch.minimum((x - left) ** 2, (x - right) ** 2)


def _side(x: Tensor, middle: Tensor) -> Tensor:
    """`|x - middle|`, smooth at the middle."""
    return torch.sqrt((x - middle) ** 2 + 1e-4)


# --- colour -----------------------------------------------------------------------------------


def _mix(t: Tensor, points: tuple[tuple[float, ...], ...]) -> Tensor:
    """Colour (N, 3, 1, 1) on the Bézier curve of the control colours: smooth in t everywhere."""
    t = t.view(-1, 1, 1, 1)
    degree = len(points) - 1
    weights = [math.comb(degree, k) * t**k * (1 - t) ** (degree - k) for k in range(degree + 1)]
    colours = torch.tensor(points, dtype=t.dtype, device=t.device).view(-1, 1, 3, 1, 1)
    return sum(w * p for w, p in zip(weights, colours))


def _hue(t: Tensor, level: float, swing: float, start: float) -> Tensor:
    """Colour (N, 3, 1, 1) on 0.85 of the hue circle, so that both ends stay distinct."""
    phase = torch.tensor((0.0, 1 / 3, 2 / 3), dtype=t.dtype, device=t.device).view(1, 3, 1, 1)
    return level + swing * torch.cos(2 * math.pi * (0.85 * t.view(-1, 1, 1, 1) + start - phase))


def _tint(colour: Tensor, *rgb: float) -> Tensor:
    """`colour` times a constant colour."""
    return colour * torch.tensor(rgb, dtype=colour.dtype, device=colour.device).view(1, 3, 1, 1)


def _plain(face: _Face, *rgb: float) -> Tensor:
    return _tint(torch.ones_like(face.hx).unsqueeze(1), *rgb)


def _tones(face: _Face) -> tuple[Tensor, Tensor]:
    return _mix(face.f["skin_tone"], _SKIN), _mix(face.f["hair_colour"], _HAIR)


# --- layers, back to front --------------------------------------------------------------------


def _background(c: _Band, face: _Face) -> tuple[Tensor, Tensor, Tensor]:
    """A colour, and the column and row parts of the glow behind the head."""
    n = len(face.hx)
    glow = 0.2 * _bump(c.x + 0.15, 1.2).expand(n, 1, -1), _bump(c.y + 0.25, 1.1).expand(n, -1, 1)
    return _hue(face.f["background"], 0.78, 0.17, 0.55), *glow


def _outline(
    c: _Band, face: _Face, width: Tensor, top: Tensor, end: Tensor, flare: Tensor
) -> Tensor:
    """Squared half width by row of a head of hair: a dome, then sides, rounded off at `end`."""
    middle = face.hy - 0.08
    dome = _cut((middle - c.y) / (middle - top))
    sides = flare * _cut(c.y - middle)
    return width**2 * (1 - dome + sides - (1 + sides) * _cut((c.y - end + 0.22) / 0.22))


def _back_hair(c: _Band, face: _Face) -> None:
    f = face.f
    volume, length = f["hair_volume"], f["hair_length"]
    width = face.a + 0.02 + 0.15 * volume
    top, end = face.hy - face.b - 0.03 - 0.12 * volume, face.hy + 0.05 + 0.95 * length
    c.shapes(hair=_profile(c, face.hx, _outline(c, face, width, top, end, 0.5 * length), width))
    c.paint(0.82 * _tones(face)[1], "hair", row=face.hair)


def _bust(c: _Band, face: _Face) -> None:
    """Clothes and neck."""
    hx, hy = face.hx, face.hy
    neck = 1 - _cut((c.y - 0.66) / 0.18) - 4 * _cut((hy + 0.3 - c.y) / 0.2)
    c.shapes(
        body=_profile(c, 0.4 * hx, 1.5 * (c.y - 0.70), 0.5),
        collar=_ellipse(c, (c.x - 0.5 * hx) ** 2, hy + 0.66, 0.235, 0.17),
        neck=_profile(c, 0.7 * hx, 0.155**2 * neck, 0.155),
    )
    cloth = _hue(face.f["clothes"], 0.52, 0.30, 0.1)
    c.paint(cloth, "body")
    c.paint(0.80 * cloth, "collar", "body")
    c.paint(_tint(_tones(face)[0], 0.80, 0.73, 0.71), "neck")


def _head(c: _Band, face: _Face) -> None:
    """Ears, the head and its beard."""
    f, a, b, hx = face.f, face.a, face.b, face.hx
    skin, hair = _tones(face)
    v = (c.y - face.hy) / b
    # clamped: beyond the chin both factors would turn negative, and draw a second head
    taper = 1 - (0.10 + 0.38 * f["jaw"]) * _cut(v.clamp(max=1.2))
    oval = (1 - v**2) * taper - 8 * _cut(v - 1)
    ear, ear_y = (_side(c.x, hx) - 0.98 * a) ** 2, face.fy + 0.06
    beardless = _ellipse(c, (c.x - face.fx) ** 2, face.fy + 0.02, 0.82 * a, 0.42 * b)
    c.shapes(
        ear=_ellipse(c, ear, ear_y, 0.062, 0.105),
        concha=_ellipse(c, ear, ear_y, 0.030, 0.062),
        head=_profile(c, hx, a**2 * oval, a),
        cheek=_outside(beardless, 0.4),
    )
    c.paint(_tint(skin, 0.94, 0.87, 0.85), "ear")
    c.paint(_tint(skin, 0.80, 0.68, 0.66), "concha")
    c.paint(skin, "head")
    low = torch.sigmoid((c.y - face.fy - 0.05) / 0.05)
    c.paint(0.12 * skin + 0.75 * hair, "head", "cheek", row=low * f["beard"])


def _mouth(c: _Band, face: _Face) -> None:
    """Cheeks, nose and mouth."""
    _nose(c, face)
    f, fx = face.f, face.fx
    skin, hair = _tones(face)
    centre, arch, size = _lips(c, face)
    opened = size["open"]
    stache = 1 - ((c.x - fx) / (1.35 * size["width"])) ** 2
    c.shapes(
        lip_top=_below(c, centre - arch * (size["upper"] + 0.35 * opened)),
        lip_end=_above(c, centre + arch * (size["lower"] + opened)),
        gap_top=_below(c, centre - arch * (0.006 + 0.35 * opened)),
        gap_end=_above(c, centre + arch * (0.006 + opened)),
        teeth=_above(c, centre + arch * (0.10 * opened) - 0.004),
        tongue=_ellipse(c, (c.x - fx) ** 2, face.fy + 0.36 + 1.1 * opened, 0.09, 0.06),
        stache_top=_below(c, centre - 0.10 * stache - 0.015, 0.5),
        stache_end=_above(c, centre - 0.012 + 0.05 * (1 - stache), 0.7),
    )
    ends = _step(c, size["width"] - (c.x - fx - 0.02 * face.turn).abs())
    sides = _step(c, 1.25 * size["width"] - (c.x - fx).abs())
    lips = _tint(skin, 0.90, 0.54, 0.54) + _plain(face, 0.08, 0.0, 0.02)
    c.paint(0.85 * hair, "stache_top", "stache_end", column=sides, row=0.95 * f["beard"])
    c.paint(lips, "lip_top", "lip_end", column=ends)
    hole = ("gap_top", "gap_end")
    c.paint(_plain(face, 0.27, 0.07, 0.09), *hole, column=ends)
    c.paint(_plain(face, 0.82, 0.38, 0.40), *hole, "tongue", column=ends, row=f["mouth_open"])
    teeth = 1.6 * f["mouth_open"] - 0.64 * f["mouth_open"] ** 2
    c.paint(_plain(face, 0.97, 0.96, 0.93), *hole, "teeth", column=ends, row=teeth)


def _nose(c: _Band, face: _Face) -> None:
    f, fx, fy = face.f, face.fx, face.fy
    skin = _tones(face)[0]
    x, y = fx + 0.05 * face.turn, fy + 0.10 + 0.10 * f["nose_length"]
    dark = _tint(skin, 0.80, 0.66, 0.62)
    c.shapes(
        nose_shade=_ellipse(c, (c.x - x) ** 2, y + 0.022, 0.086, 0.050),
        nose_tip=_ellipse(c, (c.x - x) ** 2, y, 0.070, 0.053),
        nostril=_ellipse(c, _both(c.x, x - 0.036, x + 0.036), y + 0.034, 0.017, 0.013),
    )
    cheeks = _bump(_both(c.x, face.eye_l - 0.06, face.eye_r + 0.06).sqrt(), 0.11)
    rosy = (0.08 + 0.62 * f["blush"]) * _bump(c.y - fy - 0.19, 0.09)
    c.paint(_tint(skin, 1.0, 0.64, 0.60), column=cheeks, row=rosy)
    side = 1 - 2 * f["light"]
    length = _bump(c.y - y + 0.06, 0.08)
    c.paint(dark, column=_bump(c.x - x - 0.05 * side, 0.035), row=0.35 * length)
    c.paint(dark, "nose_shade", row=0.75 * torch.ones_like(x))
    c.paint(skin, "nose_tip")
    c.paint(0.4 + 0.6 * skin, column=_bump(c.x - x + 0.02 * side, 0.026), row=0.45 * length)
    c.paint(0.6 * dark, "nostril", row=0.6 * torch.ones_like(x))


def _lips(c: _Band, face: _Face) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Centre line by column, arch (1 in the middle, 0 at the corners) and sizes of the mouth."""
    f = face.f
    width = 0.10 + 0.08 * f["mouth_width"] + 0.035 * f["smile"]
    u2 = ((c.x - face.fx - 0.02 * face.turn) / width) ** 2
    bend = (0.085 * f["smile"] - 0.020) * u2.clamp(max=4)
    size = {
        "width": width,
        "open": 0.10 * f["mouth_open"],
        "upper": 0.016 + 0.026 * f["lip_fullness"],
        "lower": 0.024 + 0.034 * f["lip_fullness"],
    }
    return face.fy + 0.325 + 0.02 * f["smile"] - bend, 1 - u2, size


def _eyes(c: _Band, face: _Face) -> None:
    """Light on the forehead, eyes, brows and glasses."""
    f, y, left, right = face.f, face.eye_y, face.eye_l, face.eye_r
    skin, hair = _tones(face)
    a = 0.072 + 0.040 * f["eye_size"]
    b = a * (0.84 - 0.18 * f["smile"])
    eyes, gaze = _both(c.x, left, right), 0.022 * face.turn
    looks = _both(c.x, left + gaze, right + gaze)
    gleam = gaze + 0.30 * a * (2 * f["light"] - 1)
    out = _side(c.x, face.fx) - 0.5 * (right - left)
    brow, taper = _brow(face, out)
    c.shapes(
        lash=_ellipse(c, eyes, y - 0.014, 1.15 * a, 1.13 * b),
        white=_ellipse(c, eyes, y, a, b),
        lid=_outside(_ellipse(c, eyes, y + 0.30 * b, 1.15 * a, 1.15 * b)),
        iris=_ellipse(c, looks, y + 0.002, 0.70 * a, 0.74 * a),
        glint=_ellipse(c, looks, y + 0.22 * a, 0.46 * a, 0.42 * a),
        pupil=_ellipse(c, looks, y + 0.002, 0.35 * a, 0.37 * a),
        spark=_ellipse(c, _both(c.x, left + gleam, right + gleam), y - 0.26 * a, 0.2 * a, 0.2 * a),
        brow_top=_below(c, brow - taper),
        brow_end=_above(c, brow + taper),
    )
    one, colour = torch.ones_like(y), _mix(f["eye_colour"], _EYES)
    sheen = _bump(c.x - face.fx - 0.12 * (2 * f["light"] - 1), 0.20)
    c.paint(0.45 + 0.55 * skin, column=sheen, row=0.30 * _bump(c.y - y + 0.28, 0.11))
    socket = 0.25 * _bump(c.y - y + 0.05, 0.11)
    c.paint(_tint(skin, 0.72, 0.58, 0.56), column=_bump(eyes.sqrt(), 0.13), row=socket)
    c.paint(0.15 * skin + _plain(face, 0.08, 0.04, 0.04), "lash", row=0.92 * one)
    c.paint(_plain(face, 0.97, 0.97, 0.96), "white")
    c.paint(0.70 * colour, "white", "iris")
    c.paint(0.35 + 0.65 * colour, "white", "iris", "glint", row=0.75 * one)
    c.paint(_plain(face, 0.04, 0.03, 0.04), "white", "pupil")
    c.paint(_plain(face, 0.30, 0.26, 0.34), "white", "lid", row=0.40 * one)
    c.paint(_plain(face, 1.0, 1.0, 1.0), "white", "spark")
    dark = 0.70 * hair * (0.55 + 0.45 * face.hair.unsqueeze(1)) + 0.04
    c.paint(dark, "brow_top", "brow_end", column=_step(c, 0.135 - out.abs()))
    _spectacles(c, face, eyes)


def _brow(face: _Face, out: Tensor) -> tuple[Tensor, Tensor]:
    """Centre line and half thickness by column; `out` is the distance outwards from an eye."""
    f = face.f
    u = (out / 0.135).clamp(-2, 2)
    tilt = 0.06 * (f["brow_tilt"] - 0.45)
    height = 0.155 + 0.03 * f["eye_size"] + 0.02 * f["smile"]
    centre = face.eye_y - height - tilt * u + 0.030 * u**2
    return centre, (0.012 + 0.026 * f["brow_thickness"]) * (1 - u**2) * (1 - 0.25 * u)


def _spectacles(c: _Band, face: _Face, eyes: Tensor) -> None:
    on, y = face.f["glasses"], face.eye_y + 0.015
    lens = _ellipse(c, eyes, y, 0.137, 0.122)
    c.shapes(rim=_ellipse(c, eyes, y, 0.165, 0.150), lens=lens, hole=_outside(lens))
    out, half = _side(c.x, face.fx), 0.5 * (face.eye_r - face.eye_l)
    temple = _step(c, out - half - 0.155) * _step(c, face.a - 0.01 - (c.x - face.hx).abs())
    bridge = _step(c, half - 0.145 - out)
    frame = _plain(face, 0.10, 0.09, 0.13)
    c.paint(_plain(face, 0.80, 0.92, 1.0), "lens", row=0.16 * on)
    c.paint(frame, "rim", "hole", row=on)
    c.paint(frame, column=bridge + temple, row=on * _step(c, 0.014 - (c.y - face.eye_y).abs()))


def _fringe(c: _Band, face: _Face) -> None:
    """Hair over the forehead and beside the face, with its shadow, shine and strands."""
    f, a, b, hx, hy = face.f, face.a, face.b, face.hx, face.hy
    hair = _tones(face)[1]
    width = a + 0.012 + 0.13 * f["hair_volume"]
    top, end = hy - b - 0.02 - 0.12 * f["hair_volume"], hy + 0.02 + 0.62 * f["hair_length"]
    line, open_y = face.fy - b * (0.66 - 0.32 * f["fringe"]), face.fy + 0.10
    opening, part = a * (1.0 - 0.10 * f["hair_length"]), hx + 0.05 + 0.05 * face.turn
    rise = _cut((open_y - c.y) / (open_y - line))
    c.shapes(
        outer=_profile(c, hx, _outline(c, face, width, top, end, 0.25 * f["hair_length"]), width),
        gap=_outside(_profile(c, part, opening**2 * (1 - rise), opening)),
    )
    c.paint(hair, "outer", "gap", row=face.hair)
    shine = _bump(c.x - hx + 0.16 * (1 - 2 * f["light"]), 0.24)
    arc = 0.34 * face.hair * _bump(c.y - hy + b + 0.01, 0.08)
    c.paint(0.40 + 0.60 * hair, "outer", "gap", column=shine, row=arc)
    strands = 0.5 + 0.5 * torch.sin(30 * (c.x - part) + 6 * (c.x - part) ** 2)
    c.paint(0.55 * hair, "outer", "gap", column=strands, row=0.26 * face.hair)


def _hat(c: _Band, face: _Face) -> None:
    """A knitted hat with a pompon."""
    on, hx, hy, b = face.f["hat"], face.hx, face.hy, face.b
    top, brim = hy - b - 0.15, hy - 0.50 * b
    half = face.a + 0.055 + 0.09 * face.f["hair_volume"] * face.hair
    c.shapes(
        crown=_profile(c, hx, half**2 * (1 - _cut((brim - c.y) / (brim - top))), half),
        pompon=_ellipse(c, (c.x - hx) ** 2, top - 0.03, 0.105, 0.095),
    )
    wool = _hue(face.f["clothes"], 0.55, 0.32, 0.45)
    band, across = on * _step(c, 0.075 - (c.y - brim).abs()), half + 0.018 - (c.x - hx).abs()
    ribs = 0.5 + 0.5 * torch.cos(38 * (c.x - hx))
    c.paint(0.30 + 0.68 * wool, "pompon", row=on)
    c.paint(wool, "crown", row=on * _step(c, brim - c.y))
    c.paint(0.35 + 0.6 * wool, "crown", column=ribs, row=0.25 * on * _step(c, brim - c.y))
    c.paint(0.80 * wool, column=_step(c, across), row=band)
    c.paint(0.25 + 0.70 * wool, column=ribs * _step(c, across), row=0.4 * band)


def _shading(c: _Band, face: _Face) -> list[_Field]:
    """Light on everything, times 2 for the map to [-1, 1]: outer products that sum below 2."""
    side = 2 * face.f["light"] - 1
    n, one_x, one_y = len(side), torch.ones_like(c.x), torch.ones_like(c.y)
    terms = [
        (one_x, 1.80 - 0.10 * _cut(c.y + 0.1)),
        (torch.tanh((c.x - face.hx) / 0.30), 0.19 * side * _bump(c.y - face.hy, 0.85)),
        (_bump(c.x - face.hx, 0.28), -0.24 * _bump(c.y - face.hy - face.b - 0.05, 0.08) * one_y),
    ]
    return [(column.expand(n, 1, -1), row.expand(n, -1, 1)) for column, row in terms]
