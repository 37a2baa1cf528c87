"""Schemas of the ledgers: a paper as data, checked field by field.

A field that is not named here is an error. Models are frozen and hold tuples, so that a loaded
ledger can be cached and shared. `latentpapers.ledger.load` turns a validation error into one
sentence with file, entry and field.
"""

import re
from collections import Counter
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from latentpapers.errors import UserError

PAPERS = ("lag", "lsrgan", "lrc_i2i", "diamond", "avae")
"""The papers' ids, in the order in which the project presents them."""

Direction = Literal["higher", "lower", "none"]
Status = Literal["done", "todo"]
Preset = Literal["quick", "cpu", "gpu", "paper"]
# Strict: the text "6.80" or a boolean is a slip of the writer, not a number; an int is fine.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0)]


def _one_line(text: str) -> str:
    """Folded YAML text as one line; blanks at the ends and line breaks carry no meaning."""
    line = " ".join(text.split())
    if not line:
        raise ValueError("must not be empty")
    return line


Text = Annotated[str, AfterValidator(_one_line)]
TableId = Annotated[str, Field(pattern=r"^table_[AS]?\d+$")]
FigureId = Annotated[str, Field(pattern=r"^fig_[AS]?\d+$")]
MeasureId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
EquationId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.'-]*$")]
DottedPath = Annotated[str, Field(pattern=r"^latentpapers(\.\w+)+:\w+(\.\w+)*$")]
Anchor = Annotated[str, Field(pattern=r"^\w+#[\w.'-]+$")]
TestId = Annotated[str, Field(pattern=r"^tests/test_\w+\.py(::\w+)+(\[[^\]]+\])?$")]


class LedgerError(UserError):
    """A ledger that breaks a rule; the sentence names file, entry and field."""


