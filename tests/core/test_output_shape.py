"""`geometry.output_shape`: the native geometry's sizes and refusals, also for unknown sizes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sepconv.geometry import conv_spec, output_shape, plan

SMALL = st.integers(1, 5)


@st.composite
def problems(draw, smallest=-1):
    """A spec and the shapes of x and of both kernels, which fit or do not quite."""
    pads = st.tuples(st.integers(0, 3), st.integers(0, 3))
    spec = conv_spec(
        draw(st.tuples(SMALL, SMALL)),
        draw(st.one_of(st.sampled_from(["valid", "same"]), st.tuples(pads, pads))),
        draw(st.tuples(SMALL, SMALL)),
        draw(st.sampled_from(["channels_last", "channels_first"])),
    )
    channels, multiplier = draw(SMALL), draw(SMALL)
    x = [draw(st.integers(0, 3)), *(draw(st.integers(1, 30)) for _ in range(2))]
    x.insert(spec.channel_axis, channels)
    kernel = [draw(SMALL), draw(SMALL), channels, multiplier]
    pointwise = draw(st.none() | st.just([1, 1, channels * multiplier, draw(SMALL)]))
    shapes = [shape for shape in (x, kernel, pointwise) if shape is not None]
    if draw(st.integers(0, 3)) == 0:
        shape = draw(st.sampled_from(shapes))
        shape[draw(st.integers(0, 3))] = draw(st.integers(smallest, 7))
    return spec, tuple(x), tuple(kernel), None if pointwise is None else tuple(pointwise)


def _result(function, *arguments):
    try:
        return function(*arguments)
    except ValueError as error:
        return str(error)


@settings(max_examples=1000, deadline=None)
@given(problems())
def test_it_is_the_native_geometrys(problem):
    spec, x, kernel, pointwise = problem
    expected = _result(lambda: plan(spec, x, kernel, pointwise)[2])
    assert _result(output_shape, spec, x, (kernel, pointwise)) == expected


@settings(max_examples=500, deadline=None)
@given(problems(smallest=1), st.data())
def test_unknown_sizes_leave_the_known_as_they_are(problem, data):
    spec, *shapes = problem
    full = _result(output_shape, spec, shapes[0], tuple(shapes[1:]))
    hidden = [
        None if shape is None else tuple(data.draw(st.sampled_from([size, None])) for size in shape)
        for shape in shapes
    ]
    partly = _result(output_shape, spec, hidden[0], tuple(hidden[1:]))
    if isinstance(partly, str):
        assert isinstance(full, str)  # what a part shows to be wrong is wrong
    elif not isinstance(full, str):
        assert all(size in (None, whole) for size, whole in zip(partly, full, strict=True))
        if not any(None in shape for shape in hidden if shape is not None):
            assert partly == full


def test_what_is_unknown_of_a_result():
    spec = conv_spec(2, "same", data_format="channels_first")
    assert output_shape(spec, (None, 3, None, 9), ((3, 3, None, 2), None)) == (None, 6, None, 5)
    assert output_shape(spec, (2, None, 9, 9), ((None, 3, None, 2), None)) == (2, None, 5, 5)
    assert output_shape(spec, (2, None, 9, 9), (None, (1, 1, None, 7))) == (2, 7, 5, 5)
    assert output_shape(conv_spec(), (2, 9, 9, 3), ((None, 3, 3, 2), None)) == (2, None, 7, 6)


def test_what_is_wrong_of_the_known_sizes():
    for x, kernel, message in (
        ((None, 2, None, 3), (3, 1, 3, 1), r"height is 2 .*Use padding='same'"),
        ((None, None, None, 4), (3, 1, 3, 1), r"x\.shape=\(None, None, None, 4\).* so 4 channels"),
        ((None, None, 0, None), (3, 1, 3, 1), "must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            output_shape(conv_spec(), x, (kernel, None))
