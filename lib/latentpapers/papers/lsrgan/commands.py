"""The room's command line: trains a run, or makes rows that ship as numbers."""

from pathlib import Path

from latentpapers.papers.lsrgan.rereading import score_readings
from latentpapers.papers.lsrgan.runs import RUNS
from latentpapers.papers.lsrgan.scores import (
    CROPS,
    PUBLISHED_SETS,
    SCORED,
    STANDARD,
    score,
    score_first_stage,
)


def train_from_cli(arguments: list[str]) -> int:
    """`Runs.train_from_cli`; `--score --out FOLDER` measures shipped networks (`score`), with
    `--networks FOLDER` those of a seed that does not ship, or (`--what`) those with the standard
    loss, those of other readings, or the first stage from public weights."""
    if "--score" not in arguments:
        return RUNS.train_from_cli(arguments)
    import argparse

    parser = argparse.ArgumentParser("latentpapers train lsrgan", allow_abbrev=False)
    parser.add_argument("--score", action="store_true", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--networks", type=Path)
    parser.add_argument("--what", default="published",
                        choices=["published", "standard", "first_stage", "readings"])  # fmt: skip
    args = parser.parse_args(arguments)
    if args.what != "published" and args.networks is None:
        parser.error(f"--what {args.what} needs --networks: those networks do not ship")
    alone = {"first_stage": score_first_stage, "readings": score_readings}
    if args.what in alone:
        alone[args.what](args.networks, args.out)
        return 0
    names, sets = SCORED, PUBLISHED_SETS
    if args.networks is not None:  # the first stage is seed 0's; and no network is there for crops
        names, sets = SCORED[1:], (*PUBLISHED_SETS, *CROPS)
    if args.what == "standard":
        names, sets = STANDARD, (*CROPS,)
    score(names, sets, args.out, args.seed, sets, args.networks, args.what)
    return 0