class Entry(BaseModel):
    """Base of all schemas: unknown fields are refused, instances cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _unique(names: list[str], what: str) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ValueError(f"duplicate {what} {twice[0]!r}")


# --- metrics.yaml: the registry of measurement protocols -------------------------------------


class Metric(Entry):
    """A measurement protocol. Two numbers may be compared only if their protocol ids are equal.

    Attributes:
        implementation: `latentpapers.module:function`, or null with `reason`.
        needs: weights and data without which it cannot run.
        comparable_with_paper: whether our number follows the protocol of a printed one, so that
            the two may stand side by side. False for every stand-in.
    """

    id: MeasureId
    name: Text
    direction: Direction
    unit: str
    implementation: DottedPath | None
    reason: Text | None = None
    needs: tuple[Text, ...] = ()
    comparable_with_paper: bool
    standin: Text | None = None
    says: Text

    @model_validator(mode="after")
    def _reason_for_none(self) -> "Metric":
        if (self.implementation is None) != (self.reason is not None):
            raise ValueError("needs either an implementation or a reason why there is none")
        if self.standin is not None and self.comparable_with_paper:
            raise ValueError("rests on a stand-in and cannot be comparable with the paper")
        return self


class StandIn(Entry):
    """A named replacement for something that is not at hand; its kind words the verdict."""

    name: Text
    kind: Literal["features", "data"]
    says: Text


class Metrics(Entry):
    """`metrics.yaml` inside the package."""

    metrics: tuple[Metric, ...]
    standins: tuple[StandIn, ...]

    @model_validator(mode="after")
    def _ids(self) -> "Metrics":
        _unique([m.id for m in self.metrics], "metric id")
        _unique([s.name for s in self.standins], "stand-in")
        unknown = {m.standin for m in self.metrics} - {s.name for s in self.standins} - {None}
        if unknown:
            raise ValueError(f"unknown stand-in {sorted(unknown)[0]!r}")
        return self


# --- values.yaml -----------------------------------------------------------------------------


class Cell(Entry):
    """One reported number. `value` is null for a dash; `printed` is the text in the paper.

    `source` is `own` if the paper's authors measured it, `quoted` if they took it from others.
    """

    row: Text
    column: Text
    metric: MeasureId
    direction: Direction
    value: Number | None
    printed: Text
    dataset: Text
    source: Literal["own", "quoted"]
    note: Text | None = None


class Table(Entry):
    """One table of the paper; (row, column) is unique inside it."""

    id: TableId
    caption: Text
    status: Status
    cells: tuple[Cell, ...]
    note: Text | None = None

    @model_validator(mode="after")
    def _cells(self) -> "Table":
        _unique([f"{c.row} / {c.column}" for c in self.cells], "cell")
        return self


class Hyperparameter(Entry):
    """A setting that the paper states, as printed."""

    name: Text
    text: Text
    note: Text | None = None


class Measure(Entry):
    """A group of our rows that belongs to no table or figure of the paper.

    Claims may refer to it by `id`, for example `training` or `controller`.
    """

    id: MeasureId
    says: Text


class Values(Entry):
    """`values.yaml`."""

    paper: Text
    title: Text
    arxiv: Annotated[str, Field(pattern=r"^\d{4}\.\d{4,5}$")] | None = None
    tables: tuple[Table, ...]
    tables_note: Text | None = None
    hyperparameters: tuple[Hyperparameter, ...]
    measures: tuple[Measure, ...] = ()

    @model_validator(mode="after")
    def _ids(self) -> "Values":
        _unique([t.id for t in self.tables] + [m.id for m in self.measures], "id")
        _unique([h.name for h in self.hyperparameters], "hyperparameter")
        return self


# --- figures.yaml ----------------------------------------------------------------------------


class Figure(Entry):
    """One figure of the paper and the notebook that regenerates it (null: none)."""

    id: FigureId
    caption: Text
    shows: Text
    notebook: Annotated[str, Field(pattern=r"^\d_\w+$")] | None
    status: Status
    note: Text | None = None

    @model_validator(mode="after")
    def _done_has_notebook(self) -> "Figure":
        if self.status == "done" and self.notebook is None:
            raise ValueError("is done but names no notebook")
        return self


class Figures(Entry):
    """`figures.yaml`."""

    paper: Text
    figures: tuple[Figure, ...]

    @model_validator(mode="after")
    def _ids(self) -> "Figures":
        _unique([f.id for f in self.figures], "id")
        return self


# --- equations.yaml --------------------------------------------------------------------------

EquationKind = Literal["loss", "operator", "identity", "definition", "signature", "proof"]
NUMERIC_KINDS = frozenset({"loss", "operator", "identity"})
"""Kinds that need an implementation, a numeric check and a negative control."""

_PLAIN_TEX = re.compile(r"\\(?:newcommand|def|DeclareMathOperator|require|tag|label)\b")


class Equation(Entry):
    r"""One numbered equation, LaTeX without `$`, `\tag` or macros of its own."""

    id: EquationId
    section: Text
    latex: Text
    kind: EquationKind
    says: Text
    implements: DottedPath | None
    anchor: Anchor | None
    check: TestId | None
    control: TestId | None
    status: Status

    @model_validator(mode="after")
    def _complete(self) -> "Equation":
        if "$" in self.latex or _PLAIN_TEX.search(self.latex):
            raise ValueError("latex must be plain: no $, no tag or label, no macro definitions")
        if self.status == "done":
            needed = ["anchor"]
            if self.kind in NUMERIC_KINDS:
                needed += ["implements", "check", "control"]
            absent = [name for name in needed if getattr(self, name) is None]
            if absent:
                raise ValueError(f"is a {self.kind} marked done without {', '.join(absent)}")
        return self


class Equations(Entry):
    """`equations.yaml`."""

    paper: Text
    equations: tuple[Equation, ...]

    @model_validator(mode="after")
    def _ids(self) -> "Equations":
        _unique([e.id for e in self.equations], "id")
        return self


# --- claims.yaml -----------------------------------------------------------------------------


class Ref(Entry):
    """The rows that a rule reads: those with this id, row and column, of any seed."""

    id: Text
    row: Text
    column: Text


class NumberRule(Entry):
    """The paper's value lies in [lo - tolerance, hi + tolerance] of our interval.

    The paper's value is its cell at `ref`; `value` gives it where the paper states it in its text.
    """

    type: Literal["number"]
    ref: Ref
    tolerance: Positive
    value: Number | None = None


class OrderingRule(Entry):
    """`better` beats `worse` by more than `margin`, in the direction that the rows state."""

    type: Literal["ordering"]
    better: Ref
    worse: Ref
    margin: Positive = 0.0


class TrendRule(Entry):
    """Each of `refs` exceeds the one before it (increasing) by more than `margin`."""

    type: Literal["trend"]
    refs: Annotated[tuple[Ref, ...], Field(min_length=2)]
    direction: Literal["increasing", "decreasing"]
    margin: Positive = 0.0


class BoundRule(Entry):
    """The whole interval lies on one side of `limit`."""

    type: Literal["bound"]
    ref: Ref
    op: Literal[">", "<"]
    limit: Number


class WithinRule(Entry):
    """The whole interval lies in [low, high]."""

    type: Literal["within"]
    ref: Ref
    low: Number
    high: Number

    @model_validator(mode="after")
    def _order(self) -> "WithinRule":
        if not self.low < self.high:
            raise ValueError("low must be below high")
        return self


class CheckRule(Entry):
    """A named check passed: its row has the value 1 (0: it failed).

    Without `ref` the row is id `checks`, row = the test, column `passed`.
    """

    type: Literal["check"]
    test: TestId
    ref: Ref | None = None

    def row(self) -> Ref:
        """The row that holds the outcome of the check."""
        return self.ref or Ref(id=CHECKS, row=self.test, column="passed")


CHECKS = "checks"
"""Id of the rows that hold outcomes of named checks; every paper has it."""

Rule = Annotated[
    NumberRule | OrderingRule | TrendRule | BoundRule | WithinRule | CheckRule,
    Field(discriminator="type"),
]
ClaimKind = Literal["number", "ordering", "trend", "identity"]
_ONLY_FOR: dict[str, str] = {"number": "number", "trend": "trend", "check": "identity"}


def refs(rule: Rule) -> tuple[Ref, ...]:
    """All rows that a rule reads."""
    if isinstance(rule, OrderingRule):
        return (rule.better, rule.worse)
    if isinstance(rule, TrendRule):
        return rule.refs
    return (rule.row(),) if isinstance(rule, CheckRule) else (rule.ref,)


class Claim(Entry):
    """One claim of the paper and, per preset, the rule that decides it.

    Attributes:
        where: section, table or figure, with a short quote.
        about: `training_method` (needs seeds), `trained_model` (needs an interval over images)
            or `mathematics`.
        rules: rule by preset; a preset without a rule is *not testable here*.
        missing: what is absent where no rule can decide.
        standin: stand-ins that the rule's rows rest on, beyond what the rows' scale names.
        standin_at: the same, of one preset's rows alone.
        mdd_run: the run that could decide an ordering.
        contradicted_by: id of the erratum that shows that the paper contradicts this claim itself.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9_]+-c\d+[a-z]?$")]
    text: Text
    where: Text
    kind: ClaimKind
    about: Literal["training_method", "trained_model", "mathematics"]
    status: Literal["active", "todo"]
    rules: dict[Preset, Rule] = Field(default_factory=dict)
    missing: Text | None = None
    standin: tuple[Text, ...] = ()
    standin_at: dict[Preset, tuple[Text, ...]] = Field(default_factory=dict)
    mdd_run: Text | None = None
    note: Text | None = None
    contradicted_by: Text | None = None

    @model_validator(mode="after")
    def _decidable(self) -> "Claim":
        for preset, rule in self.rules.items():
            wanted = _ONLY_FOR.get(rule.type, self.kind)
            if wanted != self.kind:
                raise ValueError(f"rules.{preset}: a {rule.type} rule needs kind {wanted!r}")
        if self.status == "active" and not (self.rules or self.missing or self.contradicted_by):
            raise ValueError("is active but has neither rules nor missing")
        return self


