# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["opening"]
# **Afterwards you can**
#
# - **define** a task distribution of your own, and keep its training, validation and test tasks apart,
# - **plan** a comparison in which no method is favoured,
# - **derive** an interval that knows of seeds and of tasks,
# - **audit** a report, your own or somebody else's,
# - **report** in one figure, one table and one paragraph, and **claim** no more than they carry.
#
# **New symbols**
#
# - $S$: number of seeds
# - $M$: here the number of test tasks
# - $D_{st}$: difference of two methods' errors, with seed $s$ on test task $t$
# - $\bar D$: mean of all $D_{st}$

# %% tags=["imports"]
import jax  # this cell loads JAX and the course, which takes a few seconds
import jax.numpy as jnp
import numpy as np

import metalearn as ml
from metalearn.course import check, predict, progress, quiz, setup
from metalearn.course.lessons import lesson_16 as figures
from metalearn.course.lessons import project

setup()  # settings with which the many small programs of a lesson start quickly

# %% [markdown]
# ## The project
#
# This lesson is a project, and the problem is yours. You bring a task distribution, and the notebook that you have at
# the end is a small study that you can show to somebody. It has six parts.

# %% tags=["fold"]
figures.chain()

# %% [markdown]
# A template fills every part, so that everything runs from the start. **Go through the lesson once with the template,
# and do the three exercises. Then come back, put your own tasks into `my_task`, and run everything again.** The second
# pass is the project. Keep a copy of the notebook, because what you share in the end is this file with its outputs.
#
# Which tasks? Take something of which there are many instances that are alike and not the same, where a few
# observations of a new instance should be enough. Measurements of many sensors, the orders of many customers, words of
# many languages, levels of a game: if you can write a short program that draws an instance at random, you have a task
# distribution.
#
# *Short of time? Skip the section "Which method for which tasks?".*

# %% [markdown]
# ## A problem to begin with
#
# The template is a box of springs. You hang a weight on a spring, pull it down and let go. The weight swings, and its
# swings become smaller. Every spring has its own amplitude $A$, frequency $\omega$ and damping $\gamma$, and its
# deflection at time $t$ is $A\, e^{-\gamma t} \cos \omega t$. For a new spring the deflection is known at ten instants,
# and asked for at ten others.
#
# A task distribution is a function of a random `key` and of a `part`, which is `"train"`, `"validation"` or `"test"`.
# It returns one task. The springs need no `part`, because a new key makes a new spring. **Replace this function by your
# own in your second pass.**


# %% tags=["yours"]
def my_task(key, part):
    """One spring: the deflection at ten instants, and at ten others."""
    A_key, omega_key, gamma_key, t_key = jax.random.split(key, 4)
    A = jax.random.uniform(A_key, minval=0.5, maxval=2.0)
    omega = jax.random.uniform(omega_key, minval=1.0, maxval=3.0)
    gamma = jax.random.uniform(gamma_key, minval=0.05, maxval=0.5)
    t = jax.random.uniform(t_key, (20, 1), maxval=6.0)
    y = A * jnp.exp(-gamma * t) * jnp.cos(omega * t)
    return ml.Task(support=(t[:10], y[:10]), query=(t[10:], y[10:]))


my_problem = figures.look(my_task)

