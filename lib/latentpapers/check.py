"""Checks that notebooks print: two-sided, with the tolerance's reason beside it.

`close` never prints digits that come out of training or a network (they move between machines);
it prints `pass` or raises.
"""

from typing import Any


class CheckFailed(AssertionError):
    """A notebook check that does not hold."""


def close(value: Any, reference: Any, *, rtol: float = 0.0, atol: float = 0.0, why: str) -> str:
    """`pass` if |value - reference| <= atol + rtol * |reference| everywhere.

    Args:
        value, reference: numbers, arrays or tensors of one shape.
        rtol, atol: relative and absolute tolerance; at least one is positive.
        why: where the tolerance comes from, in a few words.

    Raises:
        CheckFailed: with the largest deviation, also for NaN, infinity, another shape or nothing
            to compare.
    """
    import numpy as np

    if not why or max(rtol, atol) <= 0:
        raise ValueError("a check needs a positive tolerance and its reason.")
    a, b = (np.asarray(_plain(v), dtype=np.float64) for v in (value, reference))
    if a.shape != b.shape:
        raise CheckFailed(f"shape {a.shape} against {b.shape}")
    if not a.size:
        raise CheckFailed("there is nothing to compare")
    excess = np.abs(a - b) - (atol + rtol * np.abs(b))
    if not np.all(excess <= 0):  # NaN compares false, so it fails here
        raise CheckFailed(f"differs by {np.max(np.abs(a - b)):.3g}; allowed for {why}")
    return "pass"


def fails(value: Any, reference: Any, **tolerance: Any) -> str:
    """`pass` if `close` would fail: the negative control beside a check."""
    try:
        close(value, reference, **tolerance)
    except CheckFailed:
        return "pass"
    raise CheckFailed("the negative control passed the check: the check cannot fail")


def table(**results: str) -> None:
    """Prints one aligned line a result, for a cell that nbval compares."""
    width = max(map(len, results))
    print("\n".join(f"{name.replace('_', ' '):<{width}}  {text}" for name, text in results.items()))


def _plain(value: Any) -> Any:
    return value.detach().cpu().double().numpy() if hasattr(value, "detach") else value
