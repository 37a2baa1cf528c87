"""Tables: our numbers beside the paper's, never beside a number of another protocol.

Every function is pure in (ledger, rows): a committed table can be rebuilt from `metrics.jsonl` and
compared byte by byte (`report.stamp`).
"""

import html
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentpapers import storage
from latentpapers.config import Scale
from latentpapers.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("row", "column", "ours", "n", "paper", "note", "scale")
NOTHING = "—"
Row = dict[str, Any]
Key = tuple[str, str, str]


def compare(ledger: Any, table_id: str, rows: Iterable[Row]) -> "pd.DataFrame":
    """One line a (row, column, protocol): ours with its interval, the paper's number, a note.

    The paper's number stands on our line only if row, column *and* metric are the same, so a
    stand-in protocol gets a line of its own. Lines follow the paper's order; what the paper does
    not print comes after.

    Args:
        ledger: has `.table(id)` with `.cells` (row, column, metric, direction, value, printed,
            source).
        table_id: for example `table_1`.
        rows: result rows (docs/architecture.md); those of other tables are ignored. With several
            seeds the pooled row (`seed` null) is shown.

    Returns:
        Text columns `row, column, ours, n, paper, note, scale`.

    Raises:
        UnknownName: the ledger has no such table.
        UserError: two different numbers for one place.
    """
    import pandas as pd

    cells = {(c.row, c.column, c.metric): c for c in ledger.table(table_id).cells}
    ours = shown(row for row in rows if row["id"] == table_id)
    lines = [_line(key, ours.get(key), cells.get(key)) for key in _ordered(cells, ours)]
    return pd.DataFrame(lines, columns=list(COLUMNS), dtype=object)


def shown(rows: Iterable[Row]) -> dict[Key, Row]:
    """The row to show for each (row, column, metric): the pooled one, else that of the only seed.

    Raises:
        UserError: several seeds without a pooled row, or two rows for one place and seed.
    """
    groups: dict[Key, dict[Any, Row]] = {}
    for row in rows:
        group = groups.setdefault((row["row"], row["column"], row["metric"]), {})
        if row["seed"] in group and group[row["seed"]] != row:
            raise UserError(
                f"two different numbers for {row['id']}, {row['row']} / {row['column']}, seed "
                f"{row['seed']}; run `latentpapers collect` again."
            )
        group[row["seed"]] = row
    return {key: _of_seeds(key, group) for key, group in groups.items()}


def _of_seeds(key: Key, group: dict[Any, Row]) -> Row:
    if None in group:
        return group[None]
    if len(group) > 1:
        raise UserError(
            f"{key[0]} / {key[1]} has {len(group)} seeds but no pooled row; run `latentpapers "
            "collect` first."
        )
    return next(iter(group.values()))


def _ordered(cells: dict[Key, Any], ours: dict[Key, Row]) -> list[Key]:
    """The paper's rows in its order, in each the paper's columns first; then rows of our own."""
    keys = [*cells, *(k for k in ours if k not in cells)]
    names = list(dict.fromkeys(k[0] for k in keys))
    columns = list(dict.fromkeys(k[1] for k in keys))
    return sorted(keys, key=lambda k: (names.index(k[0]), columns.index(k[1]), k not in cells))


def _line(key: Key, row: Row | None, cell: Any) -> list[str]:
    return [
        key[0],
        key[1],
        number(row) if row else NOTHING,
        f"{row['n']:,}" if row and row.get("n") is not None else NOTHING,
        printed(cell),
        note(row, cell),
        scale_text(row["scale"]) if row else NOTHING,
    ]


# --- texts -----------------------------------------------------------------------------------


def number(row: Row) -> str:
    """`7.91 [7.85, 7.97]`: digits follow the interval (two that count of its half width).

    A row without interval shows four significant digits and why: `7.910 (no interval: …)`.
    """
    value, lo, hi, unit = row["value"], row.get("lo"), row.get("hi"), row.get("unit") or ""
    tail = f" {unit}" if unit else ""
    if lo is None or hi is None:
        reason = (row.get("interval") or "none").removeprefix("none").removeprefix(":").strip()
        return f"{significant(value)}{tail} (no interval{': ' if reason else ''}{reason})"
    show = _rounded((hi - lo) / 2, max(abs(value), abs(lo), abs(hi)))
    return f"{show(value)} [{show(lo)}, {show(hi)}]{tail}"


def _rounded(half: float, size: float) -> Callable[[float], str]:
    import math

    if half <= 0:
        return significant
    places = 1 - math.floor(math.log10(half))
    if places > 6 or size >= 1e6:
        digits = max(3, places + math.floor(math.log10(max(size, 1e-300))) + 1)
        return lambda v: f"{v:.{digits}g}"
    return lambda v: f"{v:,.{max(places, 0)}f}"


