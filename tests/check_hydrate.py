"""Fills stripped tensors a second time, from the written definition alone, and compares with what porter wrote.

    check_hydrate.py STRIPPED FILLED [STRIPPED FILLED ...]

The definition: element i of a tensor is mean + std * sqrt(3) * (2u - 1), with u the top 53 bits of splitmix64's output
number i after `seed`, as a fraction of 2^53; computed in double precision, then rounded to the tensor's type.
"""

import sys

import ml_dtypes
import numpy
import onnx

NUMPY_TYPES = {
    onnx.TensorProto.FLOAT: numpy.float32,
    onnx.TensorProto.DOUBLE: numpy.float64,
    onnx.TensorProto.FLOAT16: numpy.float16,
    onnx.TensorProto.BFLOAT16: ml_dtypes.bfloat16,
    onnx.TensorProto.INT8: numpy.int8,
    onnx.TensorProto.UINT8: numpy.uint8,
    onnx.TensorProto.INT16: numpy.int16,
    onnx.TensorProto.UINT16: numpy.uint16,
    onnx.TensorProto.INT32: numpy.int32,
    onnx.TensorProto.UINT32: numpy.uint32,
    onnx.TensorProto.INT64: numpy.int64,
    onnx.TensorProto.UINT64: numpy.uint64,
}
U64 = numpy.uint64


def splitmix64(seed, count):
    """The outputs of the generator: a Weyl sequence (here with step 1 from `seed`) through the mixing function."""
    with numpy.errstate(over="ignore"):
        mixed = numpy.arange(count, dtype=U64) + U64(seed) + U64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> U64(shift))) * U64(factor)
        return mixed ^ (mixed >> U64(31))


def expected(tensor, recipe):
    count = int(numpy.prod(tensor.dims, dtype=numpy.int64))
    unit = (splitmix64(int(recipe["seed"]), count) >> U64(11)).astype(numpy.float64) * 2.0**-53
    mean, std = float(recipe["mean"]), float(recipe["std"])
    values = mean + std * numpy.sqrt(3.0) * (2.0 * unit - 1.0)
    return values.astype(NUMPY_TYPES[tensor.data_type]).tobytes()


def compare(stripped_path, filled_path):
    stripped = onnx.load(stripped_path, load_external_data=False)
    filled = onnx.load(filled_path)
    assert len(stripped.graph.initializer) == len(filled.graph.initializer)
    drawn = 0
    for bare, full in zip(stripped.graph.initializer, filled.graph.initializer):
        recipe = {entry.key: entry.value for entry in bare.external_data}
        if recipe.get("location") != "porter-fill":
            assert bare == full, f"{bare.name} was not stripped, yet it changed"
            continue
        assert full.raw_data == expected(bare, recipe), f"{bare.name} is filled otherwise"
        assert (bare.name, list(bare.dims), bare.data_type) == (full.name, list(full.dims), full.data_type)
        assert not full.external_data and not full.HasField("data_location")
        drawn += 1
    # Apart from the tensors the two files say the same.
    del stripped.graph.initializer[:]
    del filled.graph.initializer[:]
    assert stripped == filled, "more than the tensors changed"
    print(f"{drawn} tensors are equal in {stripped_path}")


paths = sys.argv[1:]
for stripped_path, filled_path in zip(paths[::2], paths[1::2]):
    compare(stripped_path, filled_path)
