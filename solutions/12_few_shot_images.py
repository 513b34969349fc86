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
# - **adapt** a network to five new characters from one drawing of each, and **measure** how good it is,
# - **compare** meta-learned initializations fairly with baselines that need no meta-learning,
# - **derive** the gradient that first-order MAML sends into the encoder, and **split** it in two,
# - **apply** the zeroing trick at training and at test,
# - **tell** feature reuse from rapid learning.
#
# **New symbols**
#
# - $\psi(x)$: features of a picture $x$, the input of the last layer
# - $W$: weights of the last layer, the head
# - $p(x)$: probabilities of the classes
# - $e_y$: unit vector of class $y$
# - $c_{qs}$: coefficient of a query example $q$ and a support example $s$

# %% tags=["imports"]
import textwrap  # this cell loads JAX and the course, which takes a few seconds

import jax
import numpy as np
import optax

import metalearn as ml
from metalearn.course import check, explore, playground, predict, progress, quiz, setup
from metalearn.course.lessons import few_shot
from metalearn.course.lessons import lesson_12 as figures

setup()  # settings with which the many small programs of a lesson start quickly

# %% [markdown]
# ## Draw five symbols
#
# Press "Draw your own five", and draw five symbols in the large box, one after another: letters of an alphabet that you
# know, letters that you make up, or small pictures. **One drawing of each is enough.** Then draw one of the five again. A
# small network adapts to your five drawings in ten gradient steps, here in your browser, and says which one you have
# drawn.

# %%
playground("draw_five_symbols")

# %% [markdown]
# The network has never seen your drawings, and they were not sent anywhere, because your browser takes the ten steps
# itself. Try to fool it. Which pairs of symbols does it confuse, and does it help to draw one of the five differently?
#
# How often is it right? Here is what was measured, on characters of two scripts that it was not trained on, and on
# random symbols that a program draws again and again with a shaky hand.

# %%
figures.pad_accuracy()

# %% [markdown]
# This lesson shows how such a network is made, how much of its accuracy is due to meta-learning, and what exactly the
# training does to the network's features.
#
# *Short of time? Skip the sections "Train it yourself" and "Omniglot".*

# %% [markdown]
# ## One task, ten gradient steps
#
# What the network sees of a drawing is a picture of 14 × 14 pixels, with the ink centred. It is a small network: 196
# inputs, hidden layers of 128 and 64 units, and five outputs $z_1, \dots, z_5$, one for each class, which are called
# **logits**. The **softmax** turns them into the probabilities $p_c = e^{z_c} / \sum_j e^{z_j}$ of the classes, and the
# loss of a picture of class $y$ is the **cross-entropy**, $-\log p_y$. The network was meta-trained by MAML, on printed
# characters of the Latin, Greek and Cyrillic scripts and on random scribbles. The last layer, which computes the logits,
# is called the **head**, and the layers before it the **encoder**. What the encoder computes from a picture $x$ are its
# **features** $\psi(x)$.
#
# A task shows five new characters. Its support set has one picture of each, so one speaks of **5-way 1-shot**
# classification, and its query set has five others of each. We load the network of the drawing pad and 500 such tasks
# with Armenian and Georgian characters. Each picture shows a character in one of twelve typefaces, and no typeface of a
# character is in both sets.

# %% tags=["nbval-check-output"]
params, apply = figures.pad_network()
loss = ml.losses.cross_entropy(apply)
accuracy = ml.losses.accuracy(apply)
inner = optax.sgd(0.2)

tasks = figures.unseen(num_tasks=500)
task = figures.one_task(tasks)
print("pictures of the support set:", task.support[0].shape)
print("pictures of the query set:  ", task.query[0].shape)

# %% [markdown]
# The head of this network consists of zeros. No knowledge is lost by that, because the five characters of a task are
# numbered in a random order, so nothing can be known about class 3 before the task begins.

# %%
before_prediction = predict("12.before")

# %%
adapted = ml.adapt(loss, inner, params, task.support, num_steps=10)
before = accuracy(params, task.query)
after = accuracy(adapted, task.query)
print(f"correct before adaptation: {100 * before:.0f} %")
print(f"correct after ten steps:   {100 * after:.0f} %")

# %% tags=["fold"]
before_prediction.reveal(100 * float(before))
assert abs(before - 0.2) < 1e-6 and after > 0.6
_first = few_shot.first(tasks, 200)
_guesses = figures.guesses(params, _first)
_right = (_guesses == _first.query[1]).mean(axis=1)
_shown = np.array([0, 61])  # 61 is one of the hardest, and most of its mistakes are between A and E
assert (_right > 0.9).mean() > 0.75 and _right[61] < _right.min() + 0.05
_mixed = [{int(y), int(c)} for y, c in zip(_first.query[1][61], _guesses[61], strict=True) if y != c]
assert _mixed.count({0, 4}) > len(_mixed) / 2
figures.gallery(
    jax.tree.map(lambda leaf: leaf[_shown], _first),
    _guesses[_shown],
    "Most tasks are solved, and a hard one shows why one picture may not be enough",
)

