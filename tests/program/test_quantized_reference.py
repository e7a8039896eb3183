"""The reference of int8 steps against loops over single numbers, to the bit."""

import itertools

import numpy as np
import pytest

from sepconv.program import quantized_reference as reference
from sepconv.program.network import DEQUANTIZED_PRODUCTS, QUANTIZED_OPERATIONS, Input, Network, Step
from sepconv.program.shapes import shapes

F = np.float32


def step(operation, *inputs, weights=None, **attributes):
    """What one step gives, after its shape was held against the one expected."""
    weights = weights or {}
    fields = {field.name for field in QUANTIZED_OPERATIONS[operation].fields}
    assert attributes.keys() == fields
    assert weights.keys() <= set(QUANTIZED_OPERATIONS[operation].weights)
    parts = {part: i for i, part in enumerate(weights)}
    made = Step(operation, "step", list(range(len(inputs))), attributes, parts)
    y = reference.compute(made, weights, list(inputs))
    entries = [Input(f"x{i}", np.shape(x)) for i, x in enumerate(inputs)]
    network = Network("float32", entries, [made], [len(inputs)], ["y"], list(weights.values()))
    assert shapes(network)[-1] == y.shape
    floats = operation in ("dequantize", *DEQUANTIZED_PRODUCTS)
    assert y.dtype == (np.float32 if floats else np.uint8)
    return y


def rounded(t, zero_point, lower=0, upper=255, table=None):
    """One number, by Python's integers: round() goes to the even one."""
    assert isinstance(t, np.float32)
    q = min(max(round(float(t)), lower - zero_point), upper - zero_point) + zero_point
    return q if table is None else int(table[q])


def test_every_step_has_a_meaning():
    assert reference.QUANTIZED.keys() == QUANTIZED_OPERATIONS.keys()


def test_quantize_rounds_to_even_clamps_and_takes_no_number_for_zero():
    x = F([-1e30, -3, -0.75, -0.25, 0, 0.25, 0.75, 1e30, np.inf, -np.inf, np.nan])
    y = step("quantize", x, multiplier=2.0, zero_point=3)
    assert y.tolist() == [0, 0, 1, 3, 3, 3, 5, 255, 255, 0, 3]


def test_dequantize_is_one_product():
    x = np.arange(256, dtype=np.uint8)
    y = step("dequantize", x, scale=0.1, zero_point=200)
    assert y.tolist() == [float(F(q - 200) * F(0.1)) for q in range(256)]
    back = step("quantize", y, multiplier=float(1 / F(0.1)), zero_point=200)
    np.testing.assert_array_equal(back, x)


def test_lookup():
    table = np.random.default_rng(0).integers(0, 256, 256).astype(np.uint8)
    x = np.uint8([[0, 255], [7, 7]])
    assert step("lookup", x, weights={"table": table}).tolist() == [
        [table[0], table[255]],
        [table[7], table[7]],
    ]


