"""Verdicts: pure functions of (claim, rows). No verdict is typed by hand.

A *row* is one measured number as `rows.jsonl` holds it (see docs/architecture.md). Rows of single
seeds carry `seed`; the row pooled over seeds carries `seed: null`.

How a rule reads its rows depends on what the claim is about:

* `training_method`: the unit is a training run. With two or more seeds the interval is a t interval
  over seeds (Welch's for a difference). With one seed it is the row's own interval, and the verdict
  says *single run*.
* `trained_model`: the unit is an image. The row of the lowest seed and its own interval decide.
* `mathematics`: a row without an interval is exact. Scale does not weaken the verdict.
"""

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from latentpapers import ledger as _ledger
from latentpapers.ledger.schemas import (
    BoundRule,
    CheckRule,
    Claim,
    LedgerError,
    NumberRule,
    OrderingRule,
    Ref,
    Rule,
    TrendRule,
    WithinRule,
    refs,
)

REPRODUCED = "reproduced"
REDUCED = "reproduced at reduced scale"
NOT_REPRODUCED = "not reproduced"
UNDECIDED = "undecided"
NOT_TESTABLE = "not testable here"
INCONSISTENT = "paper inconsistent"
WORDS = (REPRODUCED, REDUCED, NOT_REPRODUCED, UNDECIDED, NOT_TESTABLE, INCONSISTENT)

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; `lo` and `hi` are None where there is none.

    Attributes:
        half_lo, half_hi: distances from the value down to `lo` and up to `hi`.
    """

    value: float
    lo: float | None
    hi: float | None

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return self.lo is not None and self.hi is not None

    @property
    def half_lo(self) -> float:
        """Distance from the value down to `lo`, NaN if there is none."""
        # A percentile bootstrap of a biased statistic may lie beside its value.
        return max(0.0, self.value - self.lo) if self.lo is not None else math.nan

    @property
    def half_hi(self) -> float:
        """Distance from the value up to `hi`, NaN if there is none."""
        return max(0.0, self.hi - self.value) if self.hi is not None else math.nan

    def text(self) -> str:
        """`0.52 [0.31, 0.73]`; the value alone if it is exact or has no interval."""
        if not self.known or self.lo == self.hi:
            return _digits(self.value)
        # Four digits, or as many as show two of the width: 1.0002 beside a limit of 1 is no 1
        size, width = (x or 1.0 for x in (max(abs(self.lo), abs(self.hi)), self.hi - self.lo))
        digits = max(4, 2 + math.floor(math.log10(size)) - math.floor(math.log10(width)))
        value, low, high = (f"{x + 0.0:.{digits}g}" for x in (self.value, self.lo, self.hi))
        return f"{value} [{low}, {high}]"

    def __neg__(self) -> "Interval":
        flip = [None if x is None else -x for x in (self.hi, self.lo)]
        return Interval(-self.value, *flip)


@dataclass(frozen=True)
class Verdict:
    """What the rows say about a claim.

    Attributes:
        claim: the claim's id.
        verdict: one of `WORDS`.
        suffixes: `stand-in features`, `stand-in data`, `stand-in`, `single run`.
        sentence: one sentence made from the numbers.
        evidence: one dict a row that the rule read (ref, value, lo, hi, n, seeds, metric).
        mdd: smallest difference that these runs could tell from none, in the metric's unit.
    """

    claim: str
    verdict: str
    suffixes: tuple[str, ...]
    sentence: str
    evidence: tuple[dict[str, Any], ...] = ()
    mdd: float | None = None

    @property
    def text(self) -> str:
        """Verdict with suffixes: `not reproduced (stand-in features, single run)`."""
        return self.verdict + (f" ({', '.join(self.suffixes)})" if self.suffixes else "")

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for `claims.json`."""
        plain = asdict(self)
        return plain | {"suffixes": list(self.suffixes), "evidence": list(self.evidence)}