# %% [markdown]
# Look at the mistakes of the task on the right. Its characters A and E differ by little more than a short stroke, and two
# typefaces of one character may differ by more than that. From a single picture of each nobody can know which
# differences matter, unless one has seen many other characters. This knowledge is what the initialization contains.

# %% [markdown]
# ## Is that good?
#
# An accuracy means little without a baseline. The simplest one needs neither training nor a network.

# %%
pixel_prediction = predict("12.pixels")

# %%
network_score = ml.evaluate.meta_test(loss, inner, params, tasks, 10, metric=accuracy)
pixel_score = ml.evaluate.score(few_shot.nearest_neighbour(tasks))
print("the network:    ", network_score)
print("nearest picture:", pixel_score)

# %% tags=["fold"]
pixel_prediction.reveal(100 * pixel_score.mean)
figures.pad_accuracy(("network", "nearest"))
assert network_score.mean - network_score.half_width > pixel_score.mean + pixel_score.half_width
assert 0.8 < pixel_score.mean < 0.92
assert 0.2 < (1 - network_score.mean) / (1 - pixel_score.mean) < 0.32
jax.clear_caches()  # frees the memory of the programs above

# %% [markdown]
# The nearest picture is a strong opponent here. On the printed characters the network makes about a quarter as many
# mistakes. That is a large gain, but a report that leaves the baseline out would make it look larger still. On the
# random symbols the gain is much smaller.
#
# Now for a fair comparison of meta-gradients. Its runs take too long for a notebook, so they were made by a script of
# the course, `few_shot.py`, and their record comes with the course. The rules are those of lesson 07:
#
# - All methods train on Latin and Greek characters, choose their hyperparameters on Cyrillic ones, and are tested once on
#   Armenian and Georgian ones.
# - Each of them chooses from six configurations: two outer learning rates times three values of $\alpha$, or of $\lambda$
#   for FO-B-MAML. Each meta-gradient is clipped to norm 1 before Adam.
# - All training is 1-shot, with $K = 5$ inner steps, 16 tasks in an outer step, the same sequence of tasks, and three
#   seeds. At test a method may take five or ten steps, whichever is better on validation tasks.
# - Each method runs twice: with a *zero head* at the beginning of every task, in training and at test, which is called the
#   **zeroing trick**; and with a *learned head*, which belongs to the initialization like every other layer.
# - Two further methods of the table are needed later: first-order MAML with $K = 1$, and ANIL (lesson 02), which is MAML
#   with an inner loop that adapts the head alone.
#
# The strongest baseline trains the same network, on the same number of pictures, as an ordinary classifier of all 999
# training characters. For a new task it gets a zero head of five classes and is fine-tuned on the support set. This is
# **fine-tuning from joint training**. Alternatively, its features are used without any fine-tuning: every feature vector
# is scaled to norm 1, and a query gets the class whose **centroid**, the mean of its support features, is nearest.

# %%
figures.comparison()

# %% tags=["fold"]
_rows = figures.record()["rows"]
_joint = _rows["joint training"]["zeroing"]


def _mean(entry, shots="1"):
    return entry[shots]["mean"]


_zero = [_mean(_rows[name]["zeroing"]["test"]) for name in ("MAML", "FO-MAML", "FO-B-MAML")]
_pixels = figures.record()["baselines"]["pixel nearest neighbour"]
assert figures.record()["num_classes"]["train"] == 999
assert max(_zero) < _mean(_joint["centroid"]) < min(_zero) + 0.015 and _mean(_joint["centroid"]) > 0.97
assert min(_zero) - _mean(_joint["test"]) > 0.035 and max(_zero) - _mean(_joint["test"]) < 0.045
assert _mean(_rows["FO-MAML"]["plain"]["test"]) < _mean(_pixels) and _mean(_pixels, "5") > 0.965
assert max(_zero) - _mean(_rows["FO-MAML"]["zeroing"]["test"]) < 0.01
assert [_rows[name]["zeroing"]["gradients"] for name in ("FO-MAML", "MAML")] == [6, 16]
assert all(
    _mean(_rows[name]["zeroing"]["test"], "5") > 0.985 for name in ("MAML", "FO-MAML", "FO-B-MAML", "joint training")
)
assert _mean(_joint["centroid"], "5") > 0.985
figures.comparison_table()

# %% [markdown]
# Who wins? With one support picture it is the *nearest centroid in the features of the ordinary classifier*, with 97 %.
# All three meta-gradients with a zero head follow within about a point and a half. This is not what the first section
# made you expect, and it is no accident of this data: on photographs, Chen et al. (2019) found a related baseline to be
# competitive with meta-learning. Its features too come from training on all classes at once, with a classifier that
# goes by the angle between a picture's features and a learned vector of each class. Our thousand training characters
# are enough to learn features without few-shot tasks (*episodes*, as many papers call them).
#
# But *fine-tuning* the same classifier, with the ten gradient steps that the meta-learned networks take, is four points
# worse than they are. So what meta-learning provides here seems to be not better features, but an initialization from
# which a few gradient steps make good use of one picture. With five support pictures all of these are close to
# 99 %, and even the pixels reach 97 %. An accuracy of 95 % at 5-way 5-shot, which sounds impressive, would be a failure
# on this data.
#
# In the figure one row stands out. First-order MAML with a learned head is worse than the nearest picture. With a zero
# head it is about level with MAML, at a cost of 6 gradients per task instead of 16. The rest of this lesson is about this
# difference.

