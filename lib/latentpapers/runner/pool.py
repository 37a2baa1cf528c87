"""Several seeds of one number become one number with an interval over seeds."""

import math
from collections.abc import Iterable
from typing import Any

_KEY = ("paper", "id", "row", "column", "metric")


def pooled(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """`rows`, and one more for each number that has several seeds, with `"seed": null`.

    The pooled row holds the mean, a 95 % t interval over seeds (mean ± t · s / sqrt(n), n - 1
    degrees of freedom), `n` = number of seeds and a scale that names them.

    Args:
        rows: rows of the schema in docs/architecture.md; pooled ones among them are dropped.
    """
    single = [row for row in rows if row["seed"] is not None]
    groups: dict[tuple[str, ...], dict[int, dict[str, Any]]] = {}
    for row in single:
        groups.setdefault(tuple(row[k] for k in _KEY), {})[row["seed"]] = row
    return single + [_pool([g[s] for s in sorted(g)]) for g in groups.values() if len(g) > 1]


def _pool(rows: list[dict[str, Any]]) -> dict[str, Any]:
    from scipy.stats import t

    values = [row["value"] for row in rows]
    n, mean = len(values), math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(t.ppf(0.975, n - 1)) * spread / math.sqrt(n)
    seeds = [row["seed"] for row in rows]
    # a run that a time limit ended early speaks for all: the least that any has seen
    least = min(rows, key=lambda row: row["scale"]["images"])["scale"]
    seen = {name: least[name] for name in ("images", "budget") if name in least}
    scale = {**rows[0]["scale"], "seeds": seeds, **seen}
    interval = {"lo": mean - half, "hi": mean + half, "interval": "t over seeds, 95 %"}
    return {**rows[0], "value": mean, **interval, "n": n, "seed": None, "scale": scale}


def order(row: dict[str, Any]) -> tuple[Any, ...]:
    """Sort key of `metrics.jsonl`: place in the paper, then seed, pooled rows last."""
    place = (row["id"], row["row"], row["column"], row["metric"])
    return (*place, row["seed"] is None, row["seed"] or 0)
