"""Says whether two model files hold the same messages, unknown fields included, once external weights are in place.

    check_equal.py ONE OTHER [ONE OTHER ...]
"""

import sys

import onnx


def load(path):
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.DEFAULT:
            tensor.ClearField("data_location")  # the loader of external data leaves the default written out
    return model


def differences(one, other):
    for field in one.DESCRIPTOR.fields:
        if field.name != "graph" and getattr(one, field.name) != getattr(other, field.name):
            yield f"{field.name} differs"
    for field in one.graph.DESCRIPTOR.fields:
        left, right = getattr(one.graph, field.name), getattr(other.graph, field.name)
        if left == right:
            continue
        yield f"graph.{field.name} differs"
        if not isinstance(left, str):
            pairs = ((a, b) for a, b in zip(left, right) if a != b)
            yield from (f"{str(a)[:600]}\n---\n{str(b)[:600]}" for a, b in list(pairs)[:1])


def compare(one_path, other_path):
    one, other = load(one_path), load(other_path)
    same = one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)
    if one == other and same:
        print(f"equal: {one_path}")
        return True
    print(f"{one_path} and {other_path}:", *differences(one, other), sep="\n")
    return False


paths = sys.argv[1:]
sys.exit(0 if all([compare(*pair) for pair in zip(paths[::2], paths[1::2])]) else 1)