# %% [markdown]
# ## Train it yourself
#
# Nothing in the training is new. It is MAML as in lesson 02, the clipping of lesson 06, and one line for the zero head.
# Three hundred outer steps are a small part of a full training run, and already enough to pass the nearest picture.

# %%
network, _ = few_shot.network(seed=0)
meta_gradient = ml.zeroing_trick(ml.maml(loss, inner, num_steps=5), few_shot.head)
outer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(2e-3))
learner = ml.meta_learner(meta_gradient, outer)
result = ml.fit(
    learner,
    network,
    figures.TrainingTasks(),
    num_steps=300,
    meta_batch_size=16,
    key=jax.random.key(0),
)

# %%
trained = ml.zero_head(result.params, few_shot.head)
trained_score = ml.evaluate.meta_test(loss, inner, trained, tasks, 10, metric=accuracy)
print("after 300 steps:", trained_score)

# %% tags=["fold"]
assert trained_score.mean > pixel_score.mean + 0.01
jax.clear_caches()  # frees the memory of the programs above

# %% [markdown]
# ## What does the gradient do to the features?
#
# Why should this training lead to features in which one picture is enough? Kao, Chiu and Chen (2022) found an answer
# that takes a few lines of algebra. It needs two simplifications, which turn MAML into something that can be read:
#
# 1. The meta-gradient is that of first-order MAML: the query gradient at the adapted parameters.
# 2. The inner loop is one step of the head alone, while the encoder is frozen *in the inner loop*. The outer loop trains
#    the encoder.
#
# Let the logits of a picture be $W^\top \psi(x)$ and its class probabilities $p(x)$, the softmax of these logits. The
# support set has $n$ examples $s$ with labels $y_s$, and $e_y$ is the vector with a 1 in place $y$ and zeros elsewhere.
# A bias needs no symbol of its own, because it is a row of $W$ for a feature that is always 1.
#
# The figure shows where the derivation leads: the gradient with respect to the features of a query
# example $q$ is a sum of two parts. All arrows belong to the contrastive part. The interference has no arrow, because it
# may point anywhere.

# %%
figures.two_parts()

# %% [markdown]
# We compute every line of the derivation for a real task, with the features of the drawing pad's network, and with a
# random head of the size that a head has before training. In code the features of a picture are a row.

# %%
support_x, support_y = (np.asarray(part) for part in task.support)
query_x, query_y = (np.asarray(part) for part in task.query)
psi_s = np.asarray(few_shot.features(params, support_x), float)
psi_q = np.asarray(few_shot.features(params, query_x), float)

W = np.random.default_rng(0).normal(0, 1 / 8, (64, 5))  # 1 / √64, as before training
alpha, n, identity = 0.2, len(psi_s), np.eye(5)


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


# %% [markdown]
# **Line 1, the inner step.** The gradient of the cross-entropy with respect to the logits is $p - e_y$, so one step
# with the learning rate $\alpha$ on the mean over the support set changes the head to
#
# $$W_1 = W + \frac{\alpha}{n} \sum_s \psi(s)\, \big(e_{y_s} - p(s)\big)^\top .$$
#
# **Line 2, the query gradient.** First-order MAML treats $W_1$ as a constant, so whatever the query loss tells the
# encoder passes through the features of the query examples. After the step, the loss $\ell_q$ of a query
# example $q$ has the gradient with respect to its features
#
# $$\frac{\partial \ell_q}{\partial \psi(q)} = W_1\, \big(p(q) - e_{y_q}\big),$$
#
# where $p(q)$ is computed with $W_1$. Automatic differentiation agrees with both.

# %%
p_s = softmax(psi_s @ W)
W1 = W + alpha / n * psi_s.T @ (identity[support_y] - p_s)
p_q = softmax(psi_q @ W1)
line_2 = (p_q - identity[query_y]) @ W1.T


def cross_entropy(features, labels, head):
    return optax.softmax_cross_entropy_with_integer_labels(features @ head, labels)


with jax.enable_x64(True):
    in_head = jax.grad(lambda head: cross_entropy(psi_s, support_y, head).mean())(W)
    in_features = jax.grad(lambda psi: cross_entropy(psi, query_y, W1).sum())(psi_q)
in_head, in_features = np.asarray(in_head), np.asarray(in_features)
assert np.allclose(W1, W - alpha * in_head, atol=1e-12)
assert np.allclose(line_2, in_features, atol=1e-12)

