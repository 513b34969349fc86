"""theory.cost against the compiler's figures."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.extend.core import jaxprs_in_params
from jax.interpreters import partial_eval

import metalearn as ml
from metalearn._cost import COSTS, SENTENCES

pytestmark = pytest.mark.usefixtures("optimized")  # as a user's programs are

SGD = optax.sgd(0.01)
METHODS = {
    "maml": (lambda loss, k: ml.maml(loss, SGD, k), {}),
    "maml with remat": (lambda loss, k: ml.maml(loss, SGD, k, remat=True), {}),
    "fo_maml": (lambda loss, k: ml.fo_maml(loss, SGD, k), {}),
    "reptile": (lambda loss, k: ml.reptile(loss, SGD, k), {}),
    "hf_maml": (lambda loss, k: ml.hf_maml(loss, SGD, k, 0.1), {}),
    "imaml": (lambda loss, k: ml.imaml(loss, SGD, k, 1.0, 3), {"cg_steps": 3}),
    "fo_b_maml": (lambda loss, k: ml.fo_b_maml(loss, SGD, k, 1.0, 0.1), {}),
    "fo_muml": (lambda loss, k: ml.fo_muml(loss, 0.01, k), {}),
    "meta_rkhs_i": (lambda loss, k: ml.meta_rkhs_i(loss, 0.01), {}),
    "mamf": (lambda loss, k: mamf(loss, k), {}),
    "fo_b_maml_limit": (lambda loss, k: ml.fo_b_maml_limit(loss, SGD, k, 1.0), {}),
}
ESTIMATORS = [
    ("fo_b_maml", lambda loss, k, e=estimator: ml.fo_b_maml(loss, SGD, k, 1.0, 0.1, e), {"estimator": estimator})
    for estimator in ("forward", "three_point", "fourth_order")
]
EVERY = [*((name, *case) for name, case in METHODS.items()), *ESTIMATORS]
NETWORKS = {  # widths, examples: where layer outputs weigh more, where parameters do, and in between
    "outputs": ((1, 64, 64, 64, 1), 1000),
    "parameters": ((1, 512, 512, 1), 10),
    "both": ((1, 256, 256, 1), 256),
}


def problem(widths, num_examples):
    params, apply = ml.models.functional(ml.models.MLP(widths, rngs=nnx.Rngs(0)))
    batch = jnp.ones((num_examples, widths[0])), jnp.ones((num_examples, widths[-1]))
    sizes = {
        "num_params": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "num_examples": num_examples,
        "num_outputs": sum(widths[1:]),
    }
    return ml.losses.mean_squared_error(apply), params, ml.Task(batch, batch), sizes


def mamf(loss, num_steps):
    """Fine-tuning on one task, with the arguments of a meta-gradient."""
    fine_tune = ml.mamf(loss, SGD, num_steps)
    return lambda params, task: fine_tune(params, jax.tree.map(lambda leaf: leaf[None], task))


def moml(loss, params, task):
    """(One step on one task, its arguments); the population is large, so that its memory is seen to be no scratch."""
    learner = ml.moml(loss, SGD, SGD, 50, 0.5)
    batch = ml.tasks.IndexedTasks(jnp.zeros(1, int), jax.tree.map(lambda leaf: leaf[None], task))
    return learner.step, (learner.init(params), batch)


def slow_but(few, names, cases):
    """The cases as parameters, all but those named few run by .ci/run only: each compiles as a user's programs do."""
    return [
        pytest.param(*case, id=name, marks=() if name in few else pytest.mark.slow)
        for name, case in zip(names, cases, strict=True)
    ]


NAMES = [" ".join([name, *map(str, options.values())]) for name, _, options in EVERY]


@pytest.mark.slow
@pytest.mark.parametrize("network", slow_but(["outputs"], NETWORKS, zip(NETWORKS)))
@pytest.mark.parametrize(("method", "build", "options"), slow_but(["maml"], NAMES, EVERY))
def test_memory_is_the_compilers_within_a_factor(network, method, build, options):
    loss, params, task, sizes = problem(*NETWORKS[network])
    for num_steps in (4, 25, 100):
        program = jax.jit(build(loss, num_steps)).lower(params, task).compile()
        found = program.memory_analysis().temp_size_in_bytes
        predicted = ml.theory.cost(method, num_steps=num_steps, **sizes, **options).memory
        assert 1 / 1.5 < predicted / found < 1.5, (num_steps, predicted / found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "build", "options"),
    [case for case in slow_but(["fo_b_maml"], NAMES, EVERY) if "remat" not in case.id],
)
def test_operations_are_the_compilers(method, build, options):
    """With one inner step and one step of conjugate gradients: the compiler counts the body of a loop once."""
    loss, params, task, sizes = problem((1, 256, 256, 1), 256)
    if method == "imaml":
        build, options = lambda loss, k: ml.imaml(loss, SGD, k, 1.0, 1), {"cg_steps": 1}
    found = jax.jit(build(loss, 1)).lower(params, task).compile().cost_analysis()["flops"]
    predicted = ml.theory.cost(method, num_steps=1, **sizes, **options).flops
    assert predicted == pytest.approx(found, rel=0.1)


