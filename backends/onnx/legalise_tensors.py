"""Opset-12 forms of operators that move, select or cast elements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from odp.backends.onnx.legalise_emitter import Emitter, Refusal, constant, integers, rank, rule

__all__: list[str] = []


def static_shape(value: ir.Value | None, why: str) -> list[int]:
    """Return a static shape.

    Raises:
        Refusal: it is not static; `why` says what needs it.
    """
    if value is None or value.shape is None or not value.shape.is_static():
        raise Refusal(f"the shape of its input is not static, which {why} needs")
    return [int(d) for d in value.shape.numpy()]


@rule("Reshape", first=14)
def reshape_zero(node: ir.Node, emit: Emitter) -> None:
    """Drop `allowzero` where no dimension is 0: the old Reshape copies instead."""
    attribute = node.attributes.pop("allowzero", None)
    if attribute is None or attribute.as_int() == 0:
        return
    sizes = integers(node.inputs[1], "sizes (with allowzero=1)")
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    for index, size in enumerate(sizes):
        if size != 0:
            continue
        if shape is None or index >= len(shape) or shape[index] != 0 or -1 in sizes:
            raise Refusal("allowzero=1 with a size of 0 makes an empty tensor")


@rule("Shape", first=15)
def shape_slice(node: ir.Node, emit: Emitter) -> Sequence[ir.Value] | None:
    """Emit a Slice for `start` and `end`."""
    start = node.attributes.get_int("start", 0)
    end_attribute = node.attributes.get("end")
    node.attributes.pop("start", None)
    node.attributes.pop("end", None)
    if start == 0 and end_attribute is None:
        return None
    end = np.iinfo(np.int64).max if end_attribute is None else end_attribute.as_int()
    shape = emit.op("Shape", [node.inputs[0]], dtype=ir.DataType.INT64)
    bounds = [emit.constant([i], ir.DataType.INT64) for i in (start, end, 0)]
    return [emit.op("Slice", [shape, *bounds])]


@rule("CastLike")
def cast_like(node: ir.Node, emit: Emitter) -> Sequence[ir.Value]:
    """Emit a Cast to the type of the second input."""
    dtype = emit.dtype(node.inputs[1])
    return [emit.op("Cast", [node.inputs[0]], {"to": int(dtype)}, dtype=dtype)]


@rule("Cast", first=19)
def cast_saturate(node: ir.Node, emit: Emitter) -> None:
    """Drop what concerns eight-bit floats only; casts to these are refused by their type."""
    node.attributes.pop("saturate", None)
    node.attributes.pop("round_mode", None)


@rule("Range", first=27)
def range_stash(node: ir.Node, emit: Emitter) -> None:
    """Drop `stash_type`: it concerns half floats only, which opset 12 does not take here."""
    node.attributes.pop("stash_type", None)


@rule("Trilu")
def trilu(node: ir.Node, emit: Emitter) -> Sequence[ir.Value]:
    """Select by a constant triangular mask."""
    x = node.inputs[0]
    k = 0
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        k = integers(node.inputs[1], "diagonal")[0]
    rows, columns = static_shape(x, "a triangular mask")[-2:]
    upper = node.attributes.get_int("upper", 1)
    ones = np.ones((rows, columns), dtype=bool)
    mask = np.triu(ones, k) if upper else np.tril(ones, k)
    assert x is not None
    return [emit.op("Where", [emit.constant(mask), x, emit.like(0, x)], dtype=x.dtype)]


@rule("Pad", first=18)
def pad_axes(node: ir.Node, emit: Emitter) -> Sequence[ir.Value] | None:
    """Spread `pads` of some axes over all axes; spell out wrap-around by constant indices."""
    x = node.inputs[0]
    mode = node.attributes.get_string("mode", "constant")
    axes_input = node.inputs[3] if len(node.inputs) > 3 else None
    if axes_input is None and mode != "wrap":
        node.resize_inputs(min(len(node.inputs), 3))
        return None
    dimensions = rank(x, "padding of some axes")
    pads = integers(node.inputs[1], "pads (with axes or wrap)")
    axes = integers(axes_input, "axes") if axes_input is not None else list(range(dimensions))
    before, after = [0] * dimensions, [0] * dimensions
    for index, axis in enumerate(axes):
        before[axis] = pads[index]
        after[axis] = pads[index + len(axes)]
    if mode != "wrap":
        node.replace_input_with(1, emit.constant(before + after, ir.DataType.INT64))
        node.resize_inputs(3)
        return None
    sizes = static_shape(x, "wrap-around padding")
    y = x
    for axis, size in enumerate(sizes):
        if before[axis] or after[axis]:
            indices = np.arange(-before[axis], size + after[axis]) % size
            y = emit.op("Gather", [y, emit.constant(indices, ir.DataType.INT64)], {"axis": axis})
    assert y is not None
    return [y]


@rule("ScatterElements", "ScatterND", first=16)
def scatter_reduction(node: ir.Node, emit: Emitter) -> None:
    """Drop `reduction` "none"; the others do not exist before opset 16."""
    reduction = node.attributes.get_string("reduction", "none")
    if reduction != "none":
        raise Refusal(f"a scatter that combines by {reduction!r} does not exist before opset 16")
    node.attributes.pop("reduction", None)


@rule("SpaceToDepth", first=28)
def space_to_depth(node: ir.Node, emit: Emitter) -> Sequence[ir.Value] | None:
    """Drop mode DCR; spell out CRD as Reshape, Transpose, Reshape."""
    mode = node.attributes.get_string("mode", "DCR")
    node.attributes.pop("mode", None)
    if mode == "DCR":
        return None
    x = node.inputs[0]
    n, c, h, w = static_shape(x, "SpaceToDepth in mode CRD")
    size = node.attributes.get_int("blocksize", 1)
    cells = emit.constant([n, c, h // size, size, w // size, size], ir.DataType.INT64)
    result = emit.constant([n, c * size * size, h // size, w // size], ir.DataType.INT64)
    split = emit.op("Reshape", [x, cells])
    turned = emit.op("Transpose", [split], {"perm": [0, 1, 3, 5, 2, 4]})
    return [emit.op("Reshape", [turned, result])]


@rule("MaxPool", first=13)
def pool_ceil(node: ir.Node, emit: Emitter) -> None:
    """Set `ceil_mode` to 0 where the last window would start in the padding.

    Newer shape inference drops that window, which gives the size that rounding down gives too.
    """
    x, y = node.inputs[0], node.outputs[0]
    if not node.attributes.get_int("ceil_mode", 0) or "auto_pad" in node.attributes:
        return
    sizes = static_shape(x, "ceil_mode=1")[2:]
    wanted = static_shape(y, "ceil_mode=1")[2:]
    kernel = list(node.attributes.get_ints("kernel_shape") or [])
    ones = [1] * len(sizes)
    strides = list(node.attributes.get_ints("strides", ones) or ones)
    dilations = list(node.attributes.get_ints("dilations", ones) or ones)
    pads = list(node.attributes.get_ints("pads", [0, 0] * len(sizes)) or [0, 0] * len(sizes))
    free = [
        size + pads[i] + pads[i + len(sizes)] - ((kernel[i] - 1) * dilations[i] + 1)
        for i, size in enumerate(sizes)
    ]
    if [-(-f // s) + 1 for f, s in zip(free, strides, strict=True)] == wanted:
        return
    if [f // s + 1 for f, s in zip(free, strides, strict=True)] != wanted:
        raise Refusal("ceil_mode=1 drops a window along one axis only")
    node.attributes.pop("ceil_mode")


@rule("AveragePool", "LpPool", first=18)
def pool_dilations(node: ir.Node, emit: Emitter) -> None:
    """Drop dilations of 1, and `ceil_mode` 0 of LpPool."""
    if node.op_type == "AveragePool":
        pool_ceil(node, emit)
    dilations = node.attributes.get_ints("dilations", [1])
    if any(d != 1 for d in dilations or []):
        raise Refusal("pooling with dilations does not exist before opset 18")
    node.attributes.pop("dilations", None)
    if node.op_type == "LpPool":
        if node.attributes.get_int("ceil_mode", 0):
            raise Refusal("LpPool with ceil_mode=1 does not exist before opset 18")
        node.attributes.pop("ceil_mode", None)


@rule("RoiAlign", first=16)
def roi_align(node: ir.Node, emit: Emitter) -> None:
    """Drop the coordinate mode `output_half_pixel`, the only one before opset 16."""
    mode = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    if mode != "output_half_pixel":
        raise Refusal(f"its coordinate_transformation_mode {mode!r} does not exist before opset 16")
    node.attributes.pop("coordinate_transformation_mode", None)


@rule("Resize", first=13)
def resize(node: ir.Node, emit: Emitter) -> None:
    """Spread scales or sizes of some axes over all axes, and fill the inputs that were required."""
    if node.attributes.get_int("antialias", 0):
        raise Refusal("Resize with antialias=1 does not exist before opset 18")
    node.attributes.pop("antialias", None)
    x = node.inputs[0]
    inputs = [*node.inputs[1:], None, None, None][:3]
    roi, scales, sizes = (None if v is not None and v.shape == (0,) else v for v in inputs)
    axes = node.attributes.pop("axes", None)
    policy = node.attributes.get_string("keep_aspect_ratio_policy", "stretch")
    node.attributes.pop("keep_aspect_ratio_policy", None)
    mode = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    if axes is not None:
        roi, scales, sizes = _spread(emit, x, list(axes.as_ints()), roi, scales, sizes)
    if policy != "stretch" and sizes is not None:
        scales = _keep_aspect(emit, x, sizes, policy, axes)
        sizes = None
    if mode == "half_pixel_symmetric":
        _require_whole_sizes(x, scales)
        node.attributes["coordinate_transformation_mode"] = ir.AttrString(
            "coordinate_transformation_mode", "half_pixel"
        )
    node.resize_inputs(4)
    empty = emit.constant([], ir.DataType.FLOAT)
    node.replace_input_with(1, roi if roi is not None else empty)
    node.replace_input_with(2, scales if scales is not None else empty)
    node.replace_input_with(3, sizes)
    if sizes is None:
        node.resize_inputs(3)


def _spread(
    emit: Emitter,
    x: ir.Value | None,
    axes: list[int],
    roi: ir.Value | None,
    scales: ir.Value | None,
    sizes: ir.Value | None,
) -> tuple[ir.Value | None, ir.Value | None, ir.Value | None]:
    dimensions = rank(x, "Resize of some axes")
    if scales is not None:
        array = constant(scales)
        if array is None:
            raise Refusal("the scales of some axes are computed at run time")
        full = np.ones(dimensions, dtype=np.float32)
        full[axes] = array
        scales = emit.constant(full)
    if sizes is not None:
        whole = np.array(static_shape(x, "Resize of some axes"), dtype=np.int64)
        whole[axes] = integers(sizes, "sizes of some axes")
        sizes = emit.constant(whole)
    if roi is not None:
        array = constant(roi)
        if array is None:
            raise Refusal("the region of some axes is computed at run time")
        region = np.concatenate([np.zeros(dimensions), np.ones(dimensions)]).astype(array.dtype)
        region[[a % dimensions for a in axes]] = array[: len(axes)]
        region[[a % dimensions + dimensions for a in axes]] = array[len(axes) :]
        roi = emit.constant(region)
    return roi, scales, sizes


def _keep_aspect(
    emit: Emitter, x: ir.Value | None, sizes: ir.Value, policy: str, axes: ir.Attr | None
) -> ir.Value:
    """Return the one scale that keeps the aspect ratio, as opset 18 defines it."""
    shape = np.array(static_shape(x, f"keep_aspect_ratio_policy {policy}"))
    wanted = np.array(integers(sizes, "sizes"))
    chosen = [a % len(shape) for a in axes.as_ints()] if axes else list(range(len(shape)))
    ratios = wanted[chosen] / shape[chosen]
    scale = float(ratios.min() if policy == "not_larger" else ratios.max())
    full = np.ones(len(shape), dtype=np.float32)
    full[chosen] = scale
    # From opset 18 on the size is rounded; a Resize by scales rounds down.
    rounded = np.floor(scale * shape[chosen] + 0.5)
    if (np.floor(full[chosen] * shape[chosen]) != rounded).any():
        raise Refusal(f"keep_aspect_ratio_policy {policy!r} rounds a size up here")
    return emit.constant(full)


def _require_whole_sizes(x: ir.Value | None, scales: ir.Value | None) -> None:
    """Check that no size is rounded: only then is half_pixel_symmetric the same as half_pixel."""
    if scales is None:
        return
    array = constant(scales)
    if array is None:
        raise Refusal("half_pixel_symmetric with scales computed at run time")
    sizes = np.array(static_shape(x, "half_pixel_symmetric")) * array.astype(np.float64)
    if (sizes != np.round(sizes)).any():
        raise Refusal("half_pixel_symmetric differs from half_pixel here: a size is rounded")
