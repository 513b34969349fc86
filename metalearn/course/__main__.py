"""The command line: `python -m metalearn.course build [--check] [--no-execute] [slug ...]`."""

import argparse
import sys
from pathlib import Path

from metalearn.course import builder


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 if all went well, 1 if a lesson fails or has drifted."""
    parser = argparse.ArgumentParser(prog="python -m metalearn.course")
    build = parser.add_subparsers(required=True).add_parser("build", help="build lessons from their sources")
    build.add_argument("slug", nargs="*", help="lessons to build, such as 02_maml or maml (default: all)")
    build.add_argument("--root", type=Path, default=Path("."), help="folder of lessons/ and solutions/")
    mode = build.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="write nothing; fail if a notebook has drifted")
    mode.add_argument("--no-execute", action="store_true", help="write the lessons only, execute nothing")
    options = parser.parse_args(arguments)
    try:
        builder.sources(options.root, options.slug)
    except ValueError as error:
        parser.error(str(error))
    if options.check:
        complaints = builder.check(options.root, options.slug)
        print("\n".join(complaints) or "all notebooks match their sources")
        return int(bool(complaints))
    return int(not builder.build(options.root, options.slug, run=not options.no_execute))


if __name__ == "__main__":
    sys.exit(main())
