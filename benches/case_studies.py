#!/usr/bin/env python3
"""Writes the models and inputs of docs/case-studies.md into a folder.

    benches/case_studies.py FOLDER

Needs the onnx and numpy packages.
"""
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "faults"))
import encoder  # noqa: E402


def tensor(name, *dims):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


def save(folder, name, node, reads, makes, constants=()):
    weights = [numpy_helper.from_array(values, of) for of, values in constants]
    graph = helper.make_graph([node], name, [reads], [makes], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / f"{name}.onnx")


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    onnx.save(encoder.encoder(2, 24), folder / "encoder.onnx")
    save(folder, "logsoftmax", helper.make_node("LogSoftmax", ["x"], ["y"], name="logsoftmax", axis=-1),
         tensor("x", 4, 64), tensor("y", 4, 64))
    np.savez(folder / "large.npz", x=random.normal(0, 30, (4, 64)).astype(np.float32))
    resize = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], name="resize", mode="nearest",
                              coordinate_transformation_mode="align_corners", nearest_mode="floor")
    save(folder, "resize", resize, tensor("x", 1, 4, 8, 8), tensor("y", 1, 4, 16, 16),
         [("sizes", np.array([1, 4, 16, 16], np.int64))])
    norm = helper.make_node("LayerNormalization", ["x", "gain", "bias"], ["y"], name="norm", axis=-1)
    save(folder, "layernorm", norm, tensor("x", 4, 16, 64), tensor("y", 4, 16, 64),
         [("gain", np.ones(64, np.float32)), ("bias", np.zeros(64, np.float32))])
    np.savez(folder / "offset.npz", x=(1000 + random.normal(0, 1, (4, 16, 64))).astype(np.float32))


if __name__ == "__main__":
    main()
