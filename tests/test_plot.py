"""convlab.plot: what is drawn, held against numbers worked out by hand."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import convlab
from convlab import errors, filters, plot

FORCED = {"torch": {"force": True}, "tensorflow": {}}
TRACED = {"torch": "vmap", "jax": "jit"}
GAP = None  # in a drawn array: nothing
Y = np.array([[[1, 2, 3], [4, 5, 6]], [[0, -8, 0], [0.5, 7, 0]]], "float32")
SIDE_BY_SIDE = [[1, 2, 3, GAP, 0, -8, 0], [4, 5, 6, GAP, 0.5, 7, 0]]


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


def drawn(ax: Axes) -> list:
    return ax.images[0].get_array().tolist()


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


# Feature maps.


def test_feature_maps_lie_side_by_side(lab, ax) -> None:
    assert plot.feature_maps(lab.asarray(Y[None]), ax=ax) is ax
    assert drawn(ax) == SIDE_BY_SIDE
    assert ax.images[0].get_clim() == (-8, 8)
    assert ax.images[0].get_cmap().name == "RdBu_r"


def test_feature_maps_with_channels_last(lab, ax) -> None:
    plot.feature_maps(lab.asarray(np.moveaxis(Y, 0, -1)), data_format="channels_last", ax=ax)
    assert drawn(ax) == SIDE_BY_SIDE


def test_one_map_of_integers(lab, ax) -> None:
    plot.feature_maps(lab.asarray([[3, 0], [5, 2]], "int32"), ax=ax)
    assert drawn(ax) == [[3, 0], [5, 2]]
    assert ax.images[0].get_clim() == (0, 5)
    assert ax.images[0].get_cmap().name == "viridis"


def test_a_batch_has_a_row_for_each_image(ax) -> None:
    plot.feature_maps(np.arange(6.0).reshape(2, 3, 1, 1), ax=ax)
    assert drawn(ax) == [[0, GAP, 1, GAP, 2], [GAP] * 5, [3, GAP, 4, GAP, 5]]


def test_columns_are_as_given_and_the_rest_is_open(ax) -> None:
    plot.feature_maps(np.arange(1.0, 4.0).reshape(3, 1, 1), columns=2, ax=ax)
    assert drawn(ax) == [[1, GAP, 2], [GAP] * 3, [3, GAP, GAP]]


def test_large_maps_have_wider_gaps(ax) -> None:
    plot.feature_maps(np.ones((2, 10, 72)), columns=1, ax=ax)
    assert ax.images[0].get_array().mask.all(1).tolist() == [False] * 10 + [True] * 3 + [False] * 10


def test_what_is_not_finite_is_a_gap(lab, ax) -> None:
    plot.feature_maps(lab.asarray([[np.nan, 2.0], [np.inf, -1.0]], "float32"), ax=ax)
    assert drawn(ax) == [[GAP, 2], [GAP, -1]]
    assert ax.images[0].get_clim() == (-2, 2)


@pytest.mark.parametrize("nothing", [0.0, np.nan])
def test_maps_without_a_scale_of_their_own(ax, nothing) -> None:
    plot.feature_maps(np.full((2, 2), nothing), ax=ax)
    assert ax.images[0].get_clim() == (0, 1)


def test_each_map_can_have_its_own_scale(ax) -> None:
    plot.feature_maps(np.array([[[2.0, -4.0]], [[0.0, 0.0]], [[10.0, 5.0]]]), scale_each=True, columns=3, ax=ax)
    assert drawn(ax) == [[0.5, -1, GAP, 0, 0, GAP, 1, 0.5]]
    assert ax.images[0].get_clim() == (-1, 1)


def test_a_window_names_the_pixel_under_the_mouse(ax) -> None:
    plot.feature_maps(np.zeros((2, 3, 4, 5)), ax=ax)  # each map has 4 x 5 pixels and a gap of one
    assert ax.format_coord(7.2, 5.9) == "image 1, channel 1: row 1, column 1"
    assert ax.format_coord(5, 0) == ax.format_coord(0, 4) == ax.format_coord(-3, 0) == ax.format_coord(18, 0) == ""


# Kernels.


def test_a_kernel_has_zero_in_the_middle_and_numbers_in_its_cells(lab, ax) -> None:
    plot.kernels(lab.asarray([[0.125, -0.5], [0.0, 0.25]], "float32"), ax=ax)
    assert drawn(ax) == [[0.125, -0.5], [0, 0.25]]
    assert ax.images[0].get_clim() == (-0.5, 0.5)
    assert ax.images[0].get_cmap()(0.5)[:3] == pytest.approx([0.97] * 3, abs=0.01)
    assert texts(ax) == ["0.125", "-0.5", "0", "0.25"]
    assert [text.get_position() for text in ax.texts] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert [text.get_color() for text in ax.texts] == ["black", "white", "black", "black"]


def test_numbers_have_three_digits_of_the_largest(ax) -> None:
    plot.kernels([[1234.4, 2e-9, -0.6, np.nan]], ax=ax)
    assert texts(ax) == ["1230", "0", "0"]


def test_a_layers_weight_has_a_row_for_each_output_channel(lab) -> None:
    oihw = np.arange(8, dtype="float32").reshape(2, 2, 1, 2)
    for weight, data_format in ((oihw, None), (oihw.transpose(2, 3, 1, 0), "NHWC")):
        ax = plot.kernels(lab.asarray(weight), data_format=data_format, ax=Figure().subplots())
        assert drawn(ax) == [[0, 1, GAP, 2, 3], [GAP] * 5, [4, 5, GAP, 6, 7]]
        assert ax.get_xlabel() == "input channel"
        assert (ax.get_xticks().tolist(), ax.get_yticks().tolist()) == ([0.5, 3.5], [0, 2])
        assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "1"]


def test_weights_of_one_input_channel_nearly_fill_a_square(ax) -> None:
    plot.kernels(np.ones((8, 1, 3, 3)), ax=ax)
    assert ax.images[0].get_array().shape == (2 * 3 + 1, 4 * 3 + 3)
    assert ax.get_xlabel() == ""


def test_a_list_of_filters(ax) -> None:
    plot.kernels([filters.sobel(0), filters.sobel(1)], ax=ax)
    assert drawn(ax) == [[-1, -2, -1, GAP, -1, 0, 1], [0, 0, 0, GAP, -2, 0, 2], [1, 2, 1, GAP, -1, 0, 1]]


def test_numbers_are_written_where_they_can_be_read() -> None:
    def written(kernel: np.ndarray, **options: bool) -> int:
        return len(plot.kernels(kernel, ax=Figure().subplots(), **options).texts)

    assert written(filters.gaussian_blur(3)) == 0
    assert written(filters.gaussian_blur(3), numbers=True) == 25 * 25
    assert written(filters.sobel(1)) == 9
    assert written(filters.sobel(1), numbers=False) == 0
    assert len(plot.kernels(filters.sobel(1), ax=Figure(figsize=(0.3, 0.3)).subplots()).texts) == 0


def test_parameters_of_layers_are_tensors(backends, ax) -> None:
    """Off the graph that they belong to: PyTorch's need a gradient, Keras's are variables."""
    for name in {"torch", "tensorflow"} & {*backends}:
        layer = convlab.Conv2D((1, 2), seed=0, backend=name)
        layer(convlab.backend(name).asarray([[1.0, 2.0]]))
        plot.kernels(layer.weight, ax=ax)
        assert ax.images[-1].get_array().tolist() == layer.weight.numpy(**FORCED[name]).tolist()


# Receptive fields.


def frames(ax: Axes) -> list[tuple[float, float, float, float]]:
    return [(*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in ax.patches]


def test_receptive_fields_are_framed(lab, ax) -> None:
    """3x3, then 3x3 with stride 2: the middle of the 3x3 result sees rows and columns 2 to 6, around 3 to 5."""
    image = np.arange(81, dtype="float32").reshape(9, 9)
    plot.receptive_field([3, {"kernel_size": 3, "stride": 2}], lab.asarray(image), ax=ax)
    assert drawn(ax) == image.tolist()
    assert frames(ax) == [(2.5, 2.5, 3, 3), (1.5, 1.5, 5, 5)]
    assert [patch.get_label() for patch in ax.patches] == ["layer 1: 3 × 3", "layer 2: 5 × 5"]
    assert (ax.get_xlim(), ax.get_ylim()) == ((-0.5, 8.5), (8.5, -0.5))


def test_the_receptive_field_of_a_corner_takes_in_padding(ax) -> None:
    plot.receptive_field([{"kernel_size": (5, 3), "padding": (2, 1)}], np.eye(6), output=(0, 5), ax=ax)
    assert frames(ax) == [(3.5, -2.5, 3, 5)]
    assert (ax.get_xlim(), ax.get_ylim()) == ((-0.5, 6.5), (5.5, -2.5))


def test_a_layer_before_it_is_framed_in_the_middle(ax) -> None:
    """Output 1 of 1x4 with stride 3, after 1x2: columns 3 to 7; 1x2 at column 4 or 5 is nearest their middle, 5."""
    plot.receptive_field([(1, 2), {"kernel_size": (1, 4), "stride": (1, 3)}], np.zeros((1, 9)), output=(0, 1), ax=ax)
    assert frames(ax)[1] == (2.5, -0.5, 5, 1)
    assert frames(ax)[0] == (3.5, -0.5, 2, 1)


def test_colour_images_are_scaled_and_clear_where_they_are_nan(lab, ax) -> None:
    colours = np.array([[[10, 20]], [[10, 30]], [[50, np.nan]]], "float32")  # C, H, W
    plot.receptive_field([1], lab.asarray(colours), ax=ax)
    assert drawn(ax) == [[[0, 0, 1, 1], [0, 0, 0, 0]]]
    last = Figure().subplots()
    plot.receptive_field([1], lab.asarray(np.moveaxis(colours, 0, -1)), data_format="NHWC", ax=last)
    assert drawn(last) == drawn(ax)


def test_no_layers_see_one_pixel(ax) -> None:
    plot.receptive_field([], np.eye(3), ax=ax)
    assert frames(ax) == [(0.5, 0.5, 1, 1)]


# Losses.


def test_losses_of_a_learned_kernel(lab, ax) -> None:
    """From a kernel of zeros, the first loss is the sum of the target's 12 squares."""
    image = lab.asarray(convlab.chapter.edge_image())
    target = lab.corr2d(image, convlab.chapter.EDGE_KERNEL)
    learned = lab.learn_kernel(image, target, (1, 2), init=[[0.0, 0.0]], num_steps=4)
    plot.losses({lab.name: learned}, ax=ax)
    (line,) = ax.lines
    assert line.get_xdata().tolist() == [1, 2, 3, 4]
    assert line.get_ydata().tolist() == learned.losses
    assert line.get_ydata()[0] == 12
    assert (ax.get_yscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "step", "loss")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [lab.name]


