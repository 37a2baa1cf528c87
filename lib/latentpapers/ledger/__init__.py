"""Ledgers: the five papers as data. Loads and validates `notebooks/<paper>/ledger/*.yaml`.

No torch here: notebooks, runner, report and tests all read ledgers.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from latentpapers import paths
from latentpapers.errors import UnknownName
from latentpapers.ledger import schemas
from latentpapers.ledger.implements import implements
from latentpapers.ledger.schemas import (
    CHECKS,
    PAPERS,
    Cell,
    Claim,
    Equation,
    LedgerError,
    Metric,
    Ref,
    Table,
)

_KINDS: dict[str, type[BaseModel]] = {
    "values": schemas.Values,
    "figures": schemas.Figures,
    "equations": schemas.Equations,
    "claims": schemas.Claims,
    "errata": schemas.Errata,
}
Model = TypeVar("Model", bound=BaseModel)


__all__ = [
    "Ledger",
    "LedgerError",
    "check_all",
    "files",
    "implements",  # the decorator; the module of that name holds `scan` as well
    "load",
    "metrics",
    "papers",
    "parse",
]


@dataclass(frozen=True)
class Ledger:
    """All five ledgers of one paper.

    Attributes:
        paper: the paper's id.
        values, figures, equations, claims, errata: the files, as schema models.
    """

    paper: str
    values: schemas.Values
    figures: schemas.Figures
    equations: schemas.Equations
    claims: schemas.Claims
    errata: schemas.Errata

    def table(self, id: str) -> Table:
        """The table with this id.

        Raises:
            UnknownName: no such table.
        """
        return _pick("table", self.values.tables, id)

    def equation(self, id: str) -> Equation:
        """The equation with this id.

        Raises:
            UnknownName: no such equation.
        """
        return _pick("equation", self.equations.equations, id)

    def claim(self, id: str) -> Claim:
        """The claim with this id.

        Raises:
            UnknownName: no such claim.
        """
        return _pick("claim", self.claims.claims, id)

    def cell(self, ref: Ref) -> Cell | None:
        """The paper's own cell at (id, row, column), or None where it prints none."""
        found = (t.cells for t in self.values.tables if t.id == ref.id)
        cells = (c for table in found for c in table)
        return next((c for c in cells if (c.row, c.column) == (ref.row, ref.column)), None)

    def ids(self) -> list[str]:
        """What a row's `id` may be: tables, figures, measures, and `checks`."""
        groups = (self.values.tables, self.figures.figures, self.values.measures)
        return [entry.id for group in groups for entry in group] + [CHECKS]


def _pick(kind: str, entries: Any, id: str) -> Any:
    found = next((entry for entry in entries if entry.id == id), None)
    if found is None:
        raise UnknownName(kind, id, [entry.id for entry in entries])
    return found


def papers() -> list[str]:
    """The papers' ids, in the order in which the project presents them."""
    return list(PAPERS)


def files(paper: str) -> list[Path]:
    """The five ledger files of `paper`, whether or not they exist.

    Raises:
        UnknownName: not one of `papers()`.
    """
    if paper not in PAPERS:
        raise UnknownName("paper", paper, PAPERS)
    folder = paths.root() / "notebooks" / paper / "ledger"
    return [folder / f"{kind}.yaml" for kind in _KINDS]


def load(paper: str) -> Ledger:
    """The ledgers of `paper`, validated one by one and against each other.

    The result is cached by the files' content, so an edit is seen at once.

    Raises:
        UnknownName: not one of `papers()`.
        LedgerError: a missing file, or one that breaks a rule; names file, entry and field.
    """
    return _load(paper, tuple(_read(path) for path in files(paper)))


@functools.lru_cache(maxsize=32)
def _load(paper: str, contents: tuple[bytes, ...]) -> Ledger:
    parts = {
        kind: parse(content, model, f"{paper}/ledger/{kind}.yaml")
        for content, (kind, model) in zip(contents, _KINDS.items(), strict=True)
    }
    ledger = Ledger(paper=paper, **parts)
    problems = cross_check(ledger)
    if problems:
        raise LedgerError(problems[0])
    return ledger


def check_all() -> list[str]:
    """Every problem of every paper's ledger, one sentence each; empty if all is well."""
    problems: list[str] = []
    for paper in PAPERS:
        try:
            load(paper)
        except LedgerError as error:
            problems.append(str(error))
    return problems


def metrics() -> dict[str, Metric]:
    """The registry of measurement protocols, by id.

    Raises:
        LedgerError: the registry breaks its schema.
    """
    return {m.id: m for m in _registry().metrics}


def standin_kind(name: str) -> str | None:
    """`features` or `data` for a stand-in's name (a remark may follow it), None if unknown.

    Raises:
        LedgerError: the registry breaks its schema.
    """
    known = (s for s in _registry().standins if name == s.name or name.startswith(f"{s.name} "))
    return next((s.kind for s in known), None)


def _registry() -> schemas.Metrics:
    return _parse_registry(_read(Path(__file__).with_name("metrics.yaml")))


@functools.lru_cache(maxsize=4)
def _parse_registry(content: bytes) -> schemas.Metrics:
    return parse(content, schemas.Metrics, "metrics.yaml")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        name = "/".join(path.parts[-3:])
        raise LedgerError(f"{name}: the file is missing; restore it from the repository.") from None


