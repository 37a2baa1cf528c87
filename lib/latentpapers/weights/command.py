"""`latentpapers weights`: list, describe, fetch, verify and convert pretrained networks."""

import argparse
import sys
from pathlib import Path

from latentpapers.errors import UserError
from latentpapers.weights import registry


def main(arguments: list[str]) -> int:
    """Runs `latentpapers weights ARGUMENTS`.

    Raises:
        UserError: what the command could not do, in one sentence.
    """
    chosen = _parser().parse_args(arguments)
    return chosen.run(chosen)


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="latentpapers weights")
    actions = top.add_subparsers(required=True, metavar="list | info | fetch | verify | convert")
    actions.add_parser("list", help="the weights, and which are here").set_defaults(run=_list)
    info = actions.add_parser("info", help="what is known about one")
    info.add_argument("name")
    info.set_defaults(run=_info)
    fetch = actions.add_parser("fetch", help="bring one")
    fetch.add_argument("name")
    fetch.add_argument("--dest", type=Path, help="folder; the cache if absent")
    fetch.set_defaults(run=_fetch)
    verify = actions.add_parser("verify", help="read and check one, or all that are here")
    verify.add_argument("name", nargs="?")
    verify.set_defaults(run=_verify)
    _convert_options(actions.add_parser("convert", help="turn a file into our own form"))
    return top


def _convert_options(one: argparse.ArgumentParser) -> None:
    one.add_argument("name")
    one.add_argument("file", type=Path, help="the published file, or the wheel that holds it")
    one.add_argument("--dest", type=Path, help="folder; the cache if absent")
    one.add_argument(
        "--allow-pickle-stub",
        action="store_true",
        help="read a pickle that names foreign classes; none of them is loaded",
    )
    one.set_defaults(run=_convert)


def _list(chosen: argparse.Namespace) -> int:
    for name in registry.names():
        known = registry.info(name)
        state = "here" if known.path else "absent"
        print(f"{name:<22} {state:<7} {known.megabytes:>4} MB  {known.what}")
    return 0


def _info(chosen: argparse.Namespace) -> int:
    known = registry.info(chosen.name)
    lines = {
        "what": known.what,
        "size": f"{known.megabytes} MB",
        "licence": known.licence,
        "source": "\n         ".join(known.source),
        "files": ", ".join(known.files),
        "here": known.path or "no",
    }
    for key, value in lines.items():
        print(f"{key:<8} {value}")
    return 0


def _fetch(chosen: argparse.Namespace) -> int:
    known = registry.info(chosen.name)
    print(f"{known.name}: {known.megabytes} MB, licence: {known.licence}", file=sys.stderr)
    print(registry.fetch(chosen.name, chosen.dest, progress=sys.stderr.isatty()))
    return 0


def _verify(chosen: argparse.Namespace) -> int:
    if chosen.name:
        print(f"{chosen.name}: in order, {registry.verify(chosen.name)}")
        return 0
    broken = 0
    for name in filter(registry.available, registry.names()):
        try:
            print(f"{name}: in order, {registry.verify(name)}")
        except UserError as error:
            print(error, file=sys.stderr)
            broken += 1
    return 1 if broken else 0


def _convert(chosen: argparse.Namespace) -> int:
    options = {"allow_pickle_stub": chosen.allow_pickle_stub}
    print(registry.convert(chosen.name, chosen.file, chosen.dest, **options))
    return 0