# %% [markdown]
# ## Exercise: who attracts whom
#
# **Line 3** is yours. Put line 1 into line 2. Two parts appear. The first contains $W$, the head as it was before. The
# second is a sum over the support set, in which every $\psi(s)$ is multiplied by a number:
#
# $$\frac{\partial \ell_q}{\partial \psi(q)} = W\, \big(p(q) - e_{y_q}\big) + \frac{\alpha}{n} \sum_s c_{qs}\, \psi(s).$$
#
# Find $c_{qs}$, and write the function that computes it for all pairs.


# %% tags=["exercise"] exercise="12.coefficients"
def coefficients(p_support, labels_support, p_query, labels_query):
    """The coefficients c_qs of line 3.

    Args:
      p_support: p(s), before the step, shape [num_support, num_classes].
      labels_support: y_s, whole numbers, shape [num_support].
      p_query: p(q), after the step, shape [num_query, num_classes].
      labels_query: y_q, whole numbers, shape [num_query].

    Returns:
      An array of shape [num_query, num_support].
    """
    ### BEGIN SOLUTION
    vectors = np.eye(p_support.shape[1])
    error_query = p_query - vectors[labels_query]
    error_support = vectors[labels_support] - p_support
    return error_query @ error_support.T
    ### END SOLUTION


# %%
check("12.coefficients", coefficients)

# %% [markdown]
# <details><summary>Line 3, to compare with yours</summary>
#
# $\big(e_{y_s} - p(s)\big)^\top \big(p(q) - e_{y_q}\big)$ is a number, and multiplied out it is
#
# $$c_{qs} = p_{y_s}(q) + p_{y_q}(s) - \langle p(q), p(s) \rangle - 1[y_s = y_q] .$$
#
# Here $p_{y_s}(q)$ is the probability that $q$ gets for the class of $s$, and $1[y_s = y_q]$ is 1 for a pair of one class
# and 0 otherwise.
#
# </details>

# %% [markdown]
# The outer loop steps *against* the gradient, so a negative coefficient moves $\psi(q)$ along $\psi(s)$: it attracts. A
# positive one repels. A loss that brings the features of one class together and moves those of different classes apart
# is called a **supervised contrastive** loss. So the second part acts like the gradient of such a loss, if its
# signs are as they should be. The first part is a different matter. It moves the features along the columns of the old
# head, whatever they happen to be, and is called **interference**.

# %% [markdown]
# ## Attraction and repulsion
#
# A pair is one query example and one support example. If both are of one class $y$, the coefficient can be written as
# $-(1 - p_y(q))(1 - p_y(s)) - \sum_{c \ne y} p_c(q)\, p_c(s)$, so such a pair never repels, whatever the head is. If
# their classes differ, the sign depends on the probabilities.
#
# We compare two heads: the random one of the derivation, and $W = 0$, with which all logits of the support set are zero
# and $p(s)$ is uniform.

# %%
sign_prediction = predict("12.signs")

# %%
examples = (psi_s, support_y, psi_q, query_y)
random_head = ml.theory.contrastive_split(*examples, W, alpha)
zero_head = ml.theory.contrastive_split(*examples, 0 * W, alpha)
matrices = {
    "a random head": random_head.coefficients,
    "a zero head": zero_head.coefficients,
}
figures.coefficient_matrices(matrices)

# %% tags=["fold"]
_same, _c = zero_head.same_class, zero_head.coefficients
assert (_c[_same] < 0).all() and (_c[~_same] > 0).all()
sign_prediction.reveal(100 * random_head.wrong_signs())
_p = softmax(psi_q @ (alpha / n * psi_s.T @ (identity[support_y] - 0.2)))
assert np.allclose(_c, _p[:, support_y] - (query_y[:, None] == support_y), atol=1e-14)
assert np.allclose(
    random_head.coefficients,
    p_q[:, support_y] + p_s[:, query_y].T - p_q @ p_s.T - (query_y[:, None] == support_y),
    atol=1e-14,
)

# %% [markdown]
# With a zero head two of the four terms cancel, since $p_{y_q}(s) = \langle p(q), p(s) \rangle = \frac15$ for uniform
# $p(s)$. What is left,
#
# $$c_{qs} = p_{y_s}(q) - 1[y_s = y_q],$$
#
# is negative for pairs of one class and positive for all others. It is the error that the adapted network still makes
# in the probability of the class of $s$, so a query that is already classified rightly and with certainty is hardly
# moved. And the interference $W\,(p(q) - e_{y_q})$ is zero. **So with a zero head, and under the two simplifications,
# first-order MAML trains its encoder by a supervised contrastive loss.**
#
# With a random head some pairs of different classes attract each other. For such a pair only
# $\langle p(q), p(s) \rangle$ is subtracted, and it outweighs the two other probabilities where both examples give much
# probability to the same third class. (The percentage counts all queries of the task, and the figure shows two of each
# class.)
#
# The next figure has features of two dimensions, so that both parts can be drawn as arrows. Its *wrong signs* are the
# percentage of pairs of different classes that attract each other. Change the size of the old head. **Which of the two
# parts changes more?**

