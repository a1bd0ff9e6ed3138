"""Compiles and runs ONNX models with OpenVINO's own Python package, for porter.

Speaks porter's worker protocol (docs/worker-protocol.md): one JSON object a line in, one a line out. porter reaches OpenVINO
through its plug-in for ONNX Runtime where it can; the plug-in offers no device on processors of other makers, on which
OpenVINO itself runs. Needs openvino and numpy; `porter runtime install openvino` gets the versions that porter was tried with.

    openvino_worker.py DEVICE OPTIONS THREADS

DEVICE is cpu, gpu or npu; OPTIONS is a JSON object with the plug-in's options, of which load_config is heard; THREADS may be 0.
"""

import json
import os
import sys
import time

# The protocol owns standard output; whatever a library prints goes to the log.
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

import numpy as np  # noqa: E402
import openvino as ov  # noqa: E402

PROTOCOL = 1
DEVICE = sys.argv[1].upper() if len(sys.argv) > 1 else "CPU"
OPTIONS = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
THREADS = int(sys.argv[3]) if len(sys.argv) > 3 else 0
# safetensors' names of element types; numpy has no bfloat16.
TYPES = {
    "BOOL": np.bool_,
    "I8": np.int8,
    "I16": np.int16,
    "I32": np.int32,
    "I64": np.int64,
    "U8": np.uint8,
    "U16": np.uint16,
    "U32": np.uint32,
    "U64": np.uint64,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
}
NAMES = {np.dtype(dtype): name for name, dtype in TYPES.items()}


class Failed(Exception):
    """What goes back as an error."""

    def __init__(self, message, **details):
        super().__init__(message)
        self.details = details


def read_tensors(path):
    """The tensors of a safetensors file, by name."""
    with open(path, "rb") as file:
        data = file.read()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in TYPES:
            raise Failed(f"is {entry['dtype']}, which this worker does not take", kind="input", node=name)
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        array = np.frombuffer(data[begin:end], TYPES[entry["dtype"]])
        tensors[name] = array.reshape(entry["shape"]).copy()
    return tensors


def write_tensors(path, tensors):
    """Writes named arrays as a safetensors file."""
    header, offset = {}, 0
    for name, array in tensors.items():
        if array.dtype not in NAMES:
            raise Failed(f"output '{name}' is {array.dtype}, which this worker does not give")
        end = offset + array.nbytes
        header[name] = {"dtype": NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())


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
        given = read_tensors(params["inputs"])
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


def main():
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        if request["method"] == "quit":
            return 0
        try:
            method = getattr(worker, request["method"], None) if request["method"].isalpha() else None
            if method is None:
                raise Failed(f"method '{request['method']}' is not known")
            answer = {"id": request["id"], "result": method(request.get("params") or {})}
        except Failed as failed:
            answer = {"id": request["id"], "error": {"message": str(failed), **failed.details}}
        except Exception as error:  # OpenVINO raises what its C++ side said
            answer = {"id": request["id"], "error": {"message": " ".join(str(error).split())}}
        print(json.dumps(answer), file=answers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
