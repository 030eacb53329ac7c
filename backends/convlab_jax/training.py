"""Learning with JAX's autograd and optax: all steps in one XLA program."""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from convlab.learning.descent import AT_ONCE, DescentBase, parameters_state
from convlab.learning.problem import Problem

from .ops import ops


def draw(shape: tuple[int, ...], groups: int, use_bias: bool, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The numbers that `flax.linen.Conv` starts from."""
    outputs, per_group, h, w = shape
    layer = nn.Conv(outputs, (h, w), feature_group_count=groups, use_bias=use_bias, param_dtype=jnp.dtype(dtype))
    # JAX has no global generator; the key is the one that its documentation uses throughout.
    arrays = layer.init(jax.random.key(0), jnp.zeros((1, h, w, per_group * groups), dtype))["params"]
    return ops.to_numpy(arrays["kernel"]).transpose(3, 2, 0, 1), ops.to_numpy(arrays["bias"]) if use_bias else None


OPTIMIZER = "one of optax's, such as optax.adam(0.1)"
_alike: dict[str, Any] = {}


def describe(optimizer: Any) -> str:
    """See `convlab.learning.descent.Descent`: the program of a step, and so its numbers."""
    one = jnp.zeros(1)
    return str(jax.make_jaxpr(lambda g, m, p: optimizer.update(g, m, p))(one, optimizer.init(one), one))


class Descent(DescentBase):
    """`optimizer` is one of optax's: `optax.adam(0.1)`."""

    def set_optimizer(self, optimizer: Any) -> None:
        if optimizer is not None:  # for the first one that computes the same, the program is compiled already
            optimizer = _alike.setdefault(describe(optimizer), optimizer)
        self.optimizer = optimizer
        self.memory = None if optimizer is None else optimizer.init(self.parameters)

    def set_parameters(self, kernel: np.ndarray, bias: np.ndarray | None) -> None:
        arrays = parameters_state(kernel, bias)
        self.parameters = {name: jnp.asarray(each, self.problem.dtype) for name, each in arrays.items()}

    def run(self, steps: int, lr: float) -> list[float]:
        self.parameters, self.memory, losses = run_steps(
            self.problem, self.optimizer, self.pairs, self.parameters, self.memory, lr, steps
        )
        return ops.to_numpy(losses)[:steps].tolist()  # type: ignore[no-any-return]

    @property
    def found(self) -> tuple[Array, Array | None]:
        return self.parameters["kernel"], self.parameters.get("bias")

    def state(self) -> dict[str, np.ndarray]:
        arrays = {name: ops.to_numpy(each) for name, each in self.parameters.items()}
        return arrays | {f"optimizer/{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(self.memory))}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.set_parameters(state["kernel"], state.get("bias"))
        leaves, structure = jax.tree.flatten(self.memory)
        restored = [jnp.asarray(state[f"optimizer/{i}"], leaf.dtype) for i, leaf in enumerate(leaves)]
        self.memory = jax.tree.unflatten(structure, restored)


@partial(jax.jit, static_argnums=(0, 1))
def run_steps(
    problem: Problem, optimizer: Any, pairs: Any, parameters: dict[str, Array], memory: Any, lr: Any, steps: Any
) -> tuple[dict[str, Array], Any, Array]:
    """The parameters and the optimiser's memory after some steps, and the losses, in an array of the size AT_ONCE."""

    def squared_error(parameters: dict[str, Array]) -> Array:
        loss: Array = problem.loss(ops, pairs, parameters["kernel"], parameters.get("bias"))
        return loss

    def step(i: Any, carried: Any) -> Any:
        parameters, memory, losses = carried
        loss, slopes = jax.value_and_grad(squared_error)(parameters)
        if optimizer is None:
            moved = {name: (each - lr * slopes[name]).astype(each.dtype) for name, each in parameters.items()}
        else:
            updates, memory = optimizer.update(slopes, memory, parameters)
            moved = {name: (each + updates[name]).astype(each.dtype) for name, each in parameters.items()}
        return moved, memory, losses.at[i].set(loss)

    losses = jnp.zeros(AT_ONCE, parameters["kernel"].dtype)
    return jax.lax.fori_loop(0, steps, step, (parameters, memory, losses))  # type: ignore[no-any-return]