class Claims(Entry):
    """`claims.yaml`."""

    paper: Text
    claims: tuple[Claim, ...]

    @model_validator(mode="after")
    def _ids(self) -> "Claims":
        _unique([c.id for c in self.claims], "id")
        return self


# --- errata.yaml -----------------------------------------------------------------------------


class Reading(Entry):
    """One way to read a passage that is wrong, ambiguous or contradicted by the authors' code."""

    name: Text
    text: Text


class Effect(Entry):
    """What the choice of reading changes, and the run that shows it."""

    run: Text
    text: Text


class Erratum(Entry):
    """A slip, an ambiguity or a contradiction: its readings and the one that is used."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9_]+-e\d+[a-z]?$")]
    where: Text
    printed: Text
    problem: Text
    readings: Annotated[tuple[Reading, ...], Field(min_length=1)]
    used: Text
    why: Text
    effect: Effect | None

    @model_validator(mode="after")
    def _used_exists(self) -> "Erratum":
        names = [r.name for r in self.readings]
        _unique(names, "reading")
        if self.used not in names:
            raise ValueError(f"used {self.used!r} is none of the readings: {', '.join(names)}")
        return self


class Errata(Entry):
    """`errata.yaml`."""

    paper: Text
    errata: tuple[Erratum, ...]

    @model_validator(mode="after")
    def _ids(self) -> "Errata":
        _unique([e.id for e in self.errata], "id")
        return self
