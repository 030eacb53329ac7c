"""`convlab.port_weights`: bare weights of one model for another, paired by the models' layers, not by shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelError, PortError
from .adapters import models_of, read
from .compare.compare import compare_read
from .compare.inputs import batches, images_of
from .compare.pairing import fitting_layer, paired
from .files.save_load import load
from .layers.inputs import given_values
from .layers.reading import Model
from .layers.shapes import known_after
from .layers.steps import is_known, steps, weighted


def port_weights(
    weights: Any, source: Any, target: Any, *, inputs: Any = None, names: Mapping[str, str] | None = None
) -> Any:
    """Make weights of `source` into weights of `target`, a model of any framework with the same structure.

    The models say which arrays belong to which layer and how each framework lays them out: nothing is guessed. Both
    models are then compared with these weights, so that a difference in what they compute is an error, too.

    Args:
        weights: of `source`, as its framework keeps them (a state dict, linen variables, …), or a path to a file of
            that framework's own; None for those that it has.
        source: the model that the weights are of; a `flax.linen` module with variables of the right shapes.
        target: the model that they are for, likewise.
        inputs: as in `convlab.compare`.
        names: which layer of target belongs to which of source, by path; by default `convlab.compare` tells. If they
            leave out layers or parameters, only the named layers are compared.

    Returns:
        The weights as target's framework keeps them. `target` itself is left as it is; one line loads them into it:

        - PyTorch, a state dict: `target.load_state_dict(weights)`;
        - `flax.linen`, the module's variables: `module.apply(weights, x)`, or `target = module.bind(weights)`;
        - `flax.nnx`, a nested dictionary: `nnx.update(target, weights)`;
        - Keras, arrays by path in the order of `get_weights`: `target.set_weights(list(weights.values()))`;
        - gluon, arrays by path in the order of `collect_params`:
            `[p.set_data(w) for p, w in zip(target.collect_params().values(), weights.values())]`;
        - NumPy's `Conv2D`: `vars(target).update(weights)`.

    Raises:
        ModelError: layers that don't belong together; the message names them.
        PortError: the weights fit, but the models don't compute the same, or nothing tells whether they do; the message
            says why, and what mends it.
    """
    given = None if inputs is None else images_of(inputs)
    example = None if given is None else given[0]
    first, second = read(source, example, "source"), read(target, example, "target")
    mine, theirs = models_of(first.backend), models_of(second.backend)
    if isinstance(weights, (str, Path)):
        first = mine.read(load(weights, into=first.native), example)
    elif weights is not None:
        first = mine.read(mine.with_weights(first.native, weights), example)
    pairs, reason = paired(weighted(first), weighted(second), names, first.whole and second.whole)
    if reason:
        raise ModelError(f"source and target have different structures: {reason}.", hint="names={source's: target's}")
    channels = _flattened_channels(first)
    fitted = {step.path: fitting_layer(given, step, channels.get(given.path, 0)) for given, step in pairs}
    filled = theirs.fill(second, fitted)
    comparison = compare_read(first, theirs.read(filled, example), batches(given, first), None, names)
    loose = "".join(f"\nnot carried: {path}: {note}" for path, note in first.loose.items())
    if comparison.same is False:
        raise PortError(
            f"the weights fit, but the models don't compute the same.\n{comparison}{loose}",
            hint="change the target so that it computes the same.",
        )
    if comparison.same is None and not comparison.partial:
        raise PortError(
            f"the weights fit, but nothing tells whether the models compute the same.\n{comparison}{loose}",
            hint="give inputs= that both models take; names={source's: target's} compares single layers.",
        )
    return theirs.weights(filled)


def _flattened_channels(model: Model) -> dict[str, int]:
    """The channels of the images that layers flatten, by their paths, as far as the layers before them tell."""
    if not is_known(model):
        return {}
    values, channels = given_values(model, None), {}
    for step in steps(model):
        inputs = [values[value] for value in step.inputs]
        channels[step.path] = inputs[0].channels
        for layer in step.layers:
            inputs = [known_after(layer, inputs)]
        values[step.value] = inputs[0]
    return channels
