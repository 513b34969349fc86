"""The recipe for a hub agrees with itself, with what a release writes, and with the term that is played by it."""

import re
from pathlib import Path

from machine import recipe

from metalearn.course.publishing.release import CONFIG


class Config:
    """What traitlets' `get_config` gives: any setting can be set."""

    def __getattr__(self, name):
        setattr(self, name, Config())
        return getattr(self, name)


def configured(*files):
    """The configuration that some files of the recipe make."""
    config = Config()
    for file in files:
        exec(recipe()[file], {"get_config": lambda: config})
    return config


HUB, EVERYONE = "/etc/jupyterhub/jupyterhub_config.py", "/etc/jupyter/nbgrader_config.py"


def test_the_groups_are_those_of_the_course_and_hold_everyone_who_may_sign_in():
    hub, everyone = configured(HUB), configured(EVERYONE)
    course = everyone.CourseDirectory.course_id
    assert f'course_id = "{course}"' in CONFIG
    groups = hub.JupyterHub.load_groups
    assert groups.keys() == {f"formgrade-{course}", f"nbgrader-{course}"}
    members = [user for group in groups.values() for user in group["users"]]
    assert sorted(members) == sorted(hub.Authenticator.allowed_users)
    assert re.search(r"for user in (.+); do useradd", recipe()["as root: prepare"])[1].split() == members


def test_the_exchange_is_the_folder_that_is_made_and_the_class_the_one_that_is_released():
    blocks = recipe()
    assert f"mkdir --parents --mode=777 {configured(EVERYONE).Exchange.root}\n" in blocks["as root: prepare"]
    root = Path(configured("~teacher/.jupyter/nbgrader_config.py").CourseDirectory.root)
    assert root == Path.home() / "class"
    commands = [text for name, text in blocks.items() if name.startswith("as teacher")]
    assert [text for text in commands if "~/class\n" not in text] == []


def test_the_term_runs_every_block():
    played = Path(__file__).with_name("term.py").read_text("utf-8")
    named = set(re.findall(r'"(as root: [\w ]+)"', played))
    named |= {f"as teacher: {name}" for name in re.findall(r'\.teach\("([\w ]+)"', played)}
    assert named == {name for name in recipe() if name.startswith("as ")}