# %%
explore(figures.arrows, figures.ARROWS, head_scale=(0.0, 1.0, 0.05, 0.5))

# %% [markdown]
# With `head_scale` at zero each query example moves in the direction in which the support example of its class lies,
# seen from the origin, and away from the other two. As the head grows, the blue arrows change too, and some turn
# away from that direction. But the orange arrows grow faster. They are soon longer than the blue ones, and some of them
# point away from the class of their example.

# %% [markdown]
# ## Exercise: split the gradient, and check it to rounding
#
# Write the function that splits the gradient of each query example. It starts from features and the old head, so it
# has to take the inner step itself. The function `softmax` of the derivation is there to be used.


# %% tags=["exercise"] exercise="12.split"
def split(
    psi_support,
    y_support,
    psi_query,
    y_query,
    head,
    learning_rate,
):
    """The gradient of each query example's loss with respect to its
    features, after one step of the head, as a sum of two parts.

    Args:
      psi_support: features, shape [num_support, num_features].
      y_support: labels, whole numbers, shape [num_support].
      psi_query: features, shape [num_query, num_features].
      y_query: labels, whole numbers, shape [num_query].
      head: W before the step, shape [num_features, num_classes].
      learning_rate: alpha.

    Returns:
      A pair (interference, contrastive), each of shape [num_query,
      num_features].
    """
    ### BEGIN SOLUTION
    vectors = np.eye(head.shape[1])
    error = vectors[y_support] - softmax(psi_support @ head)
    step = learning_rate / len(psi_support) * psi_support.T @ error
    p_query = softmax(psi_query @ (head + step))
    error_query = p_query - vectors[y_query]
    return error_query @ head.T, error_query @ step.T
    ### END SOLUTION


# %%
check("12.split", split)

# %% [markdown]
# The check compares yours with the library's `ml.theory.contrastive_split`. That one is compared with line 2 here: on the
# task above the two parts add up to the gradient, and the difference is that of rounding in float64.

# %%
whole = random_head.interference + random_head.contrastive
print(f"largest difference from the gradient: {np.abs(whole - in_features).max():.0e}")
interference = np.linalg.norm(random_head.interference)
ratio = interference / np.linalg.norm(random_head.contrastive)
wrong = random_head.wrong_signs()
print(f"interference is {ratio:.0f} times as large as the contrastive part")
print(f"pairs of different classes that attract: {100 * wrong:.0f} %")

# %% tags=["fold"]
assert np.abs(whole - in_features).max() < 1e-12
assert 2.6 < ratio < 3.4 and 0.14 < wrong < 0.22
assert np.abs(zero_head.interference).max() == 0 and zero_head.wrong_signs() == 0

# %% [markdown]
# The numbers of this head are as small as those of any layer before training, and still the interference is three times
# as large as the part that teaches something, and nearly one in five pairs of different classes has the wrong sign.
# This is the noise in the title of the paper, *MAML is a noisy contrastive learner*. Even so, training is not
# hopeless, because classes are numbered anew in every task. So the interference points elsewhere each time, and the
# outer loop averages over tasks.

# %% [markdown]
# ## Where zeroing helps, and where it does not
#
# First-order MAML is harmed by its learned head. Is the damage in its features, or in what adaptation makes of them?

# %%
helps_prediction = predict("12.helps")

# %% tags=["fold"]
_gain = {name: entry["1"]["mean"] for name, entry in figures.record()["gain"].items()}
helps_prediction.reveal(round(100 * _mean(_rows["FO-MAML"]["plain"]["centroid"]), 1))
assert round(100 * _mean(_rows["FO-MAML"]["plain"]["test"])) == 83
figures.gains()
figures.training_curves()

# %% [markdown]
# First-order MAML gains thirteen points. MAML, FO-B-MAML and ANIL take into account how the inner loop changes with the
# initialization, and they gain less than one. Two training runs of one method can differ by as much, which the intervals
# in the table do not show, and on the validation tasks of the curves MAML is even a little better with a learned head.
#
# The row with $K = 1$ is the setting of the derivation, except that the encoder adapts too. It was trained with one inner
# step but tested, like the other rows, with ten. It gains more than ten points on average, though its three runs differ
# widely, and it stays behind the nearest picture. Training with one inner step, with a learning rate of our grid, is not
# enough for this data.
#
# The table also says where the points come from. The features of first-order MAML with a learned head, read by nearest
# centroids, are four points worse than with a zero head. So a part of the damage is in the features. The larger part is
# that ten steps from the learned head do not make use of them.
#
# The curves show that first-order MAML with a learned head does not merely learn more slowly. It learns at first, and
# then it loses a part of what it had learned. (Do not compare the curves with the table: they are measured on
# other tasks, and after the five inner steps of training, while the table has ten.)
#
# Is the interference the cause? It may be, but the split alone does not prove it. It was measured as in the derivation,
# for one step of the head alone, while training takes five steps of all layers. At the end of training with first-order
# MAML, the interference is about two thirds as large as the contrastive part. With MAML, which is not harmed, the two
# are about equally large, but its gradient has second-order terms besides.