def significant(value: float) -> str:
    """Four significant digits; whole numbers below a million as they are."""
    if float(value).is_integer() and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:#.4g}".rstrip(".")


def printed(cell: Any) -> str:
    """The paper's number as printed, with a mark if the paper quotes somebody else's."""
    if cell is None:
        return NOTHING
    return f"{cell.printed} (quoted)" if cell.source == "quoted" else cell.printed


def note(row: Row | None, cell: Any) -> str:
    """How our number and the paper's may be read together; no verdict, claims give those.

    What the ledger remarks on the printed number (a misprint, say) stands at the end.
    """
    remark = cell.note if cell is not None else None
    return "; ".join(filter(None, [_together(row, cell), remark]))


def _together(row: Row | None, cell: Any) -> str:
    if row is None:
        return _absent(cell)
    if cell is None:
        return _alone(row)
    if cell.value is None:
        return "the paper gives no number"
    limits = _limits(row["scale"])
    # with a stand-in it is another quantity: neither better nor worse than what is printed
    compared = [] if row["scale"]["standin"] else [_side(row, cell.value)]
    return "; ".join([*compared, *limits])


def _absent(cell: Any) -> str:
    """Why a printed number has none of ours beside it."""
    from latentpapers import ledger

    if cell.value is None:
        return "no number in the paper, none of ours"
    if cell.source == "quoted":
        return "quoted by the paper, not run by us"
    metric = ledger.metrics().get(cell.metric)
    needs = [need.partition(" (")[0] for need in metric.needs] if metric else []
    return "; ".join(["not run in this preset", *(f"needs {need}" for need in needs)])


def _alone(row: Row) -> str:
    standins = row["scale"].get("standin") or []
    return f"ours alone, stand-in: {', '.join(standins)}" if standins else "ours alone"


def _limits(scale: dict[str, Any]) -> list[str]:
    out = [f"not comparable, stand-in: {', '.join(scale['standin'])}"] if scale["standin"] else []
    return out if scale["preset"] == "paper" else [*out, "reduced scale"]


def _side(row: Row, paper: float) -> str:
    value, lo, hi = row["value"], row.get("lo"), row.get("hi")
    if lo is not None and hi is not None and lo <= paper <= hi:
        return "paper's value inside our interval"
    if value == paper:
        return "equal to the paper"
    word = "above" if value > paper else "below"
    if row["direction"] in ("higher", "lower"):
        word = "better than" if (value > paper) == (row["direction"] == "higher") else "worse than"
    return f"{significant(abs(value - paper))} {word} the paper"


def scale_text(scale: dict[str, Any] | Scale) -> str:
    """The scale label of a row (`config.Scale.text`)."""
    if isinstance(scale, dict):
        lists = {k: tuple(scale[k]) for k in ("seeds", "standin") if k in scale}
        scale = Scale(**{**scale, **lists})
    return scale.text()


def caption(ledger: Any, table_id: str, rows: Iterable[Row]) -> str:
    """The paper's caption, and which columns are ours and must not be compared with it."""
    table = ledger.table(table_id)
    known = {c.metric for c in table.cells}
    metrics: dict[str, dict[str, None]] = {}  # column -> its metrics, in order
    for row in rows:
        if row["id"] == table_id and row["metric"] not in known:
            metrics.setdefault(row["column"], {})[row["metric"]] = None
    columns: dict[str, list[str]] = {}
    for column, found in metrics.items():
        columns.setdefault(", ".join(found), []).append(column)
    text = f"{label(table_id)}: {table.caption.rstrip('.')}."
    if columns:
        groups = "; ".join(f"{', '.join(names)} ({found})" for found, names in columns.items())
        text += f" Ours alone, not comparable with any printed number: {groups}."
    return text


def label(id: str) -> str:
    """`table_1` -> `Table 1`, `fig_A1` -> `Figure A1`."""
    kind, _, rest = id.partition("_")
    return f"{ {'fig': 'Figure', 'table': 'Table'}.get(kind, kind.capitalize()) } {rest}".strip()


# --- output ----------------------------------------------------------------------------------


def files(df: "pd.DataFrame", caption: str, scale: str) -> dict[str, bytes]:
    """`{".csv": …, ".md": …}`: the bytes that `write` stores."""
    return {
        ".csv": df.to_csv(index=False, lineterminator="\n").encode(),
        ".md": to_markdown(df, caption, scale).encode(),
    }


def write(df: "pd.DataFrame", path_base: Path, caption: str, scale: str) -> None:
    """Writes `<path_base>.csv` and `<path_base>.md`, each atomically."""
    base = Path(path_base)
    for suffix, content in files(df, caption, scale).items():
        storage.write_bytes(base.with_name(base.name + suffix), content)


