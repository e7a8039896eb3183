"""What layers cost: numbers of known networks, and which of many are drawn."""

import numpy as np
import pytest


def test_numbers_of_a_small_network(network, explain):
    found = explain(network, 2, 8, 8, 4)
    assert [(row.name, row.kind) for row in found.rows] == [
        ("dw", "depthwise"),
        ("sep", "separable"),
        ("conv", "convolution"),
        ("fc", "dense"),
    ]
    assert [row.output_shape for row in found.rows] == [
        (2, 8, 8, 4),
        (2, 3, 3, 6),
        (2, 1, 1, 8),
        (2, 5),
    ]
    costs = [row.cost for row in found.rows]
    assert [cost.parameters for cost in costs] == [36, 36 + 24 + 6, 3 * 9 * 8 + 8, 45]
    assert [cost.multiply_adds for cost in costs] == [
        2 * 64 * 9 * 4,
        2 * 9 * (9 * 4 + 4 * 6),
        2 * 9 * 3 * 8,
        2 * 8 * 5,
    ]
    assert [cost.standard for cost in costs] == [
        2 * 64 * 9 * 4 * 4,
        2 * 9 * 9 * 4 * 6,
        2 * 9 * 6 * 8,
        2 * 8 * 5,
    ]
    # A border of one is padded, so that two of the 8 * 3 positions along an axis need no work.
    assert costs[0].operations == 2 * 2 * 22 * 22 * 4
    assert costs[0].bytes == 4 * (2 * 256 + 2 * 256 + 36)
    assert costs[3].operations == 2 * 2 * 8 * 5
    assert found.parameters == network.count_params()
    assert found.seconds > 0
    assert all(row.seconds > 0 for row in found.rows)


def test_plans_of_a_small_network(network, explain):
    plans = {row.name: row.steps for row in explain(network, 2, 8, 8, 4).rows}
    # Kernels for ordinary convolutions in groups and for dense layers there are none.
    assert {name: len(steps) > 0 for name, steps in plans.items()} == {
        "dw": True,
        "sep": True,
        "conv": False,
        "fc": False,
    }
    (step,) = plans["dw"]
    assert step.kind == "depthwise"
    assert step.kernel in ("flat", "small")  # four channels are few for wide vectors alone
    assert step.tile[1:] == (8, 4)
    assert 1 <= step.tile[0] <= 8
    assert step.tasks >= 1
    assert step.scratch >= 0


def test_plans_of_every_kind_of_layer(keras, explain):
    from sepconv import layers

    inputs = keras.Input((8, 8, 64))
    x = keras.layers.Conv2D(96, 1, name="product")(inputs)
    x = keras.layers.Conv2D(96, 3, padding="same", groups=96, name="grouped")(x)
    x = layers.FusedConv2D(32, 3, padding=((1, 1), (0, 2)), name="fused")(x)
    x = keras.layers.Reshape((64, 32))(x)
    x = layers.SeparableConv1D(16, 3, padding="causal", name="sequence")(x)
    x = keras.layers.Conv1D(16, 3, name="ordinary")(x)
    found = explain(keras.Model(inputs, x), 1, 8, 8, 64)
    plans = {row.name: row.steps for row in found.rows}
    (step,) = plans["product"]
    assert (step.kind, step.kernel) == ("pointwise", "product")
    assert 0 < step.tile[1] <= 96
    assert [step.kind for step in plans["grouped"]] == ["depthwise"]
    for name, tile in (("fused", (8, 96)), ("sequence", (64, 32))):
        kinds = [step.kind for step in plans[name]]
        assert kinds in (["depthwise", "pointwise"], ["fused tiles"], ["fused parts"])
        assert all(size <= most for size, most in zip(plans[name][0].tile[1:], tile, strict=True))
    assert plans["ordinary"] == ()
    assert found.threads >= 1


@pytest.mark.usefixtures("keras")
def test_the_floor_is_the_larger_of_two_times(machine):
    from sepconv.explain.analysis import floor
    from sepconv.models.cost import Cost

    assert floor(Cost(0, 0, 0, operations=5000, bytes=4000), machine) == 5000 / 1e9
    assert floor(Cost(0, 0, 0, operations=1000, bytes=4000), machine) == 4000 / 1e9
    assert floor(Cost(0, 0, 0, operations=1000, bytes=4001), machine) == 4001 / 1e8


