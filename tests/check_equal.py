"""Says whether two model files hold the same messages, unknown fields included, once external weights are in place.

    check_equal.py ONE OTHER
"""

import sys

import onnx

one, other = (onnx.load(path) for path in sys.argv[1:3])
if one == other and one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True):
    print("equal")
else:
    for name in ("ir_version", "opset_import", "producer_name", "metadata_props", "functions", "graph"):
        if getattr(one, name) != getattr(other, name):
            print(f"{name} differs")
    for field in ("node", "initializer", "input", "output", "value_info"):
        left, right = getattr(one.graph, field), getattr(other.graph, field)
        if len(left) != len(right):
            print(f"{len(left)} and {len(right)} of graph.{field}")
        for a, b in zip(left, right):
            if a != b:
                print(f"graph.{field} differs:\n{str(a)[:600]}\n---\n{str(b)[:600]}")
                break
    sys.exit(1)