# --- parsing ---------------------------------------------------------------------------------


class _Strict(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML whose mappings may not name a key twice (YAML would keep the last silently)."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[Any] = set()
        for key, _ in node.value:
            if key.value in seen:
                text = f"key {key.value!r} appears twice, again at line {key.start_mark.line + 1}"
                raise yaml.constructor.ConstructorError(None, None, text, None)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse(content: bytes, model: type[Model], name: str) -> Model:
    """YAML `content` as `model`; `name` stands for the file in errors.

    Raises:
        LedgerError: not YAML, a key twice, or against the schema.
    """
    try:
        raw = yaml.load(content, _Strict)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LedgerError(f"{name}: not readable as YAML: {_flat(error)}.") from None
    if not isinstance(raw, dict):
        raise LedgerError(f"{name}: must hold a mapping, not {type(raw).__name__}.")
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise LedgerError(_sentence(name, raw, error)) from None


def _sentence(name: str, raw: Any, error: ValidationError) -> str:
    """First problem of a validation error: file, the ids on the way down, field, what is wrong."""
    first, more = error.errors()[0], error.error_count() - 1
    ids, field, node = [], [], raw
    for part in first["loc"]:
        child = isinstance(part, int) and isinstance(node, list | tuple)
        inside = isinstance(node, dict) and part in node
        node = node[part] if child or inside else node
        label = (
            node.get("id", node.get("row", node.get("name"))) if isinstance(node, dict) else None
        )
        if child and label is not None:
            ids.append(str(label))
            field = []
        else:
            field.append(str(part))
    where = " ".join([f"{name}:", *ids])
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    at = f" field {'.'.join(field)!r}:" if field else ""
    tail = f" (and {more} more)" if more else ""
    got = f", not {first['input']!r}" if isinstance(first["input"], str | int | float) else ""
    return f"{where}{at} {message}{got}{tail}."


def _flat(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


# --- rules between files ---------------------------------------------------------------------


def cross_check(ledger: Ledger) -> list[str]:
    """What no single file can see: paper ids, metrics, ids that claims refer to, errata."""
    return [
        f"{ledger.paper}/ledger/{problem}" for find in _CROSS_CHECKS for problem in find(ledger)
    ]


def _wrong_paper(ledger: Ledger) -> list[str]:
    return [
        f"{kind}.yaml: field 'paper': must be {ledger.paper!r}, not {found!r}."
        for kind in _KINDS
        if (found := getattr(ledger, kind).paper) != ledger.paper
    ]


def _wrong_metric(ledger: Ledger) -> list[str]:
    known, problems = metrics(), []
    for table in ledger.values.tables:
        for cell in table.cells:
            where = f"values.yaml: {table.id} {cell.row} / {cell.column}"
            if cell.metric not in known:
                problems.append(f"{where} field 'metric': unknown metric {cell.metric!r}.")
            elif known[cell.metric].direction != cell.direction:
                wanted = known[cell.metric].direction
                wrong = f"{cell.direction!r}, but {cell.metric} is {wanted!r}"
                problems.append(f"{where} field 'direction': {wrong}.")
    return problems


def _wrong_prefix(ledger: Ledger) -> list[str]:
    entries = [("claims", c.id) for c in ledger.claims.claims]
    entries += [("errata", e.id) for e in ledger.errata.errata]
    return [
        f"{kind}.yaml: {id} field 'id': must begin with '{ledger.paper}-'."
        for kind, id in entries
        if id.rpartition("-")[0] != ledger.paper
    ]


def _wrong_ref(ledger: Ledger) -> list[str]:
    known = ledger.ids()
    return [
        f"claims.yaml: {claim.id} field 'rules.{preset}': unknown id {ref.id!r}; "
        f"known: {', '.join(known)}."
        for claim in ledger.claims.claims
        for preset, rule in claim.rules.items()
        for ref in schemas.refs(rule)
        if ref.id not in known
    ]


def _wrong_number(ledger: Ledger) -> list[str]:
    """A number rule needs the paper's number: a printed cell, or its own `value`."""
    rules = (
        (claim.id, preset, rule)
        for claim in ledger.claims.claims
        for preset, rule in claim.rules.items()
        if isinstance(rule, schemas.NumberRule) and rule.value is None
    )
    return [
        f"claims.yaml: {id} field 'rules.{preset}': the paper prints no number at "
        f"{rule.ref.id} / {rule.ref.row} / {rule.ref.column}; give 'value' or mend the ref."
        for id, preset, rule in rules
        if (cell := ledger.cell(rule.ref)) is None or cell.value is None
    ]


def _wrong_erratum(ledger: Ledger) -> list[str]:
    known = [e.id for e in ledger.errata.errata]
    return [
        f"claims.yaml: {claim.id} field 'contradicted_by': unknown erratum "
        f"{claim.contradicted_by!r}."
        for claim in ledger.claims.claims
        if claim.contradicted_by is not None and claim.contradicted_by not in known
    ]


_CROSS_CHECKS = (
    _wrong_paper,
    _wrong_metric,
    _wrong_prefix,
    _wrong_ref,
    _wrong_number,
    _wrong_erratum,
)