# %% [markdown]
# The cell draws 1,000 training tasks, 200 validation tasks and 400 test tasks, and looks for what can be wrong
# with them before anything is trained. Two things it tells you deserve a closer look.
#
# **The floor.** For squared error the best single function is the mean of all tasks at each input, and the error that
# it leaves is the floor of lesson 01. Errors are given here as shares of the targets' variance. The best constant has
# error 1, and whoever does not adapt cannot get below the floor. If the floor of your tasks is nearly 1, a single
# function knows nothing of them, and if it is nearly 0, there is no reason to adapt. The floor includes noise, which
# no method removes.
#
# **Leakage.** A test task that was trained on, or that took part in a choice, tells too little of new tasks. The cell
# compares the parts with one another. With random curves, different keys are enough. Where tasks are made from a
# stock of things, different keys draw the same things again, and `part` has to divide the stock.
#
# Your tasks may also be classifications. Then the inputs are rows of features, of shape `[num_examples, num_features]`,
# and the targets are labels, whole numbers from 0 on. If the labels of every task come in random order, no single
# function can know them, and the floor is the error rate of guessing. Two more templates are in the package. In
# `project.doses` every task is a patient whose response to a medicine depends on the dose, with noise in every
# measurement. In `project.characters` a task is to tell five printed characters apart from one picture of each. Its
# pictures are a stock, so here `part` matters:
#
# ```python
# SCRIPTS = {
#     "train": ("LATIN", "GREEK"),
#     "validation": ("CYRILLIC",),
#     "test": ("ARMENIAN", "GEORGIAN"),
# }
#
#
# def characters(key, part):
#     sizes = dict(num_ways=5, num_shots=1, num_query=3)
#     draw = ml.tasks.Glyphs(scripts=SCRIPTS[part], **sizes)
#     tasks = draw(key, 1)
#     ...
# ```
#
# To take one of them, write `my_task = project.doses` or `my_task = project.characters` above the line that looks at the
# tasks. `ml.Task(support=(x, y), query=(x, y))` is all that a task of your own needs, with `x` and `y` of shape
# `[num_points, 1]` for curves.

# %% [markdown]
# ## A plan before the first run
#
# Lesson 07 has set up the rules of a fair comparison. They are decided before the runs, because afterwards every
# decision favours somebody.
#
# 1. **One budget.** Every run may spend the same number of gradients for each task of a batch, here
#    6,400, and at least 90 % of it is spent. Numbers of outer steps follow from it.
# 2. **One tuning effort.** All methods choose from the same outer learning rates, at least two, and all of them may
#    clip the meta-gradient or not: the list of norms contains `None` and at least one number, and is the same for all.
# 3. **Tasks apart.** The three parts have three different task seeds.
# 4. **Seeds apart.** One seed tunes, at least five different other ones report.
#
# The inner learning rate $\alpha$, or $\lambda$ where there is a proximal term, is chosen from two values as well,
# which the lesson sets. The network is the same for all methods: for curves it has two hidden layers of 24 units, for
# classifications one of 32.

# %% tags=["fold"]
figures.costs()
assert project.BUDGET == 6_400 and figures.LEAST_SPENT == 0.9 and figures.FEWEST_SEEDS == 5
assert project.CURVE_WIDTHS == (24, 24) and project.CLASS_WIDTHS == (32,)

# %% [markdown]
# ## Exercise: a plan that is fair to all
#
# Write the plan as a function of what a step costs and of the budget, so that it holds for any methods.


