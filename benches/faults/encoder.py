#!/usr/bin/env python3
"""Writes an attention encoder with random weights: embedding, two layers of four heads, a classifier.

    benches/faults/encoder.py encoder.onnx [--batch 2] [--tokens 24]

Layer normalisation and Gelu are written out as exporters of older opsets do, and queries, keys and values come out of one
product that is split, so that there is a Split, a Softmax, an Erf and sums of near-zero numbers to go wrong. Needs the
onnx and numpy packages.
"""
import argparse

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEADS, HIDDEN, VOCABULARY, CLASSES = 64, 4, 128, 211, 10


class Writer:
    def __init__(self):
        self.nodes, self.weights = [], []
        self.random = np.random.default_rng(7)

    def weight(self, name, *dims, scale=None):
        scale = 1 / np.sqrt(dims[0]) if scale is None else scale
        values = self.random.normal(0, scale, dims).astype(np.float32)
        return self.constant(name, values)

    def constant(self, name, values):
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def op(self, kind, scope, *inputs, outputs=1, **attributes):
        taken = sum(node.op_type == kind and node.name.startswith(f"{scope}/{kind}") for node in self.nodes)
        name = f"{scope}/{kind}" + (f"_{taken}" if taken else "")
        made = [f"{name}_output_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), made, name=name, **attributes))
        return made[0] if outputs == 1 else made

    def norm(self, scope, x):
        axes = self.constant(f"{scope}.axes", np.array([-1], np.int64))
        centred = self.op("Sub", scope, x, self.op("ReduceMean", scope, x, axes))
        square = self.op("Mul", scope, centred, centred)
        deviation = self.op("Sqrt", scope, self.op("Add", scope, self.op("ReduceMean", scope, square, axes),
                                                   self.constant(f"{scope}.eps", np.float32(1e-5))))
        scaled = self.op("Mul", scope, self.op("Div", scope, centred, deviation),
                         self.constant(f"{scope}.gain", self.random.uniform(0.5, 1.5, WIDTH).astype(np.float32)))
        return self.op("Add", scope, scaled, self.weight(f"{scope}.bias", WIDTH, scale=0.1))

    def linear(self, scope, x, inputs, outputs):
        product = self.op("MatMul", scope, x, self.weight(f"{scope}.weight", inputs, outputs))
        return self.op("Add", scope, product, self.weight(f"{scope}.bias", outputs, scale=0.1))

    def attention(self, scope, x, batch, tokens):
        each = WIDTH // HEADS
        both = self.linear(f"{scope}/qkv", x, WIDTH, 3 * WIDTH)
        dims = self.constant(f"{scope}.dims", np.array([batch, tokens, 3 * HEADS, each], np.int64))
        heads = self.op("Transpose", scope, self.op("Reshape", scope, both, dims), perm=[0, 2, 1, 3])
        sizes = self.constant(f"{scope}.sizes", np.array([HEADS] * 3, np.int64))
        query, key, value = self.op("Split", scope, heads, sizes, outputs=3, axis=1)
        key = self.op("Transpose", scope, key, perm=[0, 1, 3, 2])
        scores = self.op("Mul", scope, self.op("MatMul", scope, query, key),
                         self.constant(f"{scope}.scale", np.float32(each**-0.5)))
        mixed = self.op("MatMul", scope, self.op("Softmax", scope, scores, axis=-1), value)
        back = self.constant(f"{scope}.back", np.array([batch, tokens, WIDTH], np.int64))
        joined = self.op("Reshape", scope, self.op("Transpose", scope, mixed, perm=[0, 2, 1, 3]), back)
        return self.linear(f"{scope}/out", joined, WIDTH, WIDTH)

    def gelu(self, scope, x):
        inner = self.op("Erf", scope, self.op("Div", scope, x, self.constant(f"{scope}.root", np.float32(2**0.5))))
        one = self.op("Add", scope, inner, self.constant(f"{scope}.one", np.float32(1)))
        return self.op("Mul", scope, self.op("Mul", scope, x, one), self.constant(f"{scope}.half", np.float32(0.5)))


def encoder(batch, tokens):
    w = Writer()
    x = w.op("Gather", "/embed", w.weight("embed.weight", VOCABULARY, WIDTH, scale=1.0), "tokens")
    x = w.op("Add", "/embed", x, w.weight("embed.places", tokens, WIDTH, scale=0.3))
    for index in range(2):
        scope = f"/layers.{index}"
        x = w.op("Add", scope, x, w.attention(f"{scope}/attn", w.norm(f"{scope}/norm1", x), batch, tokens))
        hidden = w.gelu(f"{scope}/mlp", w.linear(f"{scope}/mlp/fc1", w.norm(f"{scope}/norm2", x), WIDTH, HIDDEN))
        x = w.op("Add", scope, x, w.linear(f"{scope}/mlp/fc2", hidden, HIDDEN, WIDTH))
    axes = w.constant("pool.axes", np.array([1], np.int64))
    pooled = w.op("ReduceMean", "/head", w.norm("/head/norm", x), axes, keepdims=0)
    last = w.linear("/head", pooled, WIDTH, CLASSES)
    w.nodes.append(helper.make_node("Softmax", [last], ["scores"], name="/head/Softmax", axis=-1))
    graph = helper.make_graph(
        w.nodes, "encoder",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, [batch, tokens])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, CLASSES])], w.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=24)
    args = parser.parse_args()
    onnx.save(encoder(args.batch, args.tokens), args.file)