# --- intervals -------------------------------------------------------------------------------


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of independent values with Student's t interval; one value has no interval.

    Args:
        values: one number a seed, at least one.
        level: coverage.
    """
    mean, n = statistics.fmean(values), len(values)
    if n < 2:
        return Interval(mean, None, None)
    half = _t_quantile(level, n - 1) * statistics.stdev(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def welch_interval(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Interval:
    """mean(a) - mean(b) with Welch's t interval (unequal variances, Satterthwaite's freedom).

    Args:
        a, b: one number a seed, at least two each.
        level: coverage.
    """
    var_a, var_b = statistics.variance(a) / len(a), statistics.variance(b) / len(b)
    gap, var = statistics.fmean(a) - statistics.fmean(b), var_a + var_b
    if var == 0:
        return Interval(gap, gap, gap)
    freedom = var**2 / (var_a**2 / (len(a) - 1) + var_b**2 / (len(b) - 1))
    half = _t_quantile(level, freedom) * math.sqrt(var)
    return Interval(gap, gap - half, gap + half)


def difference(a: Interval, b: Interval) -> Interval:
    """a - b of independent estimates: half widths add in squares, each side with its own."""
    gap = a.value - b.value
    if not (a.known and b.known):
        return Interval(gap, None, None)
    down, up = math.hypot(a.half_lo, b.half_hi), math.hypot(a.half_hi, b.half_lo)
    return Interval(gap, gap - down, gap + up)


def minimal_detectable(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> float:
    """t * sd * sqrt(1/n_a + 1/n_b) with the pooled sd: with equal n, t * sd * sqrt(2/n).

    Args:
        a, b: one number a seed, at least two each.
    """
    freedom = len(a) + len(b) - 2
    squares = statistics.variance(a) * (len(a) - 1) + statistics.variance(b) * (len(b) - 1)
    return _t_quantile(level, freedom) * math.sqrt(squares / freedom * (1 / len(a) + 1 / len(b)))


def _t_quantile(level: float, freedom: float) -> float:
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    return float(stdtrit(freedom, (1 + level) / 2))


# --- rows ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sample:
    """The rows behind one ref."""

    ref: Ref
    rows: tuple[Row, ...]  # single seeds, by seed; or the pooled row alone
    about: str

    @property
    def first(self) -> Row:
        return self.rows[0]

    @property
    def seeds(self) -> int:
        """Training runs behind the number."""
        pooled = self.first["seed"] is None
        return int(self.first["n"]) if pooled else len(self.rows)

    @property
    def values(self) -> list[float]:
        return [float(row["value"]) for row in self.rows]

    @property
    def over_seeds(self) -> bool:
        return self.about == "training_method" and len(self.rows) > 1

    def interval(self) -> Interval:
        if self.over_seeds:
            return t_interval(self.values)
        value, lo, hi = (self.first[key] for key in ("value", "lo", "hi"))
        if lo is None and self.about == "mathematics":
            return Interval(value, value, value)
        return Interval(value, lo, hi)

    def evidence(self) -> dict[str, Any]:
        found = self.interval()
        return {
            "ref": self.ref.model_dump(),
            "value": found.value,
            "lo": found.lo,
            "hi": found.hi,
            "n": len(self.rows) if self.over_seeds else self.first["n"],
            "seeds": [row["seed"] for row in self.rows],
            "metric": self.first["metric"],
        }


def _sample(ref: Ref, rows: Iterable[Row], about: str) -> _Sample | None:
    mine = [r for r in rows if (r["id"], r["row"], r["column"]) == (ref.id, ref.row, ref.column)]
    for row in mine:
        _refuse_bad(row)
    seeds = [row["seed"] for row in mine]
    if len(set(seeds)) < len(seeds):
        raise LedgerError(f"{_name(ref)}: two rows of one seed; collect the runs again.")
    if len({row["metric"] for row in mine}) > 1:
        raise LedgerError(f"{_name(ref)}: rows of different metrics; collect the runs again.")
    single = sorted((r for r in mine if r["seed"] is not None), key=lambda r: r["seed"])
    if about == "training_method":
        chosen = single or mine
    else:
        chosen = (single or mine)[:1]
    return _Sample(ref, tuple(chosen), about) if chosen else None


def _refuse_bad(row: Row) -> None:
    numbers = [row["value"], *(row[key] for key in ("lo", "hi") if row[key] is not None)]
    name = f"{row['id']} ({row['row']}, {row['column']})"
    if not all(isinstance(x, int | float) and math.isfinite(x) for x in numbers):
        raise LedgerError(f"{name}: a row must hold finite numbers, not {numbers}.")
    if (row["lo"] is None) != (row["hi"] is None) or (len(numbers) == 3 and row["lo"] > row["hi"]):
        raise LedgerError(f"{name}: lo and hi do not form an interval ({row['lo']}, {row['hi']}).")
    if row["metric"] not in _ledger.metrics():
        raise LedgerError(f"{name}: unknown metric {row['metric']!r}; add it to metrics.yaml.")


# --- decisions -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Outcome:
    """True: the rule holds; False: its opposite does; None: cannot tell."""

    holds: bool | None
    text: str
    mdd: float | None = None


def decide(
    claim: Claim, rows: Iterable[Row], preset: str, ledger: "_ledger.Ledger | None" = None
) -> Verdict:
    """The verdict on `claim` from the rows of one preset.

    Args:
        claim: a claim of the paper that the rows belong to.
        rows: dicts as in `metrics.jsonl`; rows that the rule does not name are ignored.
        preset: quick | cpu | gpu | paper; picks the rule; cpu shares the rule of quick unless the
            claim has one of its own: same networks, more images.
        ledger: the paper's ledger; loaded if not given.

    Raises:
        LedgerError: rows with NaN, of an unknown metric, twice for a seed, or that cannot be
            compared (another metric, no direction).
    """
    book = ledger or _ledger.load(claim.id.rpartition("-")[0])
    rows = [row for row in rows if row.get("paper", book.paper) == book.paper]
    if claim.contradicted_by is not None:
        erratum = next(e for e in book.errata.errata if e.id == claim.contradicted_by)
        return Verdict(claim.id, INCONSISTENT, (), f"Erratum {erratum.id}: {erratum.problem}")
    if claim.status == "todo" and not (claim.missing and not claim.rules):
        return Verdict(claim.id, UNDECIDED, (), "No rule has been written for this claim yet.")
    rule = rule_of(claim, preset)
    if rule is None:
        return Verdict(claim.id, NOT_TESTABLE, (), _no_rule(claim, preset))
    samples = [_sample(ref, rows, claim.about) for ref in refs(rule)]
    absent = [_name(ref) for ref, found in zip(refs(rule), samples, strict=True) if found is None]
    if absent:
        return Verdict(claim.id, UNDECIDED, (), f"No run has measured {' nor '.join(absent)} yet.")
    return _judge(claim, rule, [s for s in samples if s is not None], book)


def rule_of(claim: Claim, preset: str) -> Rule | None:
    """The rule that decides a claim in a preset, None if there is none."""
    return claim.rules.get(preset) or (claim.rules.get("quick") if preset == "cpu" else None)


def decide_all(rows: Iterable[Row], preset: str, ledger: "_ledger.Ledger") -> list[Verdict]:
    """Verdicts on all claims of one paper, in the order of its ledger.

    Raises:
        LedgerError: as `decide`.
    """
    rows = list(rows)
    return [decide(claim, rows, preset, ledger) for claim in ledger.claims.claims]


def _judge(claim: Claim, rule: Rule, samples: list[_Sample], book: "_ledger.Ledger") -> Verdict:
    evidence = tuple(s.evidence() for s in samples)
    standins = _standins(claim, samples)
    if isinstance(rule, NumberRule):
        obstacle = _incomparable(rule, samples[0], book, standins)
        if obstacle:
            return Verdict(claim.id, NOT_TESTABLE, _kinds(standins), obstacle, evidence)
    outcome = _outcome(rule, samples, book)
    sentence = f"{outcome.text}{_scale(claim, samples)}."
    if outcome.mdd:
        sentence += f" Smallest difference that this could tell: {_digits(outcome.mdd)}."
    suffixes = _kinds(standins)
    if claim.about == "training_method" and min(s.seeds for s in samples) < 2:
        suffixes += ("single run",)
    return Verdict(
        claim.id, _word(outcome.holds, claim, samples), suffixes, sentence, evidence, outcome.mdd
    )


def _word(holds: bool | None, claim: Claim, samples: list[_Sample]) -> str:
    if holds is None:
        return UNDECIDED
    if not holds:
        return NOT_REPRODUCED
    full = all(s.first["scale"]["preset"] == "paper" for s in samples)
    # An identity or a simulation of the paper's own recursion has no smaller version.
    return REPRODUCED if full or claim.about == "mathematics" else REDUCED


def _outcome(rule: Rule, samples: list[_Sample], book: "_ledger.Ledger") -> _Outcome:
    match rule:
        case OrderingRule():
            return _ordering(rule, *samples)
        case TrendRule():
            return _trend(rule, samples)
        case NumberRule():
            return _number(rule, samples[0], book)
        case BoundRule():
            return _bound(rule, samples[0])
        case WithinRule():
            return _within(rule, samples[0])
        case CheckRule():
            passed = samples[0].first["value"] == 1
            return _Outcome(passed, f"{rule.test} {'passes' if passed else 'fails'}")


def _compare(a: _Sample, b: _Sample) -> tuple[Interval, float | None, str]:
    """a - b: interval, minimal detectable difference, how it was made."""
    if a.first["metric"] != b.first["metric"]:
        raise LedgerError(
            f"{_name(a.ref)} ({a.first['metric']}) and {_name(b.ref)} ({b.first['metric']}) are "
            "measured by different protocols and cannot be compared."
        )
    if a.over_seeds and b.over_seeds:
        how = f"Welch t interval, {len(a.rows)} and {len(b.rows)} seeds"
        return welch_interval(a.values, b.values), minimal_detectable(a.values, b.values), how
    gap = difference(a.interval(), b.interval())
    if not gap.known:
        return gap, None, "no interval"
    how = f"intervals of the two rows, n = {a.first['n']} and {b.first['n']}"
    return gap, _detectable(gap), how


def _ordering(rule: OrderingRule, better: _Sample, worse: _Sample) -> _Outcome:
    directions = {better.first["direction"], worse.first["direction"]}
    if directions not in ({"higher"}, {"lower"}):
        raise LedgerError(
            f"{_name(rule.better)} and {_name(rule.worse)} cannot be ordered: their directions "
            f"are {', '.join(sorted(directions))}."
        )
    gap, mdd, how = _compare(better, worse)
    lead = gap if directions == {"higher"} else -gap
    text = (
        f"{rule.better.row} leads {rule.worse.row} by {lead.text()} in "
        f"{rule.better.column} ({how}), {_against(rule.margin)}"
    )
    return _Outcome(_above(lead, rule.margin), text, mdd)


def _trend(rule: TrendRule, samples: list[_Sample]) -> _Outcome:
    steps = [_compare(b, a) for a, b in itertools.pairwise(samples)]
    rises = [gap if rule.direction == "increasing" else -gap for gap, _, _ in steps]
    # Every step must hold (an intersection test, so the level needs no correction).
    holds = [_above(rise, rule.margin) for rise in rises]
    whole = False if False in holds else None if None in holds else True
    mdds = [mdd for _, mdd, _ in steps if mdd is not None]
    values = " → ".join(_digits(s.interval().value) for s in samples)
    text = (
        f"{values}; steps {', '.join(r.text() for r in rises)} taken as {rule.direction} "
        f"({steps[0][2]}), {_against(rule.margin)}"
    )
    return _Outcome(whole, text, max(mdds, default=None))


def _number(rule: NumberRule, sample: _Sample, book: "_ledger.Ledger") -> _Outcome:
    ours, paper = sample.interval(), _paper_value(rule, book)
    text = (
        f"{_name(rule.ref)} is {ours.text()} ({_basis(sample)}), the paper's {_digits(paper)}, "
        f"tolerance {_digits(rule.tolerance)}"
    )
    if not ours.known:
        return _Outcome(None, text)
    inside = ours.lo - rule.tolerance <= paper <= ours.hi + rule.tolerance
    return _Outcome(inside, text, _detectable(ours))


def _bound(rule: BoundRule, sample: _Sample) -> _Outcome:
    ours = sample.interval()
    holds = _above(ours, rule.limit) if rule.op == ">" else _above(-ours, -rule.limit)
    edge = ours.known and ours.lo == ours.hi == rule.limit  # an exact value on the limit
    text = (
        f"{_name(rule.ref)} is {ours.text()} ({_basis(sample)}), claimed {rule.op} "
        f"{_digits(rule.limit)}"
    )
    return _Outcome(False if edge else holds, text, _detectable(ours))


def _within(rule: WithinRule, sample: _Sample) -> _Outcome:
    ours = sample.interval()
    text = (
        f"{_name(rule.ref)} is {ours.text()} ({_basis(sample)}), claimed within "
        f"[{_digits(rule.low)}, {_digits(rule.high)}]"
    )
    if not ours.known:
        return _Outcome(None, text)
    inside = rule.low <= ours.lo and ours.hi <= rule.high
    outside = ours.hi < rule.low or ours.lo > rule.high
    holds = True if inside else False if outside else None
    return _Outcome(holds, text, _detectable(ours))


def _detectable(interval: Interval) -> float | None:
    """Half the width: a difference as large as that is just told from none."""
    return (interval.half_lo + interval.half_hi) / 2 if interval.known else None


def _above(interval: Interval, limit: float) -> bool | None:
    """Two-sided: beyond the limit, short of it, or the interval straddles it."""
    if not interval.known:
        return None
    return True if interval.lo > limit else False if interval.hi < limit else None


# --- what may be compared, and words ----------------------------------------------------------


def _paper_value(rule: NumberRule, book: "_ledger.Ledger") -> float:
    cell = book.cell(rule.ref)
    value = rule.value if rule.value is not None or cell is None else cell.value
    if value is None:
        raise LedgerError(f"{_name(rule.ref)}: the paper prints no number here.")
    return value


def _incomparable(
    rule: NumberRule, sample: _Sample, book: "_ledger.Ledger", standins: list[str]
) -> str | None:
    """Why our number must not stand beside the paper's, or None."""
    metric = _ledger.metrics()[sample.first["metric"]]
    cell = book.cell(rule.ref)
    ours = sample.interval().text()
    paper = f"the paper's {_digits(_paper_value(rule, book))}"
    if standins:
        return f"{ours} rests on stand-ins ({', '.join(standins)}), so {paper} cannot be tested."
    if not metric.comparable_with_paper:
        return f"{ours} is {metric.name}, which is not the paper's protocol, so {paper} stays open."
    if cell is not None and cell.metric != metric.id:
        wanted = _ledger.metrics()[cell.metric]
        needs = f", which needs {'; '.join(wanted.needs)}" if wanted.needs else ""
        return f"{ours} is {metric.name}, but {paper} is {wanted.name}{needs}."
    return None