@pytest.mark.slow
def test_a_loop_of_many_steps_is_as_many_times_the_work():
    """What the compiler does not count is seen when the loop is written out."""
    loss, params, task, sizes = problem((1, 64, 64, 1), 100)

    def written_out(params, task):
        for _ in range(5):
            params = optax.tree.add_scale(params, -0.01, jax.grad(loss)(params, task.support))
        return jax.grad(loss)(params, task.query)

    found = jax.jit(written_out).lower(params, task).compile().cost_analysis()["flops"]
    assert ml.theory.cost("fo_maml", num_steps=5, **sizes).flops == pytest.approx(found, rel=0.05)


def products(jaxpr):
    """Floating-point operations of the matrix products of a program, those in a loop as often as it runs."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, out = equation.invars[0].aval, equation.outvars[0].aval
            total += 2 * out.size * np.prod([left.shape[axis] for axis in contracted], dtype=int)
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        # A linear solve carries more programs, for its derivatives.
        solve = equation.primitive.name == "custom_linear_solve"
        inner = [equation.params["jaxprs"].solve.jaxpr] if solve else jaxprs_in_params(equation.params)
        total += times * sum(map(products, inner))
    return total


def operations(function, *arguments):
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    return products(partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])


COUNTED = [*EVERY, ("a_maml", lambda loss, k: ml.a_maml(loss, 1.0, k), {})]


@pytest.mark.parametrize(("method", "build", "options"), COUNTED, ids=[*NAMES, "a_maml"])
def test_every_product_of_the_program_is_counted(method, build, options):
    """Gradients and Hessian-vector products, repeated steps included, in gradients of the loss."""
    loss, params, task, _ = problem((64, 64, 64, 64), 100)
    if method == "imaml":  # the length of its loop is not known before it runs
        build, options = lambda loss, k: ml.imaml(loss, SGD, k, 1.0, 1), {"cg_steps": 1}
    found = operations(build(loss, 49), params, task) / operations(jax.grad(loss), params, task.support)
    assert ml.theory.cost(method, num_params=1, num_steps=49, **options).gradients == pytest.approx(found, rel=0.1)


def test_every_product_of_a_step_of_moml_is_counted():
    loss, params, task, _ = problem((64, 64, 64, 64), 100)
    step, arguments = moml(loss, params, task)
    found = operations(step, *arguments) / operations(jax.grad(loss), params, task.support)
    assert ml.theory.cost("moml", num_params=1, num_steps=1).gradients == pytest.approx(found, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_memory_of_a_step_of_moml_is_the_compilers_within_a_factor(network):
    loss, params, task, sizes = problem(*NETWORKS[network])
    step, arguments = moml(loss, params, task)
    program = jax.jit(step, donate_argnums=0).lower(*arguments).compile()
    found = program.memory_analysis().temp_size_in_bytes
    assert 1 / 1.5 < ml.theory.cost("moml", num_steps=1, **sizes).memory / found < 1.5


def test_no_cost_is_without_a_test_and_each_stands_in_its_docstring():
    assert set(COSTS) == {method for method, *_ in COUNTED} | {"moml"}
    factories = {name: getattr(ml, name) for name in ml.__all__} | {"adaptation_curve": ml.repurpose.adaptation_curve}
    for name, sentence in SENTENCES.items():
        said = factories[name.split()[0]].__doc__
        assert " ".join(sentence.split()) in " ".join(said.split()), name


@pytest.mark.slow
def test_memory_of_a_maml_is_the_compilers_within_a_factor():
    """Its loops take seconds to compile, so with one network and one number of steps."""
    loss, params, task, sizes = problem(*NETWORKS["both"])
    program = jax.jit(ml.a_maml(loss, 1.0, 25)).lower(params, task).compile()
    found = program.memory_analysis().temp_size_in_bytes
    assert 1 / 1.5 < ml.theory.cost("a_maml", num_steps=25, **sizes).memory / found < 1.5


def test_devices_share_tasks_and_exchange_one_gradient():
    sizes = {"num_params": 1000, "num_steps": 5, "num_examples": 10, "num_outputs": 30}
    one = ml.theory.cost("fo_maml", num_tasks=16, **sizes)
    eight = ml.theory.cost("fo_maml", num_tasks=16, num_devices=8, **sizes)
    np.testing.assert_allclose([one.flops / eight.flops, one.memory / eight.memory], 8)
    assert (one.communication, eight.communication) == (0, 2 * 7 / 8 * 4000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "mamll"}, "method must be one of .*'maml'.* but it is 'mamll'"),
        ({"num_steps": 0}, "num_steps must be a whole number of at least 1"),
        ({"num_devices": 0}, "num_devices must be"),
        ({"estimator": "best"}, "estimator must be one of"),
        ({"num_outputs": -1}, "num_outputs must be"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        ml.theory.cost(**{"method": "maml", "num_params": 10, "num_steps": 1, **change})
