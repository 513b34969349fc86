"""A machine of its own for a hub: its accounts, its homes, its /etc and its /srv are gone when the program ends.

The page for teachers says how to set up the hub; here its commands are run, and its files written, as they stand there.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "metalearn/course/publishing/site/teaching.md"
SECTION = "## On a JupyterHub\n"
# Nothing of it leaves what `unshare` makes: its mounts and its processes end with it.
NAMESPACES = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]


def recipe():
    """The blocks of code of the page's section on hubs, by their first line: a file's path, or who runs what."""
    section = PAGE.read_text("utf-8").split(SECTION)[1].split("\n## ")[0]
    blocks = re.findall(r"^```(?:sh|python)\n# (.+)\n([^`]+)^```$", section, re.MULTILINE)
    assert len(dict(blocks)) == section.count("\n```") / 2
    return dict(blocks)


class Machine:
    """What is meant to be private is, once this exists; so it is made in the namespaces only."""

    def __init__(self, folder):
        self.log = (folder / "commands.log").open("a")
        self.blocks = recipe()
        shutil.copytree("/etc", folder / "etc", symlinks=True, ignore_dangling_symlinks=True)
        for name in ("etc", "home", "srv"):
            (folder / name).mkdir(exist_ok=True)
            subprocess.run(["mount", "--bind", folder / name, f"/{name}"], check=True)
        Path("/srv/metalearn").mkdir()
        subprocess.run(["mount", "--bind", ROOT, "/srv/metalearn"], check=True)
        self.environment = {"PATH": f"/srv/jupyter/bin:/srv/npm/bin:{os.environ['PATH']}", "LANG": "C.UTF-8"}

    def run(self, block, **changes):
        """Runs a block of the recipe as the user whom its first line names, with some words of it changed."""
        user = re.match(r"as (\w+)", block)[1]
        return self.run_as(user, self._changed(block, changes))

    def run_as(self, user, text, status=0):
        """Runs a script; what it wrote."""
        ran = subprocess.run(**self._call(user, text), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.log.write(f"== as {user}\n{text}\n{ran.stdout}\n")
        self.log.flush()
        assert ran.returncode == status, f"exit {ran.returncode} of:\n{text}\n{ran.stdout[-4000:]}"
        return ran.stdout

    def start(self, block, log):
        """Starts a block of the recipe that does not end."""
        return subprocess.Popen(**self._call("root", self.blocks[block]), stdout=log, stderr=subprocess.STDOUT)

    def write_files(self):
        """Writes the files of the recipe, each with the owner of the folder that it is in."""
        for name, text in self.blocks.items():
            if name.startswith(("/", "~")):
                path = Path(name).expanduser()
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, "utf-8")
                owner = Path(name).parts[0].removeprefix("~") if name.startswith("~") else "root"
                for each in (path, path.parent):
                    shutil.chown(each, owner, owner)

    def _changed(self, block, changes):
        text = self.blocks[block]
        for old, new in changes.items():
            assert old in text, f"{old} is not in the block {block}"
            text = text.replace(old, new)
        return text

    def _call(self, user, text):
        home = Path(f"~{user}").expanduser()
        private = self.environment | {"HOME": str(home)}
        if user == "root":
            return {"args": ["bash", "-euc", text], "env": os.environ | private | {"npm_config_prefix": "/srv/npm"}}
        names = {"user": user, "group": user, "extra_groups": [], "cwd": home}
        return {"args": ["bash", "-euc", text], "env": private | {"USER": user, "LOGNAME": user}, **names}