# %% tags=["fold"]
_ends = {name: np.mean([run[-1] for run in _rows[name]["plain"]["interference"]]) for name in ("MAML", "FO-MAML")}
assert 0.55 < _ends["FO-MAML"] < 0.75 and 0.95 < _ends["MAML"] < 1.25
assert 0.12 < _gain["FO-MAML"] < 0.14 and 0.1 < _gain["FO-MAML, K = 1"] < 0.11
for _name in ("MAML", "FO-B-MAML", "ANIL"):
    _apart = max(np.ptp(_rows[_name][kind]["test"]["1"]["seeds"]) for kind in ("plain", "zeroing"))
    assert _gain[_name] < min(_apart, 0.01)
_read = {kind: _mean(_rows["FO-MAML"][kind]["centroid"]) for kind in ("plain", "zeroing")}
assert 0.035 < _read["zeroing"] - _read["plain"] < 0.045
assert _read["plain"] - _mean(_rows["FO-MAML"]["plain"]["test"]) > 0.08
_one_step = _rows["FO-MAML, K = 1"]
assert _mean(_one_step["zeroing"]["test"]) < _mean(_pixels) - 0.04
assert all(np.ptp(_one_step[kind]["test"]["1"]["seeds"]) > 0.04 for kind in ("plain", "zeroing"))
_entries = [entry for row in _rows.values() for entry in row.values()]
assert {entry["test_steps"] for entry in _entries} == {10}


def _curve(name, kind):
    return np.mean(_rows[name][kind]["curve"], axis=0)


assert _curve("MAML", "plain")[-1] > _curve("MAML", "zeroing")[-1]
# Fine-tuning too is best at first, as the box "Limits" says, which also tells where the choices lie in their grids.
for _name, _kind, _fall in (("FO-MAML", "plain", 0.05), ("joint training", "zeroing", 0.03)):
    assert _curve(_name, _kind).argmax() == 0 and _curve(_name, _kind)[0] - _curve(_name, _kind)[-1] > _fall
assert sum(entry["outer_rate"] == few_shot.SETTINGS.outer_rates[-1] for entry in _entries) == len(_entries) - 1
assert _joint["own"] == min(few_shot.SETTINGS.tuned_rates)

# %% [markdown]
# ## Exercise: zero at training and at test
#
# The trick has two halves. In training the loss of a task is a function of $Z\theta$, where $Z$ sets the head to zero
# and leaves the rest as it is. At test a new task begins from $Z\theta$ too. Write both halves. You are given a
# meta-gradient and an adaptation, neither of which knows anything about zeroing.


# %% tags=["exercise"] exercise="12.zeroing"
def zeroing(meta_gradient, adapt, params, task, support):
    """Both halves of the zeroing trick.

    Args:
      meta_gradient: function of (params, task) that returns the
        meta-gradient F'(params), a pytree like `params`.
      adapt: function of (params, support) that returns adapted
        parameters, a pytree like `params`.
      params: a dict with "body" and "head", each any pytree of arrays.
      task: a task of training.
      support: the support set of a new task, at test.

    Returns:
      A pair of pytrees like `params`: the gradient of F(Z params) with
      respect to params, and the parameters adapted to the new task.
    """
    ### BEGIN SOLUTION
    zeros = jax.tree.map(lambda leaf: 0 * leaf, params["head"])
    zeroed = {"body": params["body"], "head": zeros}
    gradient = meta_gradient(zeroed, task)
    return {"body": gradient["body"], "head": zeros}, adapt(zeroed, support)
    ### END SOLUTION


# %%
check("12.zeroing", zeroing)

# %% [markdown]
# What does it cost to forget the second half? After training with the trick the stored head is as random as at the
# beginning, since its gradient was always zero. The record has these runs too.

# %%
figures.other_heads()

# %% [markdown]
# Forgetting the second half costs one to two points: the stored head says something about the five classes, and what it
# says is random. Setting the head to zero at test alone does not hurt MAML, but it takes nine points from first-order
# MAML. Its features can be read without the learned head, as the nearest centroids showed, so the points are lost
# in the ten steps. Perhaps these are too short for a zero head, since $\alpha$ was chosen with the learned one.

# %% tags=["fold"]
for _name in ("MAML", "FO-MAML", "FO-B-MAML"):
    assert 0.01 < _mean(_rows[_name]["zeroing"]["test"]) - _mean(_rows[_name]["zeroing"]["other_head"]) < 0.021
assert abs(_mean(_rows["MAML"]["plain"]["test"]) - _mean(_rows["MAML"]["plain"]["other_head"])) < 0.004
assert 0.085 < _mean(_rows["FO-MAML"]["plain"]["test"]) - _mean(_rows["FO-MAML"]["plain"]["other_head"]) < 0.1