# %% tags=["exercise"] exercise="16.plan"
def my_plan(cost, budget):
    """The plan of a comparison, a dictionary with these keys.

    "outer steps": {method: number of outer steps of each run}
    "outer rates": {method: outer learning rates to choose from}
    "clipping": {method: norms to choose from; None: not clipped}
    "task seeds": {"train": ..., "validation": ..., "test": ...}
    "tuning seed": seed of the runs that choose
    "seeds": list of the seeds of the reported runs

    Args:
      cost: {method: gradients of one outer step for each task}
      budget: gradients that each run may spend for each task.
    """
    ### BEGIN SOLUTION
    plan = {
        "outer steps": {name: budget // gradients for name, gradients in cost.items()},
        "outer rates": {name: [3e-3, 1e-2] for name in cost},
        "clipping": {name: [None, 1.0] for name in cost},
        "task seeds": {"train": 0, "validation": 1, "test": 2},
        "tuning seed": 100,
        "seeds": list(range(8)),
    }
    return plan
    ### END SOLUTION


# %%
check("16.plan", my_plan)

# %% [markdown]
# ## The study
#
# Now choose three methods. Which ones depends on bias and cost. MAML has the exact gradient of its objective and pays
# about three gradients for each inner step. FO-MAML and Reptile pay one and converge elsewhere. iMAML and FO-B-MAML
# belong to adaptation with a proximal term. `"fine-tuning"`, which is joint training followed by adaptation, makes a good
# opponent too. Say in your conclusion why you chose yours, and choose before you see an error.

# %%
ahead_prediction = predict("16.ahead")

# %% tags=["yours"]
methods = ("MAML", "FO-MAML", "Reptile")
my_study = figures.study(my_problem, methods, my_plan)

# %% [markdown]
# Each method was tuned on the validation tasks with the tuning seed. Then its best configuration was trained with every
# reported seed, and scored once on the test tasks. Before we look at the errors, let us be clear about what may be said
# of them.

# %% [markdown]
# ## How sure is a difference?
#
# A study ends with a table: with seed $s$, method A has the error $A_{st}$ on test task $t$, and B has $B_{st}$. The
# seeds and the tasks are the same for both, so we look at the differences $D_{st} = A_{st} - B_{st}$. Here is such a
# table from a record. On the springs, the three methods were trained with 40 seeds by
# `python -m metalearn.course.lessons.project`.

# %% tags=["fold"]
figures.table_of_differences()

# %% [markdown]
# The columns have colours of their own: on some springs Reptile is better with nearly every seed, and on one FO-MAML is
# far better with all eight. Rows differ as well, though less. If you pass the mean $\bar D$ of such a table on to
# somebody, they will train with other seeds and meet other springs. How far could their mean be from yours?

# %%
pooled_prediction = predict("16.pooled")

# %% [markdown]
# **Line 1.** We write every number of the table as a sum of a true difference $\mu$, a part of the seed, a part of the
# task, and a rest. All parts are independent and have mean zero:
#
# $$D_{st} = \mu + a_s + b_t + e_{st} .$$
#
# **Line 2.** In the mean over $S$ seeds and $M$ tasks there are $S$ values of $a$, $M$ of $b$ and $SM$ of $e$, so
#
# $$\operatorname{Var} \bar D = \frac{\sigma_a^2}{S} + \frac{\sigma_b^2}{M} + \frac{\sigma_e^2}{S M} .$$
#
# The three variances are not known. They have to be estimated from the table itself.

# %% [markdown]
# ## Exercise: an interval over seeds and tasks
#
# **Line 3** is yours. Let $v_S$ be the variance of the $S$ *means of the rows*, and $v_M$ that of the $M$ *means of the
# columns*. What does each of them estimate? Combine the two into an estimate of line 2. It may count the last
# part, the one of $e$, twice, which makes the interval a little wider than it has to be.
#
# Each of the two parts is estimated from a number of values of its own, so each has its own quantile of Student's
# distribution. A part whose standard error is $r$ and whose quantile is $q$ has the half width $q\, r$, and like
# standard errors, the half widths of independent parts combine as the sides of a right triangle do.


# %% tags=["exercise"] exercise="16.interval"
def interval(differences, seed_quantile, task_quantile):
    """An interval for the true difference of two methods.

    Args:
      differences: shape [seeds, tasks], at least two of each.
      seed_quantile: for what is estimated from the seeds' means.
      task_quantile: for what is estimated from the tasks' means.

    Returns:
      An array [low, high], centred at the mean of all differences.
    """
    ### BEGIN SOLUTION
    num_seeds, num_tasks = differences.shape
    of_seeds = differences.mean(axis=1).var(ddof=1) / num_seeds
    of_tasks = differences.mean(axis=0).var(ddof=1) / num_tasks
    half = np.sqrt(seed_quantile**2 * of_seeds + task_quantile**2 * of_tasks)
    return differences.mean() + half * np.array([-1.0, 1.0])
    ### END SOLUTION


# %%
check("16.interval", interval)

# %% [markdown]
# <details><summary>Line 3, to compare with yours</summary>
#
# The mean of row $s$ is $\mu + a_s + \bar b + \bar e_s$. All rows share $\bar b$, so the variance among rows estimates
# $\sigma_a^2 + \sigma_e^2 / M$, and $v_S / S$ estimates $\frac{\sigma_a^2}{S} + \frac{\sigma_e^2}{SM}$. In the same way
# $v_M / M$ estimates $\frac{\sigma_b^2}{M} + \frac{\sigma_e^2}{SM}$. Their sum is line 2, with its last term twice.
#
# </details>

# %% [markdown]
# An interval that promises 95 % should contain the true difference in 95 of 100 studies. We can try this. The recorded
# table with 40 seeds and 150 tasks is now the whole world, and its mean is the truth. A study sees five seeds and 100
# tasks, drawn from it with replacement. The cell counts how often the interval of somebody who takes the 500 numbers for
# independent ones contains the truth.

# %% tags=["nbval-check-output"]
errors = figures.recorded_errors()
world = errors["FO-MAML"] - errors["Reptile"]  # 40 seeds, 150 tasks
rng, covered = np.random.default_rng(0), 0
for _ in range(1_000):
    seen = world[np.ix_(rng.integers(40, size=5), rng.integers(150, size=100))]
    half = 1.96 * seen.std(ddof=1) / np.sqrt(seen.size)
    covered += abs(seen.mean() - world.mean()) <= half
quantiles = figures.quantile(5), figures.quantile(100)
print(f"{seen.size} numbers; quantiles {quantiles[0]:.2f} and {quantiles[1]:.2f}")

# %% tags=["fold"]
pooled_prediction.reveal(covered / 10)
_found = {sizes: figures.coverage(*sizes) for sizes in ((5, 100), (8, 100), (8, 400))}
figures.coverages(_found)
for _of in _found.values():
    assert _of["all numbers independent"] < 0.7 and _of["seeds only"] < 0.8 and _of["tasks only"] < 0.93
    assert 0.93 < _of["seeds and tasks"] < 0.98

# %% [markdown]
# The first interval, which looks so precise, contains the truth in about half of the studies. The one from the seeds
# alone is not much better here, because the tasks differ more than the seeds do. With eight seeds in place of five, and
# as many tasks, it is even worse, since it becomes shorter without learning anything about the tasks. Only the interval
# of your line 3 keeps its promise.
#
# On other problems the seeds can differ more than the tasks. The interval from both does not need to know.

# %% [markdown]
# ## The report
#
# Now the errors. Three methods make three differences, and if each interval were wrong in 5 % of the studies, one of
# three would be wrong more often than that. So the quantiles in the panel of the differences are larger, such that
# all intervals hold at once with 95 %.

# %%
figures.report(my_study)

# %% tags=["fold"]
_means = {name: values.mean() for name, values in errors.items()}
ahead_prediction.reveal(int(np.argmin([_means[name] for name in ("MAML", "FO-MAML", "Reptile")])))
assert min(_means, key=_means.get) == "Reptile" and max(_means, key=_means.get) == "MAML"
assert max(_means.values()) < 0.7 * project.recorded()["floor"]

# %% [markdown]
# One figure and one table are the whole report. On the springs of the template, all three methods are below the floor, so
# adaptation is worth its price. The means are in the order of the cost: Reptile, which takes the most outer steps for
# the budget, has the lowest error, and MAML has the highest. The panel of the differences shows what the seeds and tasks
# carry. In our run the interval between the two cheap methods contains zero, and so nothing is claimed about these two,
# although one mean is lower than the other.
#
# Look at the dots of the figure and at the last column of the table too. On your tasks a method may fail badly with one
# of the seeds, or on a few of 400 test tasks, for instance because adaptation diverges there. One such seed or task makes
# a mean large and its interval wide, and then a claim that looks certain is not carried. Do not take it out: whoever uses
# the method will meet its like. Say in your conclusion what happens there.

# %% [markdown]
# ## Which method for which tasks?
#
# Does the order hold elsewhere? The same plan was run on all three templates, and recorded.

# %%
images_prediction = predict("16.images")

# %% tags=["fold"]
_characters = {
    name: np.mean(values) for name, values in project.recorded()["templates"]["characters"]["errors"].items()
}
images_prediction.reveal(int(np.argmin([_characters[name] for name in ("MAML", "FO-MAML", "Reptile")])))
figures.templates()
assert min(_characters, key=_characters.get) == "MAML"

# %% [markdown]
# On characters the order is turned round, and the exact gradient is ahead of both cheap ones. On the patients no two
# methods are separated.
#
# Why are the cheap methods ahead on the springs? Perhaps their direction is the better one there, or perhaps they are
# ahead only because they take more outer steps. A control separates the two explanations: MAML with as many outer
# steps as Reptile, for which it gets more than three times the gradients. It was run and recorded as well.

# %% tags=["fold"]
figures.control()
_control = {name: np.mean(values) for name, values in project.recorded()["control"]["errors"].items()}
assert min(_control, key=_control.get) == "MAML"
_ends = project.recorded()["control"]["differences"]
assert _ends["MAML − FO-MAML"][2] < 0 and _ends["MAML − Reptile"][2] < 0

# %% [markdown]
# With as many outer steps the exact gradient is ahead on the springs too, so what puts the cheap methods ahead is the
# budget. So a result belongs to a task distribution, a network *and* a budget, and your conclusion should name all
# three.

# %% [markdown]
# ## Exercise: find the faults of a report
#
# Before you write your own conclusion, judge those of others. A report is a named tuple with the fields listed in the
# docstring. Write an audit that finds six faults, each 1 where it is there and 0 where it is not:
#
# 1. two of the three parts share a task,
# 2. the tuning seed is among the reported seeds, a seed occurs twice, or there are fewer than five,
# 3. a method spends more than the budget, or less than 90 % of it,
# 4. clipping was not tuned for all methods,
# 5. a method was reported with another configuration than the one with its lowest validation error,
# 6. the interval does not carry the claim that A has a lower error than B. It does if the *whole* interval lies below
#    zero; an end at zero is not enough.


# %% tags=["exercise"] exercise="16.audit"
def audit(report):
    """The six faults of a report, an array of zeros and ones.

    Args:
      report: a named tuple with
        train, validation, test: numbers of the tasks in each part,
        cost: gradients of an outer step, one number per method,
        outer_steps: one number per method; budget: in gradients,
        clipping_tuned: one truth value per method,
        validation_error: shape [methods, configurations], NaN where
          a run diverged,
        chosen: the configuration reported, one number per method,
        tuning_seed; seeds: an array,
        difference: [low, high], for error of A minus error of B.
    """
    ### BEGIN SOLUTION
    train, validation, test = map(set, (report.train, report.validation, report.test))
    seeds = list(report.seeds)
    spent = report.cost * report.outer_steps / report.budget
    lowest = np.nanargmin(report.validation_error, axis=1)
    faults = [
        train & validation or train & test or validation & test,
        report.tuning_seed in seeds or len(set(seeds)) < max(5, len(seeds)),
        spent.max() > 1 or spent.min() < 0.9,
        not report.clipping_tuned.all(),
        (lowest != report.chosen).any(),
        report.difference[1] >= 0,
    ]
    return np.array([bool(fault) for fault in faults], float)
    ### END SOLUTION


# %%
check("16.audit", audit)

# %% [markdown]
# ## Your claims
#
# Write down what you claim. A claim is a pair of names: the first has the lower error on new tasks. The second may be
# `"floor"`, which says that adaptation is worth it. For instance, `[("Reptile", "MAML"), ("MAML", "floor")]` are two
# claims. The card says of each whether the intervals carry it, and hands your study to your own audit.

# %% tags=["yours"]
my_claims = []

claims_status = figures.judge(my_study, my_claims, audit)

# %% [markdown]
# ## Your conclusion
#
# On paper, about 20 minutes. Write one paragraph for somebody who has not read this lesson. It says
#
# - what a task is, and what its support set and its query set are,
# - which methods were compared, why these, and with which network and budget,
# - what was found, with the difference and its interval, and how it compares with the floor,
# - what was *not* found, and what the study cannot say.
#
# Write it on paper, or into the next cell (a double click opens it). A model answer is folded below it.

# %% [markdown] tags=["free-text"] question="16.conclusion"
# ### BEGIN SOLUTION
# *About the template.* A task is a spring: its deflection is known at ten instants (support set) and asked for at ten
# others (query set). With a network of two hidden layers of 24 units and five inner steps we compared MAML, whose
# meta-gradient is exact, with its two cheapest relatives, FO-MAML and Reptile, because a small budget was given: 6,400
# gradients for each task of a batch. Each method was tuned over eight configurations on 200 validation tasks, clipping
# included, and was reported with eight seeds on 400 new springs. All three are below the floor, which is the error of the
# best single function, so adaptation is worth it. Both cheap methods have a lower error than MAML, and the intervals of
# these two differences, which stand in the figure, exclude zero. Between the two cheap methods we found no difference. A
# control shows that the budget decides: with as many outer steps as Reptile, MAML is ahead of both. We cannot say whether
# wider grids would change the order, since the largest outer learning rate was chosen by all three. The springs are
# computed without noise, so nothing is said about measured ones.
# ### END SOLUTION

# %% [markdown]
# ## How a project is scored
#
# The checks see half of what makes a good project. A teacher, or a friend who has done this lesson, sees the other half.
# In a classroom the points of the plan, the interval and the audit are counted automatically, and the cards below `my_task`
# and `my_claims` tell a teacher the other points of the first column.
#
# | part | the checks see | points | a reader sees | points |
# |---|---|---|---|---|
# | tasks | they differ from one another; no two parts have one in common | 2 | they are your own, and it is plausible that a few examples of a new one are enough; the parts are apart in a sense that matters for the problem | 3 |
# | floor | it is computed and shown | 1 | it is used: the conclusion says what adaptation gains | 1 |
# | plan | budget, tuning, clipping, seeds | 2 | the three methods were chosen for a reason of bias or cost | 2 |
# | interval | line 3 | 3 | | |
# | audit | six faults | 3 | | |
# | claims | each is carried by an interval | 2 | nothing is claimed in words that is not in the list, and a difference that was not found is not called equality | 2 |
# | conclusion | | | somebody who has not read the lesson understands the paragraph, and it names its limits | 3 |
# | | **together** | **13** | **together** | **11** |
#
# **To share it,** save the notebook when all cells have run, and send the file. Whoever opens it sees your tasks, your
# plan, the figure, the table, your claims with what the card says of them, and your conclusion. With the course installed
# they can run it again.

# %% [markdown]
# ## What to take away
#
# - A task distribution is a function that draws a task. Its floor says what adaptation can gain, before anything is
#   trained.
# - Different keys keep random curves apart. A stock of things has to be divided.
# - The plan comes before the runs: one budget in gradients, one grid with clipping for all, one seed that tunes and others
#   that report.
# - Numbers that share a run or a task are not independent. An interval for new seeds *and* new tasks adds a part of
#   the seeds and a part of the tasks.
# - The order of methods belongs to a task distribution, a network and a budget. On springs both cheap methods were ahead of
#   the exact one, and on characters behind it.

# %%
quiz("16")

# %%
progress("16")

# %% [markdown]
# ## Limits
#
# - Line 1 assumes that seeds and tasks are drawn independently of what was chosen. No interval here contains what another
#   tuning seed would have chosen, or what other training tasks would have taught.
# - The intervals assume that means of errors are nearly normal, but errors have a long tail. On the recorded springs they
#   cover about as often as they promise; with few tasks and a longer tail they can cover less often.
# - Coverage was tried on one pair of methods and one task distribution. The recorded table is treated as the whole world.
# - The intervals of the differences hold all at once; those of single methods, and with them the claims about the floor,
#   hold each for itself.
# - For labels the floor is that of guessing, or of one simple function that does better. It is a floor only if the labels
#   come in random order.
# - The check of leakage finds tasks, or pictures, that are the same number for number. A noisy copy escapes it, and so does
#   the same curve at other inputs.
# - Curves have one input and one output here, and the networks are small. The grids have eight configurations, and chosen
#   values often lie at their edge.
# - The inner learning rates and proximal strengths are set by the lesson. On your tasks others may be better.
#
# ## Go further
#
# - X. Bouthillier and others. *Accounting for variance in machine learning benchmarks.* MLSys 2021.
#   [arXiv 2103.03098](https://arxiv.org/abs/2103.03098). Which sources of variation a benchmark has, and which are
#   forgotten.
# - R. Agarwal, M. Schwarzer, P. S. Castro, A. Courville, M. Bellemare. *Deep reinforcement learning at the edge of the
#   statistical precipice.* NeurIPS 2021. [arXiv 2108.13264](https://arxiv.org/abs/2108.13264). Intervals from few runs on
#   many tasks.
# - G. S. Dhillon, P. Chaudhari, A. Ravichandran, S. Soatto. *A baseline for few-shot image classification.* ICLR 2020.
#   [arXiv 1909.02729](https://arxiv.org/abs/1909.02729). How much few-shot tasks differ in hardness, and a strong
#   baseline.
# - J. Pineau and others. *Improving reproducibility in machine learning research.* JMLR 2021.
#   [arXiv 2003.12206](https://arxiv.org/abs/2003.12206). A checklist for a whole paper.