def test_one_axis_dilation_and_causal_padding(keras, explain):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((10, 3)),
            layers.Conv1D(4, 3, padding="causal", dilation_rate=2),
            layers.DepthwiseConv1D(3, depth_multiplier=2, strides=2, padding="same"),
        ]
    )
    conv, depthwise = (row.cost for row in explain(model, 1, 10, 3).rows)
    assert conv.multiply_adds == 10 * 3 * 3 * 4
    assert conv.operations == 2 * (10 + 8 + 6) * 3 * 4
    assert depthwise.multiply_adds == 5 * 3 * 8
    assert depthwise.standard == 5 * 3 * 4 * 8
    assert depthwise.operations == 2 * (5 * 3 - 1) * 8


def test_a_shared_layer_has_a_row_a_use_and_its_weights_once(keras, explain):
    shared = keras.layers.Conv2D(3, 1, name="shared")
    inner = keras.Sequential([keras.Input((4, 4, 3)), shared], name="inner")
    inputs = keras.Input((4, 4, 3))
    found = explain(keras.Model(inputs, inner(inner(inputs))), 1, 4, 4, 3)
    assert [row.name for row in found.rows] == ["inner/shared"] * 2
    assert [row.cost.parameters for row in found.rows] == [12, 0]
    assert found.total.multiply_adds == 2 * 16 * 9
    # What watched the layer is gone.
    assert "call" not in vars(shared)


def test_ours_are_counted_like_kerass(network, explain):
    from sepconv.bench.models import with_sepconv

    ours = explain(with_sepconv(network), 1, 8, 8, 4)
    theirs = explain(network, 1, 8, 8, 4)
    assert [row.cost for row in ours.rows] == [row.cost for row in theirs.rows]
    assert [row.kind for row in ours.rows] == [row.kind for row in theirs.rows]


def test_a_fused_layer_counts_as_what_it_stands_for(keras, explain):
    from sepconv import layers

    if not hasattr(layers, "FusedConv2D"):
        pytest.skip("this version has no fused layer")
    inputs = keras.Input((8, 8, 4))
    x = layers.FusedConv2D(6, use_bias=False)(inputs)
    x = layers.FusedConv2D(None, 3, padding="same", use_bias=False)(x)
    x = layers.FusedConv2D(6, 3, padding="same", use_bias=False)(x, x)
    found = explain(keras.Model(inputs, x), 1, 8, 8, 4).rows
    assert [row.kind for row in found] == ["convolution", "depthwise", "separable"]
    assert [row.cost.multiply_adds for row in found] == [
        64 * 4 * 6,
        64 * 9 * 6,
        64 * (9 * 6 + 6 * 6),
    ]
    # The residual is read, too.
    assert found[2].cost.bytes == 4 * (3 * 64 * 6 + 9 * 6 + 6 * 6)


def test_mobilenet_has_the_multiply_adds_of_its_paper(keras):
    """Table 6 of Howard et al., 2017: 41 million at width 0.25, and 0.5 million parameters."""
    from sepconv.bench.models import with_sepconv
    from sepconv.models.cost import calls, cost

    model = with_sepconv(keras.applications.MobileNet(alpha=0.25, weights=None))
    x = np.zeros((1, 224, 224, 3), "float32")
    found = [cost(call) for call in calls(model, lambda: model.predict_on_batch(x))]
    assert len(found) == 28
    assert round(sum(cost.multiply_adds for cost in found) / 1e6) == 41
    assert round(sum(cost.parameters for cost in found) / 1e6, 1) == 0.5


@pytest.mark.usefixtures("keras")
def test_only_the_slowest_of_many_layers_are_drawn_alone():
    from sepconv.explain.analysis import Explanation, Row
    from sepconv.explain.plot import picture
    from sepconv.models.cost import Cost

    rows = [
        Row(f"layer{i}", "dense", (1, 1), Cost(0, 1, 1, 1, 1), 1e-9, 1e-3 * (i + 1), ())
        for i in range(70)
    ]
    svg = picture(Explanation("big", "jax", 1, rows, 70, 1.0, 2))
    assert "layer69 " in svg
    assert "layer9 " not in svg
    assert "the others together" in svg
