"""What porter's Python workers have in common: the worker protocol (docs/worker-protocol.md), and tensors in files.

Lies beside the worker's own file. Imported before any library that prints, because standard output is the protocol's:
whatever is printed after that goes to the log.
"""

import json
import os
import sys

answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

import numpy as np  # noqa: E402

PROTOCOL = 1
# safetensors' names of element types. numpy has no bfloat16; a worker whose library has one adds it with `know`.
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
    """What goes back as an error: a message, and what else the protocol knows of errors (code, kind, fix, node)."""

    def __init__(self, message, **details):
        super().__init__(message)
        self.details = details


def know(types):
    """Adds element types: safetensors' names, and numpy's types for them."""
    TYPES.update(types)
    NAMES.update({np.dtype(dtype): name for name, dtype in types.items()})


def read_tensors(path):
    """The tensors of a safetensors file, by name. They are views of the file's bytes: aligned to nothing, not to be written."""
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
        tensors[name] = np.frombuffer(data[begin:end], TYPES[entry["dtype"]]).reshape(entry["shape"])
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


def serve(worker):
    """Answers requests with the worker's methods hello, compile, run and release, until it is told to quit."""
    for line in sys.stdin:
        if not line.strip():
            continue
        number = None
        try:
            request = json.loads(line)
            number, method = request["id"], request["method"]
            if method == "quit":
                return 0
            if method not in ("hello", "compile", "run", "release"):
                raise Failed(f"method '{method}' is not known", code="method")
            answer = {"id": number, "result": getattr(worker, method)(request.get("params") or {})}
        except Failed as failed:
            answer = {"id": number, "error": {"message": str(failed), **failed.details}}
        except Exception as error:  # libraries raise what their C++ side said
            answer = {"id": number, "error": {"code": type(error).__name__, "message": " ".join(str(error).split())}}
        print(json.dumps(answer), file=answers)
    return 0
