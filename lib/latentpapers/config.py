"""Presets: frozen dataclasses, strict overrides, and the label that says at which scale a number
was made."""

import dataclasses
import json
import types
import typing
from typing import Any

from latentpapers.errors import UnknownName, UserError
from latentpapers.storage import dumps, sha256

NAMES = ("quick", "cpu", "gpu", "paper")
# They train nothing that a table shows: their networks are those of `results/checkpoints`.
FROM_SHIPPED = frozenset({"quick", "cpu"})


def resolve(preset: Any, overrides: dict[str, Any] | None = None) -> Any:
    """`preset` with `overrides` applied; dotted names reach nested dataclasses and dicts.

    Args:
        preset: a frozen dataclass instance.
        overrides: `{"table.steps": 10}`.

    Raises:
        UnknownName: a field that does not exist.
        UserError: a value of the wrong type.
    """
    for name, value in (overrides or {}).items():
        preset = _replace(preset, name, name.split("."), value)
    return preset


def _replace(node: Any, full: str, path: list[str], value: Any) -> Any:
    head, rest = path[0], path[1:]
    known = list(node) if isinstance(node, dict) else [f.name for f in dataclasses.fields(node)]
    if head not in known:
        raise UnknownName("parameter", full, known)
    old = node[head] if isinstance(node, dict) else getattr(node, head)
    nested = dataclasses.is_dataclass(old) or isinstance(old, dict)
    if rest and not nested:
        raise UserError(f"parameter {full!r}: {head!r} has no fields of its own.")
    if not rest and nested:
        raise UserError(f"parameter {full!r} names a group; set one of its fields.")
    kind = type(old) if isinstance(node, dict) else typing.get_type_hints(type(node))[head]
    new = _replace(old, full, rest, value) if rest else typed(full, value, kind)
    return (
        {**node, head: new} if isinstance(node, dict) else dataclasses.replace(node, **{head: new})
    )


def typed(name: str, value: Any, kind: Any) -> Any:
    """`value` as `kind`; an int passes for a float, a list for a tuple, nothing else converts.

    Raises:
        UserError: with the type that was expected.
    """
    if typing.get_origin(kind) in (types.UnionType, typing.Union):  # Literal | None is the latter
        kinds = typing.get_args(kind)
        if value is None and type(None) in kinds:
            return None
        kind = next(k for k in kinds if k is not type(None))
    origin = typing.get_origin(kind) or kind
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(typed(name, v, k) for v, k in zip(value, _items(name, value, kind)))
    if origin is typing.Literal:
        if value in typing.get_args(kind):
            return value
        raise UnknownName(f"value of {name!r}:", value, typing.get_args(kind))
    if not isinstance(value, origin) or (origin is int and isinstance(value, bool)):
        raise UserError(
            f"parameter {name!r} must be {origin.__name__}, not {type(value).__name__} ({value!r})."
        )
    return value


def _items(name: str, value: Any, kind: Any) -> list[Any]:
    """The kind of each item of a tuple."""
    kinds = list(typing.get_args(kind))
    if not kinds:
        return [object] * len(value)
    if kinds[-1] is Ellipsis:
        return kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise UserError(f"parameter {name!r} needs {len(kinds)} items, not {len(value)}.")
    return kinds


def as_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain nested dicts, ready for JSON (tuples become lists)."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        if isinstance(value, dict):
            return {str(k): plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, list | tuple) else value

    return plain(config)


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """`as_dict` with dotted names and no nesting."""
    out: dict[str, Any] = {}
    for key, value in (config if isinstance(config, dict) else as_dict(config)).items():
        if isinstance(value, dict):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def difference(old: Any, new: Any) -> list[str]:
    """One line a field that differs: `width: 8 -> 16`."""
    a, b = flat(old), flat(new)
    pairs = ((k, a.get(k, "(absent)"), b.get(k, "(absent)")) for k in sorted(a.keys() | b.keys()))
    return [f"{k}: {before} -> {after}" for k, before, after in pairs if before != after]


