"""ANIL: only the last layer adapts. With clipped outer steps, a schedule and two devices."""

import jax
import optax
from flax import nnx

import metalearn as ml

jax.config.update("jax_num_cpu_devices", 2)  # two simulated devices, before the first array

params, apply = ml.models.functional(ml.models.MLP((1, 40, 40, 1), rngs=nnx.Rngs(0)))
loss = ml.losses.mean_squared_error(apply)
inner = ml.inner.only(lambda params: params["layers"][2], optax.sgd(0.005))

num_steps = 1_500
schedule = optax.cosine_decay_schedule(0.03, num_steps)
outer = ml.outer.clipped_sgd(schedule, max_norm=10.0)
learner = ml.meta_learner(ml.maml(loss, inner, num_steps=5), outer)
mesh = jax.make_mesh((2,), ("tasks",))  # each device adapts half of the tasks
sinusoids = ml.tasks.Sinusoid()
key = jax.random.key(0)
result = ml.fit(learner, params, sinusoids, num_steps, meta_batch_size=16, key=key, mesh=mesh)

new_tasks = sinusoids(jax.random.key(1), 500)
for name, initialization in ("untrained", params), ("trained", result.params):
    score = ml.evaluate.meta_test(loss, inner, initialization, new_tasks, num_steps=5)
    print(f"{name}: query loss {score.mean:.2f} ± {score.half_width:.2f} on new tasks")
