"""Compiles and runs ONNX models with OpenVINO's own Python package, for porter.

Speaks porter's worker protocol (docs/worker-protocol.md): one JSON object a line in, one a line out. porter reaches OpenVINO
through its plug-in for ONNX Runtime where it can; the plug-in offers no device on processors of other makers, on which
OpenVINO itself runs. Needs openvino and numpy; `porter runtime install openvino` gets the versions that porter was tried with.

    openvino_worker.py DEVICE OPTIONS THREADS

DEVICE is cpu, gpu or npu; OPTIONS is a JSON object with the plug-in's options, of which load_config is heard; THREADS may be 0.
"""

import json
import sys
import time

from porter_worker import PROTOCOL, Failed, read_tensors, serve, write_tensors  # before what prints

import numpy as np
import openvino as ov

DEVICE = sys.argv[1].upper() if len(sys.argv) > 1 else "CPU"
OPTIONS = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
THREADS = int(sys.argv[3]) if len(sys.argv) > 3 else 0


def settings():
    """What the plug-in's load_config says for the device, and the threads."""
    config = dict(json.loads(OPTIONS.get("load_config") or "{}").get(DEVICE, {}))
    if THREADS:
        config["INFERENCE_NUM_THREADS"] = THREADS
    return config


class Worker:
    """Answers requests."""

    def __init__(self):
        self.core = ov.Core()
        self.models = {}
        self.made = 0

    def hello(self, params):
        if DEVICE not in [name.split(".")[0] for name in self.core.available_devices]:
            offered = ", ".join(self.core.available_devices) or "no device"
            fix = "Choose another with --device"
            raise Failed(f"OpenVINO offers {offered} on this machine, not {DEVICE}", kind="absent", fix=fix)
        return {
            "protocol": PROTOCOL,
            "name": "openvino",
            "version": ov.get_version() + " " + json.dumps(settings(), sort_keys=True),
            "device": self.core.get_property(DEVICE, "FULL_DEVICE_NAME"),
            "accepts": ["onnx"],
        }

    def compile(self, params):
        start = time.perf_counter()
        if params["format"] != "onnx":
            raise Failed(f"it compiles onnx, not {params['format']}")
        model = self.core.read_model(params["model"])
        compiled = self.core.compile_model(model, DEVICE, settings())
        by_name = {name: port for port in compiled.outputs for name in port.get_names()}
        wanted = [port["name"] for port in (params.get("options") or {}).get("outputs", [])]
        missing = [name for name in wanted if name not in by_name]
        if missing:
            raise Failed(f"OpenVINO's model has no output '{missing[0]}'")
        outputs = {name: by_name[name] for name in wanted or by_name}
        self.made += 1
        handle = f"m{self.made}"
        self.models[handle] = compiled, outputs
        count = sum(op.get_type_name() not in ("Parameter", "Constant", "Result") for op in model.get_ops())
        seconds = time.perf_counter() - start
        return {"handle": handle, "seconds": seconds, "placement": {f"OpenVINO {DEVICE}": count}}

    def run(self, params):
        if params["handle"] not in self.models:
            raise Failed(f"there is no compiled model '{params['handle']}'")
        compiled, outputs = self.models[params["handle"]]
        given = {name: array.copy() for name, array in read_tensors(params["inputs"]).items()}
        given = {port: given[name] for port in compiled.inputs for name in port.get_names() if name in given}
        seconds = []
        for _ in range(max(1, int(params.get("repeat", 1)))):
            start = time.perf_counter()
            results = compiled(given)
            seconds.append(time.perf_counter() - start)
        write_tensors(params["outputs"], {name: np.asarray(results[port]) for name, port in outputs.items()})
        return {"seconds": seconds}

    def release(self, params):
        self.models.pop(params["handle"], None)
        return {}


if __name__ == "__main__":
    sys.exit(serve(Worker()))