class Drawn:
    """Parts of random steps."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def bytes(self, *shape):
        return self.rng.integers(0, 256, shape).astype(np.uint8)

    def kernel(self, *shape):
        return self.rng.integers(-127, 128, shape).astype(np.int8)

    def bias(self, count):
        return self.rng.integers(-20000, 20000, count).astype(np.int32)

    def scale(self, count):
        return self.rng.uniform(0.001, 0.01, count).astype(np.float32)

    def table(self):
        return self.bytes(256) if self.rng.integers(2) else None

    def bounds(self):
        lower, upper = sorted(self.rng.integers(0, 256, 2).tolist())
        return lower, upper


def pads_of(spec, size, kernel):
    """What is before each axis, and how many outputs it has."""
    found = []
    for axis in range(2):
        reach = (kernel[axis] - 1) * spec[2 + axis] + 1
        before, after = spec[5 + 2 * axis : 7 + 2 * axis]
        if spec[4]:
            total = max((-(-size[axis] // spec[axis]) - 1) * spec[axis] + reach - size[axis], 0)
            before, after = total // 2, total - total // 2
        found.append((before, (size[axis] + before + after - reach) // spec[axis] + 1))
    return found


def taps_of(spec, size, kernel, y, x):
    """(i, j, row, column) of the taps of an output that lie inside an image."""
    (top, _), (left, _) = pads_of(spec, size, kernel)
    for i, j in itertools.product(*map(range, kernel)):
        row = y * spec[0] - top + i * spec[2]
        column = x * spec[1] - left + j * spec[3]
        if 0 <= row < size[0] and 0 <= column < size[1]:
            yield i, j, row, column


def convolved(image, spec, given, weights, residual):
    """A quantised convolution of an image with channels last, a number after the other."""
    depthwise, pointwise = weights.get("depthwise_kernel"), weights.get("pointwise_kernel")
    first = pointwise if depthwise is None else depthwise
    kernel, size = first.shape[:2], image.shape[1:3]
    counts = [count for _, count in pads_of(spec, size, kernel)]
    channels = first.shape[3] if depthwise is None else first.shape[2] * first.shape[3]
    filters = channels if pointwise is None else pointwise.shape[3]
    floats = "output_zero_point" not in given
    result = np.zeros((len(image), *counts, filters), np.float32 if floats else np.uint8)
    for n, y, x in itertools.product(*map(range, result.shape[:3])):
        taps = list(taps_of(spec, size, kernel, y, x))
        pixel = []
        for f in range(channels):
            total = 0
            for i, j, row, column in taps:
                if depthwise is None:
                    for c in range(first.shape[2]):
                        q = int(image[n, row, column, c]) - given["input_zero_point"]
                        total += q * int(first[i, j, c, f])
                else:
                    c, m = divmod(f, first.shape[3])
                    q = int(image[n, row, column, c]) - given["input_zero_point"]
                    total += q * int(first[i, j, c, m])
            pixel.append(total)
        if depthwise is not None:
            middle = [
                rounded(
                    F(total + int(weights["depthwise_bias"][f])) * weights["depthwise_scale"][f],
                    given["depthwise_zero_point"],
                    given["depthwise_lower"],
                    given["depthwise_upper"],
                    weights.get("depthwise_table"),
                )
                for f, total in enumerate(pixel)
            ]
            if pointwise is None:
                result[n, y, x] = middle
                continue
            pixel = [
                sum(
                    (q - given["depthwise_zero_point"]) * int(w)
                    for q, w in zip(middle, pointwise[0, 0, :, f], strict=True)
                )
                for f in range(pointwise.shape[3])
            ]
        for f, total in enumerate(pixel):
            t = F(total + int(weights["bias"][f])) * weights["scale"][f]
            if floats:
                result[n, y, x, f] = t
                continue
            if residual is not None:
                r = F(int(residual[n, y, x, f]) - given["residual_zero_point"])
                t = t + r * F(given["residual_scale"])
            result[n, y, x, f] = rounded(
                t,
                given["output_zero_point"],
                given["lower"],
                given["upper"],
                weights.get("table"),
            )
    return result


SPECS = [
    (1, 1, 1, 1, 1, 0, 0, 0, 0),
    (2, 2, 1, 1, 1, 0, 0, 0, 0),
    (1, 2, 2, 1, 0, 2, 1, 0, 3),
    (2, 1, 1, 1, 0, 0, 0, 0, 0),
]


@pytest.mark.parametrize("channels_first", [0, 1])
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("form", ["depthwise", "ordinary", "separable"])
def test_convolutions(form, spec, channels_first):
    draw = Drawn([SPECS.index(spec), len(form)])
    kernel, channels, filters = (3, 2), 3, 4
    multiplier = 1 if form == "ordinary" else 2
    image = draw.bytes(2, 5, 6, channels)
    weights = {}
    if form != "ordinary":
        weights["depthwise_kernel"] = draw.kernel(*kernel, channels, multiplier)
        weights["depthwise_bias"] = draw.bias(channels * multiplier)
        weights["depthwise_scale"] = draw.scale(channels * multiplier)
        weights["depthwise_table"] = draw.table()
    if form != "depthwise":
        size = kernel if form == "ordinary" else (1, 1)
        weights["pointwise_kernel"] = draw.kernel(*size, channels * multiplier, filters)
        weights["bias"], weights["scale"] = draw.bias(filters), draw.scale(filters)
        weights["table"] = draw.table()
    weights = {part: array for part, array in weights.items() if array is not None}
    lower, upper = draw.bounds()
    middle_lower, middle_upper = draw.bounds()
    given = {
        "input_zero_point": 117,
        "depthwise_zero_point": 60,
        "depthwise_lower": middle_lower,
        "depthwise_upper": middle_upper,
        "output_zero_point": 131,
        "lower": lower,
        "upper": upper,
        "residual_zero_point": 9,
        "residual_scale": 0.3,
    }
    shape = (2, *(count for _, count in pads_of(spec, (5, 6), kernel)), filters)
    residual = None if form == "depthwise" else draw.bytes(*shape)
    expected = convolved(image, spec, given, weights, residual)
    inputs = [x for x in (image, residual) if x is not None]
    if channels_first:
        inputs = [x.transpose(0, 3, 1, 2) for x in inputs]
        expected = expected.transpose(0, 3, 1, 2)
    given["spec"] = (*spec, channels_first)
    found = step("quantized_convolution", *inputs, weights=weights, **given)
    np.testing.assert_array_equal(found, expected)
    if form == "depthwise":
        return
    # The same without the rounding.
    weights.pop("table", None)
    given = {
        field.name: given[field.name]
        for field in QUANTIZED_OPERATIONS["dequantized_convolution"].fields
    }
    expected = convolved(image, spec, given, weights, None)
    found = step("dequantized_convolution", inputs[0], weights=weights, **given)
    np.testing.assert_array_equal(
        found, expected.transpose(0, 3, 1, 2) if channels_first else expected
    )


def test_a_convolution_of_rows_is_one_of_images_a_pixel_high():
    draw = Drawn(5)
    weights = {
        "pointwise_kernel": draw.kernel(1, 3, 2, 3),
        "bias": draw.bias(3),
        "scale": draw.scale(3),
    }
    given = dict.fromkeys(
        (field.name for field in QUANTIZED_OPERATIONS["quantized_convolution"].fields), 0
    )
    given |= {"spec": (1, 1, 1, 1, 1, 0, 0, 0, 0, 0), "upper": 255, "output_zero_point": 100}
    x = draw.bytes(2, 5, 2)
    rows = step("quantized_convolution", x, weights=weights, **given)
    image = step("quantized_convolution", x[:, None], weights=weights, **given)
    np.testing.assert_array_equal(rows, image[:, 0])


def test_dense():
    draw = Drawn(1)
    x, kernel = draw.bytes(2, 3, 5), draw.kernel(5, 4)
    weights = {"kernel": kernel, "bias": draw.bias(4), "scale": draw.scale(4)}
    weights["table"] = draw.bytes(256)
    y = step(
        "quantized_dense",
        x,
        weights=weights,
        input_zero_point=33,
        output_zero_point=140,
        lower=20,
        upper=230,
    )
    for n, m, f in np.ndindex(2, 3, 4):
        total = sum((int(x[n, m, k]) - 33) * int(kernel[k, f]) for k in range(5))
        t = F(total + int(weights["bias"][f])) * weights["scale"][f]
        assert y[n, m, f] == rounded(t, 140, 20, 230, weights["table"])


def test_dense_to_floats_is_one_product():
    draw = Drawn(1)
    x, kernel = draw.bytes(2, 3, 5), draw.kernel(5, 4)
    weights = {"kernel": kernel, "bias": draw.bias(4), "scale": draw.scale(4)}
    # More than float32 holds exactly: the sum is rounded, and then the product.
    weights["bias"][1] = 2**25 + 1
    weights["scale"][2] = 3e38
    y = step("dequantized_dense", x, weights=weights, input_zero_point=33)
    for n, m, f in np.ndindex(2, 3, 4):
        total = sum((int(x[n, m, k]) - 33) * int(kernel[k, f]) for k in range(5))
        with np.errstate(over="ignore"):
            assert y[n, m, f] == F(total + int(weights["bias"][f])) * weights["scale"][f]
    assert np.isinf(y).any()


@pytest.mark.parametrize("function", ["add", "multiply"])
def test_binary(function):
    draw = Drawn(2)
    a, b = draw.bytes(3, 4, 5), draw.bytes(4, 1)
    given = {"a_zero_point": 100, "b_zero_point": 7, "a_scale": 0.013, "b_scale": 0.7}
    y = step(
        "quantized_binary",
        a,
        b,
        function=function,
        output_zero_point=90,
        lower=3,
        upper=200,
        **given,
    )
    for i, j, k in np.ndindex(a.shape):
        p, q = int(a[i, j, k]) - 100, int(b[j, 0]) - 7
        t = F(p * q) * F(0.013) if function == "multiply" else F(p) * F(0.013) + F(q) * F(0.7)
        assert y[i, j, k] == rounded(t, 90, 3, 200)


def test_mean():
    x = Drawn(3).bytes(2, 4, 5, 3)
    given = {"axes": (1, 2), "input_zero_point": 50, "scale": 0.06, "output_zero_point": 20}
    y = step("quantized_mean", x, keepdims=False, **given)
    for n, c in np.ndindex(2, 3):
        total = sum(int(x[n, i, j, c]) - 50 for i in range(4) for j in range(5))
        assert y[n, c] == rounded(F(total) * F(0.06), 20)
    kept = step("quantized_mean", x, keepdims=True, **given)
    np.testing.assert_array_equal(kept[:, 0, 0], y)


@pytest.mark.parametrize("channels_first", [0, 1])
@pytest.mark.parametrize("spec", SPECS)
def test_average_pool_counts_the_pixels_inside(spec, channels_first):
    x = Drawn(4).bytes(2, 5, 6, 3)
    given = {"window": (3, 2), "input_zero_point": 50, "scale": 0.9, "output_zero_point": 20}
    image = x.transpose(0, 3, 1, 2) if channels_first else x
    y = step("quantized_average_pool", image, spec=(*spec, channels_first), **given)
    y = y.transpose(0, 2, 3, 1) if channels_first else y
    for n, i, j, c in np.ndindex(y.shape):
        pixels = [x[n, r, k, c] for _, _, r, k in taps_of(spec, (5, 6), (3, 2), i, j)]
        total = sum(int(q) - 50 for q in pixels)
        scale = F(0.9) / F(max(len(pixels), 1))
        assert y[n, i, j, c] == rounded(F(total) * scale, 20)


def test_movement_and_the_greatest_keep_bytes():
    x = Drawn(6).bytes(1, 4, 4, 2)
    attributes = {"function": "max", "window": (2, 2), "spec": (2, 2, 1, 1, 0, 0, 0, 0, 0, 0)}
    y = reference.compute(Step("pool", "pool", [0], attributes), {}, [x])
    assert y.dtype == np.uint8
    np.testing.assert_array_equal(y, x.reshape(1, 2, 2, 2, 2, 2).max((2, 4)))
    # A window in the padding alone.
    attributes["spec"] = (2, 2, 1, 1, 0, 2, 0, 0, 0, 0)
    assert not reference.compute(Step("pool", "pool", [0], attributes), {}, [x])[:, 0].any()
    around = {"before": (0, 1, 0, 0), "after": (0, 0, 0, 2), "value": 77.0}
    padded = reference.compute(Step("pad", "pad", [0], around), {}, [x])
    assert padded.dtype == np.uint8
    assert padded[0, 0, 0, 0] == padded[0, 1, 0, 3] == 77
    np.testing.assert_array_equal(padded[:, 1:, :, :2], x)


@pytest.mark.parametrize(
    ("operation", "attributes"),
    [
        ("softmax", {"axis": 1, "logarithm": False}),
        ("pool", {"function": "average"}),
        ("resize", {"interpolation": "bilinear"}),
    ],
)
def test_what_does_not_compute_on_bytes_is_refused(operation, attributes):
    with pytest.raises(ValueError, match="does not compute on quantised values"):
        reference.compute(Step(operation, "s", [0], attributes), {}, [np.zeros((1, 2), np.uint8)])


def test_sums_that_leave_int32_are_refused():
    weights = {
        "kernel": np.full((1, 1), 127, np.int8),
        "bias": np.int32([2**31 - 1000]),
        "scale": F([1]),
    }
    given = {"input_zero_point": 0, "output_zero_point": 0, "lower": 0, "upper": 255}
    assert step("quantized_dense", np.uint8([[7]]), weights=weights, **given) == 255
    with pytest.raises(ValueError, match="must stay within int32"):
        step("quantized_dense", np.uint8([[255]]), weights=weights, **given)
