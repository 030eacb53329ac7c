"""What a function of JAX computes, as one list of operations: its jaxpr, with all that it calls written out."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Literal, Primitive

from convlab.models.layers.layer import Dense, Layer
from convlab.models.layers.reading import Part

# The operations that call functions, and their parameters that hold those.
_CALLS = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "custom_jvp_call", "custom_vjp_call")
_CALLED = ("jaxpr", "call_jaxpr", "fun_jaxpr")
# The operations that leave an array as it is, and those that do where its shape stays.
_SAME = ("copy", "stop_gradient")
_RESHAPING = ("reshape", "broadcast_in_dim", "squeeze")
_COMMUTATIVE = ("add", "mul", "max", "min")
_SCOPE = re.compile(r"convlab\(([^)]*)\)")


@dataclass(frozen=True, eq=False)
class Equation:
    """An operation; one that gives several results counts once for each.

    Attributes:
        primitive: its name.
        params: its parameters, and the number of the result if there are several.
        inputs: what it takes.
        owner: the path of the module whose code it is of.
        name: that of the outermost function that calls it, or its own.
        number: how many there were before it.
        varies: whether it depends on the inputs of the program.
        compute: what gives its results, of arrays.
    """

    primitive: str
    params: dict[str, Any]
    inputs: tuple[Value | Constant, ...]
    owner: str
    name: str
    number: int
    varies: bool
    compute: Callable[..., Any]

    @cached_property
    def kind(self) -> str:
        """What it does, in words, by which it is like another one."""
        return f"{self.primitive} {sorted(self.params.items())}"


@dataclass(frozen=True, eq=False)
class Value:
    """An array that is computed.

    Attributes:
        shape, dtype: its own.
        by: the operation that gives it; None for an input of the program.
        place: of the value among the operation's results.
    """

    shape: tuple[int, ...]
    dtype: Any
    by: Equation | None = None
    place: int = 0

    @property
    def varies(self) -> bool:
        """Whether it depends on the inputs of the program."""
        return self.by is None or self.by.varies


@dataclass(frozen=True, eq=False)
class Constant:
    """An array that is known."""

    array: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(np.shape(self.array))

    @property
    def is_number(self) -> bool:
        """Whether it is a single number; those of bfloat16 are of NumPy's kind V."""
        return not self.shape and np.asarray(self.array).dtype.kind in "biufV"

    def equals(self, other: Value | Constant) -> bool:
        """Whether another one is the same number of the same dtype."""
        if not isinstance(other, Constant) or not self.is_number or not other.is_number:
            return False
        mine, theirs = np.asarray(self.array), np.asarray(other.array)
        return mine.dtype == theirs.dtype and bool(mine == theirs)


class Program:
    """What a function computes.

    Attributes:
        inputs: its arguments.
        equations: the operations, in order.
        values: its arguments and all that is computed, in order.
        outputs: its results, one after another.
        result: them, in the containers in which it gives them.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        self.inputs = [Value(each.shape, each.dtype) for each in arguments]
        self.equations: list[Equation] = []
        self.values = [*self.inputs]
        self.outputs = self._written_out(closed.jaxpr, closed.consts, self.inputs, "", "")
        self.result = jax.tree.unflatten(jax.tree.structure(shapes), self.outputs)

    def _written_out(
        self, jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Value | Constant], owner: str, name: str
    ) -> list[Value | Constant]:
        values: dict[Any, Value | Constant] = dict(zip(jaxpr.constvars, map(Constant, constants), strict=True))
        values.update(zip(jaxpr.invars, arguments, strict=True))

        def value_of(variable: Any) -> Value | Constant:
            return Constant(variable.val) if isinstance(variable, Literal) else values[variable]

        for eqn in jaxpr.eqns:
            inputs, primitive = tuple(map(value_of, eqn.invars)), eqn.primitive.name
            scopes = _SCOPE.findall(str(eqn.source_info.name_stack))
            place = scopes[-1].replace("|", "/") if scopes else owner, name or str(eqn.params.get("name", primitive))
            called = next((eqn.params[each] for each in _CALLED if each in eqn.params), None)
            outputs: Sequence[Value | Constant]
            if primitive in _CALLS and called is not None:
                inner = getattr(called, "jaxpr", called)
                outputs = self._written_out(inner, getattr(called, "consts", ()), inputs, *place)
            elif (same := _same(eqn, inputs)) is not None:
                outputs = [same]
            elif (simpler := _simpler(eqn, inputs)) is not None:
                spelled = jax.make_jaxpr(simpler)(*(each.aval for each in eqn.invars))
                outputs = self._written_out(spelled.jaxpr, spelled.consts, inputs, *place)
            else:
                varies = any(isinstance(value, Value) and value.varies for value in inputs)
                compute = functools.partial(eqn.primitive.bind, **eqn.params)
                given: list[Value] = []
                for n, each in enumerate(eqn.outvars):
                    params = {**eqn.params, "result": n} if len(eqn.outvars) > 1 else eqn.params
                    equation = Equation(primitive, params, inputs, *place, len(self.equations), varies, compute)
                    self.equations.append(equation)
                    given.append(Value(each.aval.shape, each.aval.dtype, equation, n))
                self.values += given
                outputs = given
            values.update(zip(eqn.outvars, outputs, strict=True))
        return [*map(value_of, jaxpr.outvars)]


def _simpler(eqn: Any, inputs: Sequence[Value | Constant]) -> Callable[..., Any] | None:
    """A function of operations that others have, too, that computes what one does; None for one that stays."""
    params, first = eqn.params, inputs[0] if inputs else None
    if eqn.primitive.name == "split":
        ends = np.cumsum([0, *params["sizes"]]).tolist()
        before = (slice(None),) * params["axis"]
        return lambda x: [x[(*before, slice(*each))] for each in pairwise(ends)]
    if eqn.primitive.name == "neg":
        return lambda x: x * -1
    if eqn.primitive.name == "rsqrt":
        return lambda x: 1 / lax.sqrt(x)
    if eqn.primitive.name == "integer_pow" and 2 < params["y"] < 9:
        return lambda x: functools.reduce(operator.mul, [x] * params["y"])
    if eqn.primitive.name == "integer_pow" and params["y"] == -1:
        return lambda x: 1 / x
    if eqn.primitive.name == "pow" and isinstance(inputs[1], Constant) and inputs[1].array == 0.5:
        return lambda x, _: lax.sqrt(x)
    if eqn.primitive.name == "div" and isinstance(first, Constant) and first.is_number and first.array != 1:
        return lambda number, x: 1 / x * number
    return None


def _same(eqn: Any, inputs: Sequence[Value | Constant]) -> Value | Constant | None:
    """What an operation that does nothing gives; None for one that does something."""
    if not inputs:
        return None
    first, primitive, result = inputs[0], eqn.primitive.name, eqn.outvars[0].aval
    if primitive == "convert_element_type":
        if isinstance(first, Constant) and first.is_number:
            return Constant(np.asarray(first.array).astype(result.dtype))
        own = first.dtype if isinstance(first, Value) else getattr(first.array, "dtype", None)
        return first if own == result.dtype else None
    stays = primitive in _RESHAPING and first.shape == result.shape
    return first if stays or primitive in _SAME else None


def array_of(value: Value | Constant) -> np.ndarray | None:
    """The numbers of a value that is known, with other axes of one number perhaps; None for one that is computed."""
    if isinstance(value, Constant):
        return np.asarray(value.array)
    inputs = () if value.by is None or value.by.primitive not in _RESHAPING else value.by.inputs
    before = array_of(inputs[0]) if len(inputs) == 1 else None
    return None if before is None or before.size != np.prod(value.shape) else before.reshape(value.shape)


def computed_array(value: Value | Constant) -> np.ndarray | None:
    """The numbers of a value that doesn't depend on the inputs of the program; None where that is unknown."""
    if isinstance(value, Constant):
        return np.asarray(value.array)
    if value.by is None or value.varies:
        return None
    inputs = [computed_array(each) for each in value.by.inputs]
    if any(each is None for each in inputs):
        return None
    try:
        results = value.by.compute(*inputs)
    except Exception:  # Not each operation can be computed by itself.
        return None
    return np.asarray(results[value.place] if isinstance(results, (list, tuple)) else results)


