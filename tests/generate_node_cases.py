"""Writes ONNX's own backend test cases to a folder, in the layout that the onnx package uses for them.

    python tests/generate_node_cases.py FOLDER

`backend-test-tools generate-data` of the pinned package writes only the cases of kind "simple"; the node cases, which
are most, are collected from the same package here. Nothing is written by hand. `cases.json` names every case with its
tolerances; inputs and outputs that are no tensors (sequences, optionals) are named by their kind.
"""

import json
import os
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test.case.model
from onnx import TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests, load_node_model_tests

warnings.simplefilter("ignore")


def tensor_file(path, value, name):
    """Writes a tensor; returns what else it is where it is none."""
    if isinstance(value, TensorProto):
        tensor = value
    elif isinstance(value, (list, tuple)):
        return "sequence"
    elif value is None:
        return "optional"
    elif isinstance(value, dict):
        return "map"
    else:
        tensor = numpy_helper.from_array(np.asarray(value), name)
    path.write_bytes(tensor.SerializeToString())
    return "tensor"


def write(case, folder):
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(case.model.SerializeToString())
    kinds = set()
    for number, (inputs, outputs) in enumerate(case.data_sets):
        data = folder / f"test_data_set_{number}"
        data.mkdir()
        for what, values, declared in (("input", inputs, case.model.graph.input), ("output", outputs, case.model.graph.output)):
            for i, value in enumerate(values):
                kinds.add(tensor_file(data / f"{what}_{i}.pb", value, declared[i].name))
    return sorted(kinds - {"tensor"})


def main():
    target = Path(sys.argv[1])
    scratch = target.with_name(target.name + ".part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    np.random.seed(0)  # some cases draw their inputs when they are collected
    index = {}
    cases = load_node_model_tests() + onnx.backend.test.case.model.collect_testcases()
    for case in cases:
        if case.model is None:
            continue  # a model to download
        others = write(case, scratch / case.kind / case.name)
        index[f"{case.kind}/{case.name}"] = {"rtol": case.rtol, "atol": case.atol, "others": others}
    for kind in ("pytorch-converted", "pytorch-operator"):
        for case in load_model_tests(kind=kind):
            shutil.copytree(case.model_dir, scratch / kind / case.name)
            index[f"{kind}/{case.name}"] = {"rtol": case.rtol, "atol": case.atol, "others": []}
    (scratch / "cases.json").write_text(json.dumps({"onnx": onnx.__version__, "cases": index}, indent=1, sort_keys=True))
    shutil.rmtree(target, ignore_errors=True)
    os.rename(scratch, target)
    print(f"{len(index)} cases of onnx {onnx.__version__}")


if __name__ == "__main__":
    main()
