"""The table of the course: everything that lists lessons reads it.

A lesson is in it when it exists. `python -m metalearn.course build` makes from it the top and the bottom of each lesson
and the page of contents; `progress`, the website and the badges show it, and tests hold the README to it.
"""

from dataclasses import dataclass

COURSE = "Gradient-based meta-learning"


@dataclass(frozen=True)
class Lesson:
    """One lesson, as it is announced.

    Attributes:
      number: two digits, "02".
      slug: the end of its files' names.
      title: in the field's words, without the number; what stands before the colon is its name in a list.
      claim: one sentence, what the learner will have shown; plain text, for it stands where mathematics is not typeset.
      minutes: that a learner needs, exercises included.
      part: the heading below which it stands in a list.
      needs: the numbers of the lessons that it builds on, the nearest first.
      core: whether it is on the core path; an elective otherwise.
    """

    number: str
    slug: str
    title: str
    claim: str
    minutes: int
    part: str
    needs: tuple[str, ...] = ()
    core: bool = True

    @property
    def stem(self) -> str:
        """The name of its files, "02_maml"."""
        return f"{self.number}_{self.slug}"

    @property
    def name(self) -> str:
        """The title's first half, "MAML"."""
        return self.title.partition(":")[0]

    @property
    def kind(self) -> str:
        """ "core" or "elective"."""
        return "core" if self.core else "elective"


LESSONS = (
    Lesson(
        number="00",
        slug="start_here",
        title="Start here: differentiate a whole training run",
        claim="grad, vmap and scan of pure functions compose, and together they differentiate a whole training run.",
        minutes=55,
        part="Foundations",
    ),
    Lesson(
        number="01",
        slug="learning_to_learn",
        title="Learning to learn: adapt to a distribution of tasks",
        claim="One model without adaptation cannot fit a distribution of tasks: its loss has a floor that can be "
        "computed, and no training gets below it.",
        minutes=55,
        part="Foundations",
        needs=("00",),
    ),
    Lesson(
        number="02",
        slug="maml",
        title="MAML: differentiate through the inner loop",
        claim="The meta-gradient is the query gradient, backpropagated through one factor (I − αH) for each inner "
        "step.",
        minutes=100,
        part="Meta-gradients",
        needs=("01",),
    ),
    Lesson(
        number="03",
        slug="first_order_shortcuts",
        title="First-order methods: FO-MAML and Reptile",
        claim="FO-MAML and Reptile cost a fraction of MAML and in general converge to other points; on quadratic tasks "
        "you can say exactly which.",
        minutes=85,
        part="Meta-gradients",
        needs=("02",),
    ),
    Lesson(
        number="04",
        slug="bilevel",
        title="Bilevel optimization: iMAML and implicit differentiation",
        claim="With a proximal term adaptation ends at a minimum, and the meta-gradient there is the solution of one "
        "linear system, whatever the inner optimizer.",
        minutes=65,
        part="Meta-gradients",
        needs=("03",),
    ),
    Lesson(
        number="05",
        slug="fo_b_maml",
        title="FO-B-MAML: differentiate a perturbed solution",
        claim="The meta-gradient is the derivative of a perturbed solution: two inner solves give it from gradients "
        "alone, with an error that you can predict.",
        minutes=85,
        part="Meta-gradients",
        needs=("04",),
    ),
    Lesson(
        number="06",
        slug="clipping",
        title="Gradient clipping: smoothness that grows with the gradient",
        claim="The curvature of the meta-objective grows with its gradient, so only tiny plain gradient steps are "
        "sure to descend, whereas clipped ones may be long.",
        minutes=75,
        part="Training",
        needs=("05",),
    ),
    Lesson(
        number="07",
        slug="comparison",
        title="Comparison: six meta-gradients under one budget",
        claim="Six meta-gradients under one budget, each tuned with the same effort, with and without clipping: what "
        "each reaches, what it costs, and how much memory it takes.",
        minutes=110,
        part="Training",
        needs=("06",),
    ),
    Lesson(
        number="08",
        slug="adjoint",
        title="Adjoint method: the inner loop as an ODE",
        claim="An inner loop of many small steps follows an ordinary differential equation, and its meta-gradient "
        "another one, integrated backwards along a stored trajectory.",
        minutes=85,
        part="Long inner loops",
        needs=("02", "04"),
        core=False,
    ),
    Lesson(
        number="09",
        slug="moreau_envelopes",
        title="Moreau envelopes: a meta-gradient without a solve",
        claim="Where support and query loss are one, the meta-gradient is λ(θ − φ*) and needs no linear solve; the "
        "accuracy of the inner loop sets how close training gets.",
        minutes=95,
        part="Proximal methods",
        needs=("04", "03"),
        core=False,
    ),
    Lesson(
        number="10",
        slug="memory",
        title="Memory: MOML, LocalMOML and federated learning",
        claim="With small support batches MAML ends at a bias that no number of outer steps removes; remembering each "
        "task's adapted parameters makes it as small as you like.",
        minutes=90,
        part="Populations of tasks",
        needs=("02", "03"),
        core=False,
    ),
    Lesson(
        number="11",
        slug="function_space",
        title="Function space: adapt with a kernel",
        claim="For a model that is linear in its parameters, kernel regression is proximal adaptation; for a network "
        "this holds as long as its tangent kernel stands still.",
        minutes=80,
        part="Function space",
        needs=("04", "02"),
        core=False,
    ),
    Lesson(
        number="12",
        slug="few_shot_images",
        title="Few-shot images: five new characters from one drawing each",
        claim="A network that has seen a thousand characters learns five new ones from one drawing each; with a zero "
        "head, first-order MAML trains it as a supervised contrastive learner.",
        minutes=85,
        part="Applications",
        needs=("03", "07"),
    ),
    Lesson(
        number="13",
        slug="out_of_domain",
        title="Out of domain: repurpose a checkpoint",
        claim="Out of its domain a checkpoint wants another inner learning rate: the curvature helps to choose it, and "
        "an ensemble's disagreement guards against one that is too large.",
        minutes=85,
        part="Applications",
        needs=("12", "02"),
        core=False,
    ),
    Lesson(
        number="14",
        slug="image_and_text",
        title="Image and text: multitask fine-tuning and its control",
        claim="Multitask fine-tuning improves a small image-text model; a control with as many gradient steps shows "
        "whether that is due to its sub-tasks or to its steps.",
        minutes=90,
        part="Applications",
        needs=("12", "03"),
        core=False,
    ),
    Lesson(
        number="15",
        slug="scale",
        title="Scale: predict the cost, share the tasks, survive a kill",
        claim="Cost is predictable before a run, tasks spread over devices, and a killed run resumes to the same bits.",
        minutes=80,
        part="Practice",
        needs=("07", "00"),
        core=False,
    ),
    Lesson(
        number="16",
        slug="your_own_problem",
        title="Your own problem: from a task distribution to a report",
        claim="You pose a problem of your own, compute its floor, compare three meta-gradients fairly, and claim what "
        "intervals over seeds and tasks carry.",
        minutes=110,
        part="Practice",
        needs=("07", "12"),
    ),
)


def find(number: str) -> Lesson | None:
    """The lesson of a number, or None: a lesson can be built before it is announced."""
    return next((lesson for lesson in LESSONS if lesson.number == number), None)
