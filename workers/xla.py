"""Compiles and runs HLO on the CPU with XLA, for porter.

Speaks porter's worker protocol (docs/worker-protocol.md): one JSON object a line in, one a line out. Takes `hlo` (an
HloModuleProto) and `stablehlo` (MLIR text). Needs jaxlib, numpy, ml_dtypes and safetensors; `porter runtime install xla`
gets the versions that porter was tried with. XLA's Python interface is private to jaxlib, so another version may not do.
"""

import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# The protocol owns standard output; whatever a library prints goes to the log.
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

import jaxlib.version  # noqa: E402
import ml_dtypes  # noqa: E402
import numpy as np  # noqa: E402
from jaxlib import _jax, xla_client  # noqa: E402

PROTOCOL = 1
# Without this, 64-bit types would be cut to 32 bits on the way in.
X64 = _jax.config.Config("porter_enable_x64", True)
_jax.jax_jit.set_enable_x64_state(X64)
# safetensors' names of element types. The package's own reader has no bfloat16 for numpy.
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
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}
NAMES = {np.dtype(dtype): name for name, dtype in TYPES.items()}


def read_tensors(path):
    """The tensors of a safetensors file, by name."""
    with open(path, "rb") as file:
        data = file.read()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = np.frombuffer(data[begin:end], TYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def write_tensors(path, tensors):
    """Writes named arrays as a safetensors file."""
    header, offset = {}, 0
    for name, array in tensors.items():
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


class Failed(Exception):
    """What goes back as an error."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Program:
    """A compiled module with the names of what goes in and comes out."""

    def __init__(self, client, module, options):
        self.client = client
        compile_options = xla_client.CompileOptions()
        debug = compile_options.executable_build_options.debug_options
        # Sums in the order they are written: a reference must not depend on fast approximations.
        debug.xla_cpu_enable_fast_math = False
        devices = xla_client.DeviceList(tuple(client.local_devices()[:1]))
        self.executable = client.compile_and_load(module, devices, compile_options)
        self.device = client.local_devices()[0]
        # Parameters and results have an order; the protocol's tensors have names.
        names = lambda side: [port["name"] if isinstance(port, dict) else port for port in options.get(side) or []]
        self.inputs, self.outputs = names("inputs"), names("outputs")
        weights = options.get("weights")
        self.weights = []
        if weights:
            tensors = read_tensors(weights["file"])
            self.weights = [self.put(tensors[name]) for name in weights["names"]]

    def put(self, array):
        array = np.array(array, copy=True, order="C")  # XLA reads it in place, so it must be aligned
        shape = _Abstract(array.shape, array.dtype)
        sharding = _OneDevice(self.device)
        return _jax.batched_device_put(shape, sharding, [array], [self.device], enable_x64=True)

    def run(self, tensors, repeat):
        names = self.inputs or sorted(tensors)
        missing = [name for name in names if name not in tensors]
        if missing:
            raise Failed("input", f"input '{missing[0]}' is missing")
        arguments = [self.put(tensors[name]) for name in names] + self.weights
        seconds = []
        for _ in range(max(1, repeat)):
            start = time.perf_counter()
            results = self.executable.execute(arguments)
            arrays = [result._single_device_array_to_np_array_did_copy()[0] for result in results]
            seconds.append(time.perf_counter() - start)
        names = self.outputs or [f"output{i}" for i in range(len(arrays))]
        return dict(zip(names, arrays)), seconds


class _OneDevice(xla_client.SingleDeviceSharding):
    """An array on one device, with what the client asks of it."""

    memory_kind = None

    def _to_xla_hlo_sharding(self, num_dimensions):
        return xla_client.HloSharding.replicate()


class _Abstract:
    """The shape and type of an array, as the client wants to hear them."""

    def __init__(self, shape, dtype):
        self.shape, self.dtype, self.weak_type = shape, dtype, False


class Worker:
    """Answers requests."""

    def __init__(self):
        self.client = None
        self.programs = {}
        self.made = 0

    def hello(self, params):
        return {
            "protocol": PROTOCOL,
            "name": "xla-cpu",
            "version": jaxlib.version.__version__,
            "device": "cpu",
            "accepts": ["hlo", "stablehlo"],
        }

    def compile(self, params):
        form, path = params["format"], params["model"]
        start = time.perf_counter()
        if self.client is None:
            self.client = xla_client.make_cpu_client()
        with open(path, "rb") as file:
            data = file.read()
        try:
            if form == "hlo":
                module = _jax.mlir.xla_computation_to_mlir_module(xla_client.XlaComputation(data))
            elif form == "stablehlo":
                module = data
            else:
                raise Failed("format", f"format '{form}' is not taken; hlo and stablehlo are")
            program = Program(self.client, module, params.get("options") or {})
        except Failed:
            raise
        except Exception as error:  # XLA raises what its C++ side said
            raise Failed("XLA", str(error)) from error
        self.made += 1
        handle = f"m{self.made}"
        self.programs[handle] = program
        return {"handle": handle, "seconds": time.perf_counter() - start}

    def run(self, params):
        program = self.programs.get(params["handle"])
        if program is None:
            raise Failed("handle", f"there is no program '{params['handle']}'")
        try:
            results, seconds = program.run(read_tensors(params["inputs"]), int(params.get("repeat", 1)))
        except Failed:
            raise
        except Exception as error:
            raise Failed("XLA", str(error)) from error
        write_tensors(params["outputs"], results)
        return {"seconds": seconds}

    def release(self, params):
        self.programs.pop(params["handle"], None)
        return {}


def main():
    worker = Worker()
    methods = {"hello": worker.hello, "compile": worker.compile, "run": worker.run, "release": worker.release}
    for line in sys.stdin:
        if not line.strip():
            continue
        number = None
        try:
            request = json.loads(line)
            number = request.get("id")
            if request["method"] == "quit":
                print(json.dumps({"id": number, "result": {}}), file=answers)
                return 0
            method = methods.get(request["method"])
            if method is None:
                raise Failed("method", f"method '{request['method']}' is not known")
            answer = {"id": number, "result": method(request.get("params") or {})}
        except Failed as failed:
            answer = {"id": number, "error": {"code": failed.code, "message": str(failed)}}
        except Exception as error:
            answer = {"id": number, "error": {"code": type(error).__name__, "message": str(error)}}
        print(json.dumps(answer), file=answers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
