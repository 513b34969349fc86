"""What a student and a teacher do on the hub, in a browser."""

import re
from pathlib import Path

from lab import START_TIMEOUT, Notebook

IDLE = "Python 3 (ipykernel) | Idle"
SAVE = "jupyterapp.commands.execute('docmanager:save')"
SHUT_DOWN = "jupyterapp.serviceManager.sessions.shutdownAll()"
GRADING_TIMEOUT = 300  # seconds for one submission, its kernel's first compilations included


class Desk:
    """Somebody's JupyterLab on the hub."""

    def __init__(self, page, hub, user):
        self.page, self.user, self.home = page, user, Path(f"~{user}").expanduser()
        self.address = f"{hub}/user/{user}"
        page.set_default_timeout(1000 * START_TIMEOUT)
        page.goto(f"{hub}/hub/login")
        page.get_by_label("Username").fill(user)
        page.get_by_label("Password").fill("any")
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{self.address}/lab**", timeout=2000 * START_TIMEOUT)

    def open(self, notebook):
        """Opens a notebook, whose path is that below the home, and waits for its kernel."""
        self.page.goto(f"{self.address}/lab/tree/{notebook}?reset")
        self.page.get_by_text(IDLE).wait_for()
        return Notebook(self.page, self.home / notebook)

    def save(self):
        """Saves the open notebook, and ends all kernels."""
        self.page.evaluate(SAVE)
        self.page.evaluate(SHUT_DOWN)

    def _menu(self, item):
        self.page.goto(f"{self.address}/lab?reset")
        self.page.get_by_role("menuitem", name="Nbgrader").click()
        self.page.get_by_role("menuitem", name=item).click()


class Student(Desk):
    """The Assignment List, and the notebooks that come from it."""

    def fetch(self, lesson):
        """Gets a lesson."""
        self._menu("Assignment List")
        self._row("released", lesson).get_by_role("button", name="Fetch").click()
        self._row("fetched", lesson).wait_for()

    def submit(self, lesson):
        """Hands a lesson in."""
        self._menu("Assignment List")
        before = len(self.submissions(lesson))
        self._row("fetched", lesson).get_by_role("button", name="Submit").click()
        self._row("submitted", lesson).get_by_text(" UTC").nth(before).wait_for()

    def fetch_feedback(self, lesson):
        """Gets the feedback to all submissions of a lesson; the text of the pages, the oldest first."""
        self._menu("Assignment List")
        with self.page.expect_response(lambda each: "/fetch_feedback" in each.url):  # it writes pages anew
            self._row("submitted", lesson).get_by_role("button", name="Fetch Feedback").click()
        self._row("submitted", lesson).get_by_text("view feedback").first.wait_for()
        pages = sorted((self.home / lesson / "feedback").glob(f"*/{lesson}.html"))
        return [page.read_text("utf-8") for page in pages]

    def submissions(self, lesson):
        """The folders in which nbgrader keeps what was handed in."""
        return list((self.home / ".local/share/jupyter/nbgrader_cache/metalearn").glob(f"*+{lesson}+*"))

    def no_lesson(self):
        """Waits until the Assignment List says that there is no course."""
        self._menu("Assignment List")
        self.page.get_by_text("No courses found.").wait_for()

    def _row(self, kind, lesson):
        return self.page.locator(f"#{kind}_assignments_list > .list_item").filter(has_text=lesson)


class Teacher(Desk):
    """Formgrader, within JupyterLab, and the panel Create Assignment."""

    def change_points(self, lesson, cell, points):
        """Changes what a test is worth, in the notebook that holds the solutions."""
        self.open(f"class/source/{lesson}/{lesson}.ipynb")
        self.page.get_by_role("tab", name="Create Assignment").click()
        ids = self.page.locator(".nbgrader-CellWidget .nbgrader-CellId input")
        ids.first.wait_for(state="attached")
        number = ids.evaluate_all("all => all.map(e => e.value)").index(cell)
        widget = self.page.locator(".nbgrader-CellWidget").nth(number)
        widget.locator(".nbgrader-CellPoints input").fill(str(points))
        widget.locator(".nbgrader-CellPoints input").press("Tab")
        self.save()

    def generate(self, lesson):
        """Makes the students' version anew."""
        self._formgrader()
        self._row(lesson).locator(".assign a").click()
        self._close("Successfully created the student version")

    def autograde(self, lesson, students):
        """Grades one submission after the other, those that are graded already too."""
        self._submissions(lesson)
        for student in students:
            self._row(student).locator(".autograde a").click()
            self._close("Successfully autograded", timeout=GRADING_TIMEOUT)

    def feedback(self, lesson):
        """Makes all feedback anew, and lets students fetch it."""
        self._formgrader()
        for step, done in (("generate", "Successfully generated feedback"), ("release", "Successfully released feed")):
            self._row(lesson).locator(f".{step}-feedback a").click()
            self._close(done)

    def score(self, student, lesson, cell, points):
        """Gives points for what no test judges."""
        self._submission(student, lesson)
        answer = self.frame.locator(f"input.score.needs_manual_grade[id='{cell}']")
        answer.wait_for()  # the class comes with what is known of the grade; before, nothing that is typed counts
        with self.page.expect_response(lambda each: "/api/grade/" in each.url and each.request.method == "PUT"):
            answer.fill(str(points))
            self.page.keyboard.press("Tab")

    def scripts_that_run(self, student, lesson):
        """What the scripts of a submission leave behind, in Formgrader's page or in JupyterLab's; None if none runs."""
        self._submission(student, lesson)
        self.frame.locator("input.score").first.wait_for()
        self.page.wait_for_timeout(2000)
        left = [frame.evaluate("window.ran") for frame in self.page.frames]
        return next((each for each in left if each is not None), None)

    def _submissions(self, lesson):
        self._formgrader()
        self._row(lesson).locator(".num-submissions a").click()

    def _submission(self, student, lesson):
        self._submissions(lesson)
        self._row(student).locator(".student-name a").click()
        self.frame.locator(".breadcrumb .active").get_by_text(lesson, exact=True).wait_for()
        self.frame.get_by_role("link", name=lesson, exact=True).click()

    def _formgrader(self):
        self._menu("Formgrader")
        self.frame = self.page.frame_locator("iframe")

    def _row(self, name):
        return self.frame.locator(f'tbody tr:has(:text-is("{name}"))')

    def _close(self, message, timeout=60):
        self.frame.get_by_text(re.compile(f"{message}|There was an error")).first.wait_for(timeout=1000 * timeout)
        said = self.frame.locator(".modal-body").inner_text()
        assert message in said, said
        self.frame.get_by_role("button", name="OK").click()
        self.frame.locator(".modal").wait_for(state="detached")