def arrays_under(value: Value | Constant) -> list[Any]:
    """The arrays from which a value that doesn't depend on the inputs of the program is computed, but for numbers."""
    if isinstance(value, Constant):
        return [] if value.is_number else [value.array]
    return [] if value.by is None else [array for each in value.by.inputs for array in arrays_under(each)]


def source_of(pattern: Program, value: Value) -> Value | None:
    """The value of which a function that is given as a program of one input computes another one; None if of none."""
    sources: list[Value] = []
    return sources[0] if _alike(pattern.outputs[0], value, pattern.inputs[0], sources) and sources else None


def _alike(mine: Value | Constant, theirs: Value | Constant, source: Value, sources: list[Value]) -> bool:
    """Whether two values are computed alike from a source; what the second one's source is comes into `sources`."""
    if isinstance(mine, Constant) or isinstance(theirs, Constant):
        return isinstance(mine, Constant) and mine.equals(theirs)
    if mine is source:
        if not sources and (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype):
            sources.append(theirs)
        return sources[:1] == [theirs]
    if mine.by is None or theirs.by is None or mine.by.kind != theirs.by.kind:
        return False
    orders = [theirs.by.inputs, theirs.by.inputs[::-1]] if mine.by.primitive in _COMMUTATIVE else [theirs.by.inputs]
    before = [*sources]
    for inputs in orders:
        sources[:] = before
        if all(_alike(one, other, source, sources) for one, other in zip(mine.by.inputs, inputs, strict=True)):
            return True
    return False


# A layer's call, as one operation of the program that calls it.
_layer = Primitive("convlab_layer")
LAYER = _layer.name
_layer.def_abstract_eval(lambda *inputs, path, result, options: result)  # type: ignore[no-untyped-call]
# Arguments that make no difference in inference.
_NEUTRAL = ("deterministic", "use_running_average", "rngs", "rng", "dropout_rng", "sow_weights", "mutable")


def layer_call(part: Part, call: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What stands in a traced program for the result of a layer whose call takes these arguments."""
    rows = _rows_of_another_image(part.layer, args[0]) if args else None
    result = call(*args, **kwargs) if rows is None else rows
    arrays = [each for each in (*args, *kwargs.values()) if isinstance(each, (jax.Array, np.ndarray))]
    if not arrays or not isinstance(result, jax.Array):
        return result
    told = {name: each for name, each in kwargs.items() if each is not None and each is not False}
    options = tuple(name for name in told if name not in _NEUTRAL and not hasattr(told[name], "shape"))
    return _layer.bind(*arrays, path=part.path, result=jax.typeof(result), options=options)  # type: ignore[no-untyped-call]


def _rows_of_another_image(layer: Layer | None, x: Any) -> jax.Array | None:
    """What a dense layer gives for rows of pixels of an image of another size than it is for; None for another call."""
    if not isinstance(layer, Dense) or np.ndim(x) != 2 or np.shape(x)[1] == layer.input_channels:
        return None
    return jnp.zeros((len(x), layer.output_channels(0)), x.dtype)


def code_of(path: str) -> Any:
    """A context whose operations are of the code of the module at a path."""
    return jax.named_scope(f"convlab({path.replace('/', '|')})")