def to_markdown(df: "pd.DataFrame", caption: str, scale: str) -> str:
    """Caption, table and scale labels as Markdown; long labels become letters with a legend."""
    df, legend = _legend(df, scale)
    lines = [markdown_row(df.columns), markdown_row(["---"] * len(df.columns))]
    lines += [markdown_row(map(escaped, line)) for line in df.itertuples(index=False)]
    small = "\n\n".join(f"*{escaped(text)}*" for text in legend)
    return f"**{escaped(caption)}**\n\n" + "\n".join(lines) + f"\n\n{small}\n"


def escaped(text: Any) -> str:
    """Text whose stars, dollars, backticks and angles Markdown leaves alone (`BEGAN*`)."""
    return "".join(f"\\{c}" if c in "\\*$`<" else c for c in str(text))


def markdown_row(cells: Iterable[Any]) -> str:
    """One line of a Markdown table; pipes and line breaks in cells are made harmless."""
    texts = (str(c).replace("|", "\\|").replace("\n", " ") for c in cells)
    return "| " + " | ".join(texts) + " |"


def _legend(df: "pd.DataFrame", scale: str) -> tuple["pd.DataFrame", list[str]]:
    """The table with scale labels as letters, and what they mean; without the column where all
    lines share one label."""
    if "scale" not in df:
        return df, [scale] * bool(scale)
    labels = [text for text in dict.fromkeys(df["scale"]) if text != NOTHING]
    if len(labels) <= 1:
        return df.drop(columns="scale"), labels or [scale] * bool(scale)
    letter = {text: chr(ord("a") + i) for i, text in enumerate(labels)} | {NOTHING: NOTHING}
    return df.assign(scale=[letter[t] for t in df["scale"]]), [
        f"{letter[text]}: {text}" for text in labels
    ]


_CELL = "text-align:{align};"  # short: a table has a thousand of them
_ROW = '<tr style="border-bottom:1px solid #8884;">'
_RIGHT = frozenset({"n", "ours", "paper", "params"})


def to_html(df: "pd.DataFrame", caption: str = "", scale: str = "") -> str:
    """The table as HTML with its styles inside: legible in notebooks, light or dark."""
    df, legend = _legend(df, scale)
    head = "".join(_cell("th", name, name) for name in df.columns)
    body = "".join(
        f"{_ROW}{''.join(_cell('td', n, v) for n, v in zip(df.columns, line))}</tr>"
        for line in df.itertuples(index=False)
    )
    return (
        '<table cellpadding="4" '
        'style="border-collapse:collapse;font-size:13px;line-height:1.35;margin:8px 0;">'
        f'<caption style="caption-side:top;text-align:left;font-weight:600;padding:4px 10px;">'
        f"{html.escape(caption)}</caption><thead>{_ROW}{head}</tr></thead><tbody>{body}</tbody>"
        f"</table>{''.join(map(_small, legend))}"
    )


def _cell(tag: str, column: str, value: Any) -> str:
    style = _CELL.format(align="right" if column in _RIGHT else "left")
    if column in ("note", "scale") and tag == "td":
        style += "opacity:0.75;font-size:12px;"
    return f'<{tag} style="{style}">{html.escape(str(value))}</{tag}>'


def _small(text: str) -> str:
    style = "font-size:11px;opacity:0.7;padding:0 10px;"
    return f'<div style="{style}">{html.escape(text)}</div>'


class View:
    """A table as a notebook shows it: HTML, and Markdown where HTML is not rendered."""

    def __init__(self, df: "pd.DataFrame", caption: str = "", scale: str = "") -> None:
        self.df, self.caption, self.scale = df, caption, scale

    def _repr_html_(self) -> str:
        return to_html(self.df, self.caption, self.scale)

    def _repr_markdown_(self) -> str:
        return to_markdown(self.df, self.caption, self.scale)

    def __repr__(self) -> str:
        return f"<table: {len(self.df)} lines>"


def common_scale(rows: Sequence[Row]) -> str:
    """The scale labels of `rows`, each once, in order."""
    return " | ".join(dict.fromkeys(scale_text(r["scale"]) for r in rows))


def build(ledger: Any, table_id: str, rows: Iterable[Row]) -> dict[str, bytes]:
    """The files that `collect` stores, suffix -> bytes, as a function of ledger and rows."""
    rows = list(rows)
    mine = [row for row in rows if row["id"] == table_id]
    scale = common_scale(list(shown(mine).values()))
    return files(compare(ledger, table_id, rows), caption(ledger, table_id, rows), scale)