def _no_rule(claim: Claim, preset: str) -> str:
    if claim.missing:
        return f"Missing: {claim.missing.rstrip('.')}."
    return f"The {preset} preset does not decide it; {' or '.join(claim.rules)} does."


def _standins(claim: Claim, samples: list[_Sample]) -> list[str]:
    """Names from the claim, the rows' scale and the rows' metrics, each once."""
    named = [*claim.standin]
    for sample in samples:
        named += claim.standin_at.get(sample.first["scale"]["preset"], ())
        named += sample.first["scale"].get("standin", ())
        own = _ledger.metrics()[sample.first["metric"]].standin
        named += [own] if own and not any(n.startswith(own) for n in named) else []
    return list(dict.fromkeys(named))


def _kinds(standins: list[str]) -> tuple[str, ...]:
    kinds = {_ledger.standin_kind(name) for name in standins}
    words = {"features": "stand-in features", "data": "stand-in data", None: "stand-in"}
    return tuple(text for kind, text in words.items() if kind in kinds)


def _scale(claim: Claim, samples: list[_Sample]) -> str:
    presets = sorted({s.first["scale"]["preset"] for s in samples} - {"paper"})
    if not presets or claim.about == "mathematics":
        return ""
    budgets = [s.first["scale"].get("budget") for s in samples]
    known = [b for b in budgets if b is not None]
    share = f", {100 * max(known):.2g} % of the paper's budget" if known else ""
    return f"; {' and '.join(presets)} scale{share}"


def _basis(sample: _Sample) -> str:
    if sample.over_seeds:
        return f"t interval over {len(sample.rows)} seeds"
    if sample.first["lo"] is None:
        exact = sample.about == "mathematics"
        return "exact" if exact else str(sample.first.get("interval", "no interval"))
    return f"{sample.first.get('interval', 'interval')}, n = {sample.first['n']}"


def _against(margin: float) -> str:
    return f"against a margin of {_digits(margin)}"


def _name(ref: Ref) -> str:
    return f"{ref.id} ({ref.row}, {ref.column})"


def _digits(number: float | None) -> str:
    return "none" if number is None else f"{number + 0.0:.4g}"  # no -0
