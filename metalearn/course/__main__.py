"""The command line: `python -m metalearn.course open|build|release|site|badge ...`; `--help` after each tells more."""

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from metalearn.course import _what_to_install
from metalearn.course.publishing import badges


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 if all went well, 1 if a lesson fails or has drifted."""
    parser = argparse.ArgumentParser(
        prog="python -m metalearn.course",
        description="Open the course, or make what it is published as from the sources of its lessons.",
        epilog=_what_is_here(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=None)
    commands = parser.add_subparsers()

    command = commands.add_parser("open", help="open a lesson in JupyterLab, in a copy that is yours")
    command.add_argument(
        "slug", nargs="?", default="", help="a lesson, such as 02_maml, maml or 02 (default: the first)"
    )
    _add_root(command)
    command.set_defaults(run=_open)

    command = commands.add_parser("build", help="build lessons from their sources")
    _add_lessons(command)
    mode = command.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="write nothing; fail if a notebook has drifted")
    mode.add_argument("--no-execute", action="store_true", help="write the lessons only, execute nothing")
    command.set_defaults(run=_build)

    command = commands.add_parser("release", help="make an nbgrader course from the same sources")
    _add_lessons(command)
    command.add_argument("--to", type=Path, required=True, metavar="DIR", help="a new folder, or that of a release")
    command.add_argument("--seed", metavar="SECRET", help="draws the hidden instances (default: a random one)")
    command.set_defaults(run=_release)

    command = commands.add_parser("site", help="make the website, from notebooks that are built")
    _add_root(command)
    command.add_argument("--to", type=Path, default=Path("_site"), metavar="DIR", help="where (default: _site)")
    command.set_defaults(run=_site)

    command = commands.add_parser("badge", help="print links that open the lessons on Binder, Colab or a JupyterHub")
    _add_root(command)
    command.add_argument("--repo", metavar="URL", help="where the course is published (default: see pyproject.toml)")
    command.add_argument("--branch", default="main", help="default: main")
    command.add_argument("--hub", default=badges.HUB, metavar="URL", help="a JupyterHub that has nbgitpuller")
    command.add_argument(
        "--write",
        action="store_true",
        help="write URL into pyproject.toml and CITATION.cff, and links into README.md and the lessons",
    )
    command.add_argument("--remove", action="store_true", help="take back what --write wrote, and print nothing")
    command.set_defaults(run=_badge)

    options = parser.parse_args(arguments)
    if options.run is None:
        parser.print_help()
        return 0
    try:
        return options.run(options)
    except ModuleNotFoundError as error:
        parser.error(_what_to_install(error))
    except (ValueError, OSError) as error:
        parser.error(str(error))


def _what_is_here() -> str:
    """What can be done in this folder, with what is installed."""
    lines = []
    if not list(Path("solutions").glob("[0-9][0-9]_*.py")):
        lines.append(
            "There are no lessons in this folder, and none in the installed package: they are in the course's\n"
            "repository. Run the commands there, or name its folder with --root. What the package has is the library\n"
            "(import metalearn) and what the lessons import (from metalearn.course import check, hint, quiz, ...)."
        )
    if find_spec("ipywidgets") is None or find_spec("jupytext") is None:
        lines.append(
            "JupyterLab and what else the lessons need is not installed, so that only the library works. It comes\n"
            'with the extra `course`: pip install "metalearn-course[course]".'
        )
    return "\n\n".join(lines)


def _add_lessons(command: argparse.ArgumentParser) -> None:
    command.add_argument("slug", nargs="*", help="lessons, such as 02_maml, maml or 02 (default: all)")
    _add_root(command)


def _add_root(command: argparse.ArgumentParser) -> None:
    command.add_argument("--root", type=Path, default=Path("."), help="folder of lessons/ and solutions/")


# Each command imports what it needs, which may not be installed.


def _open(options: argparse.Namespace) -> int:
    import zmq
    from jupyterlab.labapp import main as jupyterlab

    from metalearn.course import syllabus
    from metalearn.course.records import copy

    lessons = [
        lesson.stem for lesson in syllabus.LESSONS if options.slug in ("", lesson.number, lesson.slug, lesson.stem)
    ]
    if not lessons:
        known = ", ".join(lesson.stem for lesson in syllabus.LESSONS)
        raise ValueError(f"no such lesson: {options.slug} (there are {known})")
    for sentence in copy.update(options.root):
        print(sentence)
    # Without the log of its start, the address is what is seen: a browser may be missing, as in a container. And each
    # kernel would warn that what it says to the server, on the same machine, is not encrypted.
    settings = ["--ServerApp.log_level=ERROR"]
    if zmq.has("curve"):
        settings.append("--KernelManager.transport_encryption=auto")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        print("You are root, as in a container. JupyterLab starts all the same; whoever has its address can use it.")
        settings.append("--ServerApp.allow_root=True")
    print("Starting JupyterLab. If no browser opens, open the address below. Ctrl-C ends it.", flush=True)
    folder = (options.root / copy.FOLDER).resolve()
    jupyterlab([*settings, f"--ServerApp.root_dir={folder}", f"--LabApp.default_url=/lab/tree/{lessons[0]}.ipynb"])
    return 0


def _build(options: argparse.Namespace) -> int:
    from metalearn.course.publishing import builder

    if options.check:
        complaints = builder.check(options.root, options.slug)
        print("\n".join(complaints) or "all notebooks match their sources")
        return int(bool(complaints))
    return int(not builder.build(options.root, options.slug, run=not options.no_execute))


def _release(options: argparse.Namespace) -> int:
    from metalearn.course.publishing.release import release

    for notebook in release(options.root, options.to, options.slug, options.seed):
        print(notebook)
    print(f"Next: cd {options.to} && nbgrader generate_assignment --assignment='*'", file=sys.stderr)
    return 0


def _site(options: argparse.Namespace) -> int:
    from metalearn.course.publishing import site

    if not site.build(options.root, options.to):
        return 1
    print(options.to / "index.html")
    return 0


def _badge(options: argparse.Namespace) -> int:
    from metalearn.course.publishing import builder

    if options.remove:
        if options.write or options.repo:
            raise ValueError("--remove takes back what --write wrote: leave --write and --repo out")
        badges.unpublish(options.root)
        return int(not builder.build(options.root, run=False))
    repository = badges.web_address(options.repo) if options.repo else badges.published(options.root)
    if repository is None:
        raise ValueError("--repo URL must say where the course is published, as pyproject.toml does not")
    if options.write:
        if options.branch != "main":
            raise ValueError("--write puts links to the branch main into the lessons: leave --branch out")
        badges.publish(options.root, repository)
        if not builder.build(options.root, run=False):
            return 1
    lessons = [source.stem for source in builder.sources(options.root)]
    print(badges.markdown(repository, options.branch, lessons, options.hub))
    for note in badges.notes(repository, options.root):
        print(note, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