def test_losses_in_a_tensor(lab, ax) -> None:
    plot.losses(lab.asarray([4.0, 2.0, 0.0, np.inf], "float32"), ax=ax)
    assert np.array_equal(ax.lines[0].get_ydata(), [4, 2, np.nan, np.nan], equal_nan=True)
    assert ax.get_legend() is None


def test_curves_below_others_are_wider(ax) -> None:
    plot.losses({"a": [4.0, 2.0], "b": [4.001, 2.0], "c": [5.0, 2.0], "d": [4.0, 2.001], "e": [4.0]}, ax=ax)
    assert [line.get_linewidth() for line in ax.lines] == [8, 5, 2, 2, 2]
    assert [line.get_marker() for line in ax.lines] == ["None"] * 4 + ["o"]
    assert len({line.get_color() for line in ax.lines}) == 5


def test_losses_that_are_zero_have_a_linear_scale(ax) -> None:
    plot.losses([0.0, 0.0], ax=ax)
    assert ax.get_yscale() == "linear"
    assert ax.lines[0].get_ydata().tolist() == [0, 0]


# Parity.


def test_errors_are_in_multiples_of_the_bound(lab, ax) -> None:
    """One product, one rounding and no bias, which count as three roundings: 2^-20 is 16 / 3 of 3 * 2^-24."""
    X, K = np.array([[1.0, 2.0, 4.0]], "float32"), np.ones((1, 1), "float32")
    off = X * np.array([1, 1, 1 + 2.0**-20], "float32")
    nan = X * np.array([1, 1, np.nan], "float32")
    plot.parity({"right": lab.asarray(X), "off": lab.asarray(off), "nan": lab.asarray(nan)}, X, K, ax=ax)
    median, worst, arrow = ax.lines
    assert median.get_xdata().tolist() == [0, 0, 0]
    assert worst.get_xdata().tolist() == [0, pytest.approx(16 / 3, rel=1e-6), np.inf]
    assert [worst.get_label(), worst.get_marker(), arrow.get_marker()] == ["worst element", "s", ">"]
    assert arrow.get_ydata().tolist() == [worst.get_ydata()[2]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["right", "off", "nan"]
    assert ax.get_xscale() == "symlog"
    assert ax.get_xlim()[1] == pytest.approx(4 * 16 / 3, rel=1e-6)


def test_corr2ds_options_belong_to_the_truth(lab, ax) -> None:
    X = lab.asarray([[1.0, 2.0, 3.0, 4.0]], "float32")
    results = {"0, 2": [[2.0, 4.0]], "0, 3": [[2.0, 5.0]]}
    plot.parity(results, X, [[1.0]], stride=(1, 2), bias=[1.0], ax=ax)
    assert [error <= 1 for error in ax.lines[1].get_xdata()] == [True, False]


REPORT = {
    "format": 1,
    "backends": {"numpy": {}, "torch": {}},
    "failed": {"jax": "it stopped"},
    "results": [
        {"tier": "exact", "backend": "numpy", "quantity": "result", "worst": 0.0},
        {"tier": "exact", "backend": "torch", "quantity": "result", "worst": None},
        {"tier": "bounded", "backend": "numpy", "quantity": "result", "worst": 0.25},
        {"tier": "bounded", "backend": "numpy", "quantity": "gradient of X", "worst": 0.5},
    ],
}


def test_a_report_has_a_series_for_each_tier(ax) -> None:
    plot.parity(json.loads(json.dumps(REPORT)), ax=ax)
    exact, arrow, bounded = ax.lines
    assert (exact.get_label(), exact.get_xdata().tolist()) == ("exact", [0, np.inf])
    assert (bounded.get_label(), bounded.get_xdata().tolist()) == ("bounded", [0.25, 0.5])
    assert [round(y) for y in (*exact.get_ydata(), *bounded.get_ydata())] == [0, 1, 0, 0]
    assert arrow.get_ydata().tolist() == [exact.get_ydata()[1]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["numpy", "torch", "jax (failed)"]
    assert (ax.get_xscale(), ax.get_xlim()) == ("linear", (-0.05, 1.25))


def test_a_report_of_run_plan(ax) -> None:
    from convlab.parity.run import Cell, Report

    report = Report(0, "", versions={"numpy": {}}, cells={("bounded", "numpy", "result"): Cell(3, 0, 0.75)})
    plot.parity(report, ax=ax)
    assert ax.lines[0].get_xdata().tolist() == [0.75]


# Axes, matplotlib, and what can't be drawn.


def test_without_ax_the_current_one_is_drawn_into() -> None:
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2)
    try:
        assert plot.kernels([[1.0]]) is right
        plt.sca(left)
        assert plot.losses([1.0]) is left
    finally:
        plt.close(figure)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    return done.stdout.strip()


def test_matplotlib_is_imported_on_use_and_pyplot_without_ax_only() -> None:
    code = """
import sys, convlab, convlab.plot
assert not any(name.startswith("matplotlib") for name in sys.modules)
from matplotlib.figure import Figure
for draw in (convlab.plot.kernels, convlab.plot.feature_maps):
    draw([[1.0, 2.0]], ax=Figure().subplots())
print("matplotlib.pyplot" in sys.modules, dir(convlab).count("plot"))
"""
    assert run(code) == "False 1"


def test_without_matplotlib_the_error_has_the_command_that_installs_it() -> None:
    code = """
import sys, convlab
sys.modules["matplotlib"] = None
try: convlab.plot.kernels([[1.0]])
except ModuleNotFoundError as error: print(type(error).__name__, error)
"""
    printed = run(code)
    assert printed.startswith("ExtraNotInstalled a picture needs matplotlib, which isn't installed. Hint: ")
    assert printed.endswith("install matplotlib")


class Foreign:
    """A tensor of no framework that convlab knows."""


SHAPES = errors.ShapeError
TYPES = errors.DTypeError
OPTIONS = errors.GeometryError
REFUSED = [
    (lambda ax: plot.feature_maps(np.ones(3), ax=ax), SHAPES, r"Y: got shape \(3,\), expected \(H, W\), \(C, H, W\)"),
    (lambda ax: plot.feature_maps(np.ones((1, 1, 1, 2, 2)), data_format="NHWC", ax=ax), SHAPES, r"\(N, H, W, C\)"),
    (lambda ax: plot.feature_maps(np.ones((0, 2, 2)), ax=ax), SHAPES, r"got shape \(0, 2, 2\)"),
    (lambda ax: plot.feature_maps(np.ones((2, 2)) * 1j, ax=ax), TYPES, "Y: got complex numbers"),
    (lambda ax: plot.feature_maps(Foreign(), ax=ax), TYPES, "Y: got .*Foreign, expected a tensor"),
    (lambda ax: plot.feature_maps([["a"]], ax=ax), TYPES, "expected a number dtype"),
    (lambda ax: plot.feature_maps(np.eye(2), data_format="CHWN", ax=ax), OPTIONS, "data_format: got 'CHWN'"),
    (lambda ax: plot.feature_maps(np.eye(2), columns=0, ax=ax), OPTIONS, "columns: got 0"),
    (lambda ax: plot.feature_maps(np.eye(2), scale_each=1, ax=ax), OPTIONS, "scale_each: got 1"),
    (lambda ax: plot.kernels(np.ones(3), ax=ax), SHAPES, r"weight: got shape \(3,\), expected .* OIHW"),
    (lambda ax: plot.kernels(np.ones(3), data_format="NHWC", ax=ax), SHAPES, "HWIO"),
    (lambda ax: plot.kernels([[1.0], [1.0, 2.0]], ax=ax), SHAPES, "weight: got a ragged list"),
    (lambda ax: plot.kernels(filters.sobel, ax=ax), TYPES, "a function must be called"),
    (lambda ax: plot.kernels(np.eye(2), numbers="yes", ax=ax), OPTIONS, "numbers: got 'yes'"),
    (lambda ax: plot.kernels(np.eye(2), ax=Figure().subplots(1, 2)), OPTIONS, r"ax: got ndarray.*axes\[0, 0\]"),
    (lambda ax: plot.kernels(np.eye(2), ax="left"), OPTIONS, "ax: got str"),
    (lambda ax: plot.receptive_field(3, np.eye(4), ax=ax), OPTIONS, "layers: got 3"),
    (lambda ax: plot.receptive_field([{"stride": 3}], np.eye(4), ax=ax), OPTIONS, "layers: got"),
    (lambda ax: plot.receptive_field([5], np.eye(4), ax=ax), SHAPES, "height 5"),
    (lambda ax: plot.receptive_field([3], np.ones((2, 4, 4)), ax=ax), SHAPES, "image: got 2 channels"),
    (lambda ax: plot.receptive_field([3], np.eye(4), output=(2, 0), ax=ax), OPTIONS, r"output: got \(2, 0\)"),
    (lambda ax: plot.receptive_field([3], np.eye(4), output=-1, ax=ax), OPTIONS, "output: got -1"),
    (lambda ax: plot.losses([], ax=ax), SHAPES, "learned: got shape"),
    (lambda ax: plot.losses({}, ax=ax), SHAPES, "learned: got an empty mapping"),
    (lambda ax: plot.losses({"a": [[1.0]]}, ax=ax), SHAPES, r"learned\['a'\]: got shape \(1, 1\)"),
    (lambda ax: plot.losses("loss", ax=ax), TYPES, "learned: got 'loss'"),
    (lambda ax: plot.parity({}, np.eye(2), np.eye(2), ax=ax), SHAPES, "results: got no backend"),
    (lambda ax: plot.parity({"a": np.eye(2)}, np.eye(2), np.eye(2), ax=ax), SHAPES, r"expected \(1, 1\)"),
    (lambda ax: plot.parity({"a": [[1j]]}, np.eye(2), np.eye(2), ax=ax), TYPES, "got complex numbers"),
    (lambda ax: plot.parity({"a": np.eye(2)}, np.eye(2), ax=ax), errors.OptionError, "with X and K"),
    (lambda ax: plot.parity({"a": np.eye(2)}, ax=ax), errors.OptionError, "expected a parity report"),
    (lambda ax: plot.parity(np.eye(2), ax=ax), errors.OptionError, "results: got ndarray"),
]  # fmt: skip


@pytest.mark.parametrize(("draw", "error", "words"), REFUSED, ids=[words for _, _, words in REFUSED])
def test_what_cant_be_drawn_is_refused_at_the_door(draw, error, words) -> None:
    figure = Figure()
    with pytest.raises(error, match=words):
        draw(figure.subplots())
    assert not figure.axes[0].has_data()


def test_numbers_near_the_end_of_their_dtype_are_gaps() -> None:
    """matplotlib computes the width of a scale, which would overflow."""
    for draw in (plot.kernels, plot.feature_maps):
        figure = Figure()
        draw(np.array([[3.4e38, -3.4e38], [2.0, 1.0]], "float32"), ax=figure.subplots())
        figure.canvas.draw()
        assert drawn(figure.axes[0]) == [[GAP, GAP], [2, 1]]


def test_tensors_without_values_are_refused(backends, ax) -> None:
    for name in {"torch", "jax"} & {*backends}:
        traced = getattr(importlib.import_module(name), TRACED[name])(lambda x: plot.kernels(x, ax=ax))
        with pytest.raises(errors.UnsupportedError, match="weight: got a tensor without values"):
            traced(convlab.backend(name).asarray(np.eye(2)[None]))
