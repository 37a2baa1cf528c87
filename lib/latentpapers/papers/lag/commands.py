"""The room's command line: trains a run, or makes rows that ship as numbers."""

from pathlib import Path

from latentpapers.papers.lag.runs import RUNS
from latentpapers.papers.lag.scores import score


def train_from_cli(arguments: list[str]) -> int:
    """`Runs.train_from_cli`; `--score FILE --out FOLDER` measures a network that ships as numbers
    (`score`)."""
    if "--score" not in arguments:
        return RUNS.train_from_cli(arguments)
    import argparse

    parser = argparse.ArgumentParser("latentpapers train lag", allow_abbrev=False)
    parser.add_argument("--score", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    score(args.score, args.out)
    return 0