def digest(config: Any) -> str:
    """SHA-256 of the canonical JSON of a configuration."""
    return sha256(dumps(as_dict(config)).encode())


@dataclasses.dataclass(frozen=True)
class Scale:
    """At which scale a number or picture was made; travels with every row and every figure.

    Attributes:
        preset: quick | cpu | gpu | paper.
        images: training images seen by the network behind the number.
        budget: `images` as a fraction of the paper's own budget (1.0 = all of it), None if the
            paper states none.
        data: data set, with its size in pixels.
        device: cpu, or the accelerator's name.
        seeds: training seeds behind the number; empty if no network is behind it.
        standin: named stand-ins (feature network, data set), empty if none.
    """

    preset: str
    images: int
    budget: float | None
    data: str
    device: str
    seeds: tuple[int, ...] = (0,)
    standin: tuple[str, ...] = ()

    def text(self) -> str:
        """The footer of every figure and table."""
        share = "" if self.budget is None else f" ({_percent(self.budget)} of the paper's budget)"
        parts = [self.preset, f"{self.images:,} images seen{share}", self.data, self.device]
        if self.seeds:
            plural = "s" * (len(self.seeds) > 1)
            parts.append(f"seed{plural} {', '.join(map(str, self.seeds))}")
        return " · ".join([*parts, *(f"stand-in: {s}" for s in self.standin)])


def _percent(share: float) -> str:
    value = 100 * share
    return f"{value:.0f} %" if value >= 10 else f"{value:.2g} %"


def named(kind: str, name: str, table: dict[str, Any]) -> Any:
    """`table[name]`, or `UnknownName`."""
    if name not in table:
        raise UnknownName(kind, name, table)
    return table[name]


def parse(assignments: list[str]) -> dict[str, Any]:
    """`["width=8", "lr=1e-3"]` as a dict; values are JSON, else text.

    Raises:
        UserError: an entry without `=`.
    """
    out = {}
    for text in assignments:
        name, sign, value = text.partition("=")
        if not sign:
            raise UserError(f"{text!r} is not of the form FIELD=VALUE.")
        try:
            out[name.strip()] = json.loads(value)
        except json.JSONDecodeError:
            out[name.strip()] = value
    return out


def checked_preset(table: dict[str, Any], name: str) -> Any:
    """`table[name]`.

    Raises:
        UnknownName: a preset that the table does not have.
    """
    return named("preset", name, table)


class Tracked:
    """A read-only view of a configuration that remembers which fields were read.

    An override whose field nobody reads is an error at the end of the run: a parameter that
    changes nothing must not look as if it did.
    """

    def __init__(self, config: Any, prefix: str = "", seen: set[str] | None = None) -> None:
        object.__setattr__(self, "_config", config)
        object.__setattr__(self, "_prefix", prefix)
        object.__setattr__(self, "_seen", set() if seen is None else seen)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._config, name)
        return self._wrap(name, value)

    def __getitem__(self, name: str) -> Any:
        return self._wrap(name, self._config[name])

    def _wrap(self, name: str, value: Any) -> Any:
        path = f"{self._prefix}{name}"
        if dataclasses.is_dataclass(value) or isinstance(value, dict):
            return Tracked(value, f"{path}.", self._seen)
        self._seen.add(path)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a resolved configuration is read-only")

    def __iter__(self) -> Any:
        return iter(self._config)

    def items(self) -> list[tuple[str, Any]]:
        """Names and values of a group that is a dict."""
        return [(name, self[name]) for name in self._config]

    def whole(self) -> Any:
        """The plain object, counting every field below as read."""
        below = flat(as_dict(self._config))
        self._seen.update(f"{self._prefix}{k}" for k in below)
        return self._config

    def unread(self, names: list[str]) -> list[str]:
        """Those of `names` that were never read."""
        return sorted(set(names) - self._seen)