# %% [markdown]
# ## Feature reuse or rapid learning?
#
# There are two ways in which an initialization may be good. Its features may be good already, so that a new task needs
# no more than a new head: **feature reuse**. Or its features may be such that a few gradient steps change them into
# good ones: **rapid learning**. Raghu, Raghu, Bengio and Vinyals (2020) asked which of the two MAML does. Their test
# freezes the encoder. In our library an optimizer can be restricted to a part of the parameters, which here is the
# head.

# %%
frozen_prediction = predict("12.frozen")

# %%
head_alone = ml.inner.only(few_shot.head, optax.sgd(0.2))
frozen_score = ml.evaluate.meta_test(loss, head_alone, params, tasks, 10, accuracy)
print("all layers adapt:    ", network_score)
print("the head alone adapts:", frozen_score)

# %% tags=["fold"]
_lost = 100 * (network_score.mean - frozen_score.mean)
assert 0 < _lost < 0.8
assert abs(_mean(_rows["ANIL"]["zeroing"]["test"]) - _mean(_rows["MAML"]["zeroing"]["test"])) < 0.003
frozen_prediction.reveal(
    0 if frozen_score.mean < 0.4 else 1 if frozen_score.mean < pixel_score.mean + 0.02 else 2 if _lost > 1 else 3
)

# %% [markdown]
# Less than one percentage point is lost. The hidden layers adapted in every task of training, and yet at test they need
# not. The record of the comparison agrees: ANIL with a zero head, which adapts the head alone in training and at test, is
# level with MAML at 1-shot. The head has to do little more than find the nearest centroid. Indeed, by line 1 with
# $W = 0$, after its first step it ranks the classes by the inner products of $\psi(q)$ with their centroids.

# %% [markdown]
# ## Exercise: how similar are two layers?
#
# A second test looks at the layers themselves. Let the rows of $X$ be a layer's outputs for some pictures before
# adaptation, and those of $Y$ the outputs for the same pictures after it. To compare the two, we want a number that does
# not depend on a rotation or a common scale of the features. **Linear CKA** (centred kernel alignment; Kornblith et al.
# 2019) is such a number:
#
# $$\text{CKA}(X, Y) = \frac{\lVert X^\top Y \rVert^2}{\lVert X^\top X \rVert\, \lVert Y^\top Y \rVert},$$
#
# with Frobenius norms, after each feature has had its mean over the pictures subtracted.


# %% tags=["exercise"] exercise="12.cka"
def cka(x, y):
    """Linear CKA of two layers.

    Args:
      x: outputs of one layer, shape [num_examples, num_features].
      y: outputs of another one for the same examples, shape
        [num_examples, num_other_features].

    Returns:
      A number from 0 to 1.
    """
    ### BEGIN SOLUTION
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    norms = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return np.linalg.norm(x.T @ y) ** 2 / norms
    ### END SOLUTION


# %%
check("12.cka", cka)

# %% [markdown]
# The next figure compares each layer before ten inner steps with the same layer after them, in our network and, as a
# control, in one that was never trained.

# %% tags=["fold"]
_starts = {"meta-learned": params, "untrained": ml.zero_head(few_shot.network(seed=0)[0], few_shot.head)}
_similar = {}
for _name, _start in _starts.items():
    _pairs = figures.layers_before_and_after(_start, few_shot.first(tasks, 100))
    _similar[_name] = [np.mean([figures.cka(x, y) for x, y in zip(*pair, strict=True)]) for pair in _pairs]
figures.similarity(_similar)
_left = {name: 1 - values[-1] for name, values in _similar.items()}
assert _similar["meta-learned"][1] > 0.99 and _left["meta-learned"] < 0.05
assert 3 < _left["untrained"] / _left["meta-learned"] < 5

# %% [markdown]
# The first hidden layer of the meta-learned network is practically the same after adaptation as before, and the second
# nearly so. In the untrained network the same ten steps change the second layer more than three times as much. So it is
# not the small number of steps that keeps the features where they are. For this network and these tasks the answer is
# **feature reuse**, as Raghu et al. found for MAML on photographs.
#
# This agrees with the comparison. Read by nearest centroids, the features of MAML were no better than those of the
# ordinary classifier, but ten gradient steps from a zero head make good use of them.

# %% [markdown]
# You can see it in the features themselves. The map below takes all sixty pictures of one task's five characters, and
# projects their features to the plane in which they vary most.

# %% tags=["fold"]
_sixty = figures.one_task(figures.unseen(20, num_query=11), 3)
_phi = ml.adapt(loss, inner, params, _sixty.support, 10)
_pictures, _labels = (np.concatenate([np.asarray(a), np.asarray(b)]) for a, b in zip(*_sixty, strict=True))
_before, _after = (np.asarray(few_shot.features(each, _pictures), float) for each in (params, _phi))
_mean_feature, _plane = figures.principal_plane(_before)
figures.feature_map((_before - _mean_feature) @ _plane, (_after - _mean_feature) @ _plane, _labels)

