"""RRDB weights in the three key layouts in which they were published, read and written.

| part | `old` (LSRGAN, old ESRGAN) | `esrgan` (its repository) | `basicsr` (1.x; ours) |
|---|---|---|---|
| first convolution | model.0 | conv_first | conv_first |
| dense block m, conv k | model.1.sub.n.RDBm.convk.0 | RRDB_trunk.n.RDBm.convk | body.n.rdbm.convk |
| after the blocks | model.1.sub.23 | trunk_conv | conv_body |
| doublings | model.3, model.6 | upconv1, upconv2 | conv_up1, conv_up2 |
| last two | model.8, model.10 | HRconv, conv_last | conv_hr, conv_last |

A file's layout is found from its keys. `module.` before keys and BasicSR's `params`, `params_ema`
around them are taken off by `convert_state.saved_state`.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from latentpapers.errors import Corrupt, UnknownName
from latentpapers.nets.rrdb import RRDBNet

State = dict[str, Tensor]
LAYOUTS = ("old", "esrgan", "basicsr")
_ESRGAN = {
    "conv_first": "conv_first", "conv_body": "trunk_conv", "conv_up1": "upconv1",
    "conv_up2": "upconv2", "conv_hr": "HRconv", "conv_last": "conv_last",
}  # fmt: skip
_OLD = {
    "conv_first": "model.0", "conv_up1": "model.3", "conv_up2": "model.6", "conv_hr": "model.8",
    "conv_last": "model.10",
}  # fmt: skip
_DENSE = {
    "old": r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0",
    "esrgan": r"RRDB_trunk\.(\d+)\.RDB(\d)\.conv(\d)",
    "basicsr": r"body\.(\d+)\.rdb(\d)\.conv(\d)",
}
_WRITTEN = {
    "old": "model.1.sub.{}.RDB{}.conv{}.0",
    "esrgan": "RRDB_trunk.{}.RDB{}.conv{}",
    "basicsr": "body.{}.rdb{}.conv{}",
}


def read(path: Path, *, allow_pickle_stub: bool = False) -> State:
    """The state dict of a file in any of the layouts, under our keys.

    Args:
        path: `.pth` or `.safetensors`.
        allow_pickle_stub: see `convert_state.saved_state`.

    Raises:
        Corrupt: no state dict, or that of another network. UserError: a pickle of foreign classes.
    """
    from latentpapers.weights.convert_state import saved_state

    return canonical(saved_state(path, allow_pickle_stub=allow_pickle_stub), str(path))


def layout_of(keys: Iterable[str]) -> str:
    """The layout of a state dict.

    Raises:
        Corrupt: none of the three.
    """
    names = list(keys)
    for layout, pattern in _DENSE.items():
        if any(re.match(pattern + r"\.", name) for name in names):
            return layout
    some = ", ".join(names[:3]) or "no keys"
    raise Corrupt(f"no RRDB network in the layout old, esrgan or basicsr ({some}).")


def canonical(state: State, what: str = "the state dict") -> State:
    """A state dict of any layout under our keys (BasicSR's), its shapes checked.

    Raises:
        Corrupt: another network, or a part too much or missing.
    """
    from latentpapers.weights.convert_state import check_fit

    layout = layout_of(state)
    names = _names(layout, _blocks(state, layout))
    back = {theirs: ours for ours, theirs in names.items()}
    out = {}
    for key, value in state.items():
        part, _, kind = key.rpartition(".")
        if part not in back:
            raise Corrupt(f"{what}: {key!r} is no part of an RRDB network in layout {layout}.")
        out[f"{back[part]}.{kind}"] = value
    check_fit(out, skeleton(out, what), what)
    return out


def convert(state: State, layout: str) -> State:
    """A state dict of any layout under the keys of `layout`; the tensors are not copied.

    Raises:
        UnknownName: not a layout; Corrupt: as `canonical`.
    """
    if layout not in LAYOUTS:
        raise UnknownName("layout", layout, LAYOUTS)
    ours = canonical(state)
    names = _names(layout, _blocks(ours, "basicsr"))
    parts = ((*key.rpartition("."), value) for key, value in ours.items())
    return {f"{names[part]}.{kind}": value for part, _, kind, value in parts}


def options(state: State) -> dict[str, int]:
    """Width, blocks and growth of the `RRDBNet` that takes a canonical state dict.

    Raises:
        Corrupt: its first layers are missing.
    """
    try:
        width = len(state["conv_first.weight"])
        growth = len(state["body.0.rdb1.conv1.weight"])
    except KeyError as error:
        raise Corrupt(f"the state dict has no {error}.") from None
    return {"width": width, "blocks": _blocks(state, "basicsr"), "growth": growth}


def skeleton(state: State, what: str = "the state dict") -> RRDBNet:
    """The network of these sizes without storage.

    Raises:
        Corrupt: as `options`.
    """
    import torch

    try:
        sizes = options(state)
    except Corrupt as error:
        raise Corrupt(f"{what}: {error}") from None
    with torch.device("meta"):
        return RRDBNet(**sizes)


def network(state: State) -> RRDBNet:
    """The network of a state dict in any layout: evaluation mode, without gradients.

    Raises:
        Corrupt: as `canonical`.
    """
    ours = {key: value.float() for key, value in canonical(state).items()}
    net = RRDBNet(**options(ours))
    net.load_state_dict(ours)
    return net.eval().requires_grad_(False)


def _blocks(state: State, layout: str) -> int:
    found = (re.match(_DENSE[layout], key) for key in state)
    return 1 + max((int(m[1]) for m in found if m), default=-1)


def _names(layout: str, blocks: int) -> dict[str, str]:
    """Our name of every convolution -> its name in `layout`."""
    outside = {name: name for name in _ESRGAN}
    if layout == "esrgan":
        outside = _ESRGAN
    elif layout == "old":
        outside = {**_OLD, "conv_body": f"model.1.sub.{blocks}"}
    dense = {
        _WRITTEN["basicsr"].format(n, m, k): _WRITTEN[layout].format(n, m, k)
        for n in range(blocks)
        for m in range(1, 4)
        for k in range(1, 6)
    }
    return outside | dense