# %% [markdown]
# Before adaptation the pictures of most characters lie together already, and each group contains the one picture that
# the network may adapt to. The network was never trained on these characters. Ten steps move the groups a little further
# apart, and few points change the group to which they belong.

# %% [markdown]
# ## Omniglot
#
# Many few-shot papers report results on *Omniglot*: 1,623 characters of 50 alphabets, each drawn by 20 people. Its files
# do not come with this course. If you have them, name their folder below. The same network, which has seen printed
# characters and scribbles only, is then tested on the 20 alphabets of Omniglot's evaluation set, with the function that
# evaluated the printed characters. One of these alphabets, Old Church Slavonic, is Cyrillic, a script that the network
# has seen in print.

# %%
folder = "omniglot"  # the folder that holds images_evaluation.zip


def report(tasks):
    """The network of the drawing pad against the nearest picture."""
    score = ml.evaluate.meta_test(loss, inner, params, tasks, 10, accuracy)
    print("the network:    ", score)
    print("nearest picture:", ml.evaluate.score(few_shot.nearest_neighbour(tasks)))


try:
    report(figures.omniglot(folder))
except FileNotFoundError as missing:
    print("Omniglot is not here, and nothing is lost if you go on without it.")
    print("To run this cell:", *textwrap.wrap(str(missing), 70), sep="\n")

# %% [markdown]
# ## What to take away
#
# - An accuracy needs its baselines. With five support pictures even the nearest picture reaches what would look like a
#   success, and with one the features of an ordinary classifier, read by nearest centroids, beat all meta-gradients.
# - After one inner step of the head alone, the gradient that first-order MAML sends into the features of a query
#   example is a sum of two parts. The contrastive part has the coefficients $c_{qs}$; the interference comes from the
#   head as it was before adaptation.
# - With a zero head the interference is zero, $c_{qs} = p_{y_s}(q) - 1[y_s = y_q]$, and first-order MAML is a
#   supervised contrastive learner. The trick belongs in training *and* test.
# - Zeroing lifts first-order MAML from below the nearest picture to the level of MAML. Methods that account for the
#   inner loop gain little.
# - Most of what a new task needs is in the features before adaptation: feature reuse.

# %%
quiz("12")

# %%
progress("12")

# %% [markdown]
# ## Limits
#
# - The characters are printed. Twelve typefaces of one character are more alike than twelve people's handwriting, so the
#   accuracies here say nothing about Omniglot, and those of papers nothing about this data.
# - The network is a small perceptron, so that a browser can adapt it. Convolutions would be better.
# - Each row had six configurations, compared after a fifth of the outer steps. Nearly all chose the larger outer
#   learning rate, and several the smallest or largest $\alpha$ or $\lambda$, so these grids end too early. In
#   particular, fine-tuning chose the smallest $\alpha$ and the larger number of steps, so a wider grid may bring it
#   closer to the meta-learned networks.
# - All methods had the same number of outer steps, not of gradients. Lesson 07 compares at equal cost. Nor was
#   there early stopping. It might have helped first-order MAML with a learned head, and fine-tuning: the validation
#   accuracy of both is highest at the first of ten measurements, and lower at the last. It is measured after five inner
#   steps, and was not measured after ten.
# - The derivation freezes the encoder in the inner loop and takes one step. With more steps of all layers, as in the
#   comparison, it explains why zeroing can help first-order MAML, and not how much.
# - The intervals are over test tasks, for the mean of three training runs. They do not contain the spread of the runs,
#   which the small dots show.
#
# ## Go further
#
# - C.-H. Kao, W.-C. Chiu, P.-Y. Chen. *MAML is a noisy contrastive learner in classification.* ICLR 2022.
#   [arXiv 2106.15367](https://arxiv.org/abs/2106.15367). The split, and the zeroing trick.
# - A. Raghu, M. Raghu, S. Bengio, O. Vinyals. *Rapid learning or feature reuse? Towards understanding the effectiveness of
#   MAML.* ICLR 2020. [arXiv 1909.09157](https://arxiv.org/abs/1909.09157). Freezing the body, and ANIL.
# - S. Kornblith, M. Norouzi, H. Lee, G. Hinton. *Similarity of neural network representations revisited.* ICML 2019.
#   [arXiv 1905.00414](https://arxiv.org/abs/1905.00414). CKA.
# - J. Snell, K. Swersky, R. Zemel. *Prototypical networks for few-shot learning.* NeurIPS 2017.
#   [arXiv 1703.05175](https://arxiv.org/abs/1703.05175). The nearest centroid, with features trained for it.
# - W.-Y. Chen, Y.-C. Liu, Z. Kira, Y.-C. F. Wang, J.-B. Huang. *A closer look at few-shot classification.* ICLR 2019.
#   [arXiv 1904.04232](https://arxiv.org/abs/1904.04232). Joint training, with a new classifier for each
#   task, as a serious baseline.
# - B. M. Lake, R. Salakhutdinov, J. B. Tenenbaum. *Human-level concept learning through probabilistic program induction.*
#   Science 350, 2015. Omniglot.
