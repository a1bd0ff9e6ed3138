"""Compiles and runs HLO on the CPU with XLA, for porter.

Speaks porter's worker protocol (docs/worker-protocol.md): one JSON object a line in, one a line out. Takes `hlo` (an
HloModuleProto) and `stablehlo` (MLIR text). Needs jaxlib, numpy and ml_dtypes; `porter runtime install xla`
gets the versions that porter was tried with. XLA's Python interface is private to jaxlib, so another version may not do.
"""

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from porter_worker import PROTOCOL, Failed, know, read_tensors, serve, write_tensors  # noqa: E402  before what prints

import jaxlib.version  # noqa: E402
import ml_dtypes  # noqa: E402
import numpy as np  # noqa: E402
from jaxlib import _jax, xla_client  # noqa: E402

# Without this, 64-bit types would be cut to 32 bits on the way in.
X64 = _jax.config.Config("porter_enable_x64", True)
_jax.jax_jit.set_enable_x64_state(X64)
know(
    {
        "BF16": ml_dtypes.bfloat16,
        "F8_E4M3": ml_dtypes.float8_e4m3fn,
        "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
        "F8_E5M2": ml_dtypes.float8_e5m2,
        "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
        "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    }
)


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
            raise Failed(f"input '{missing[0]}' is missing", code="input")
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
                raise Failed(f"format '{form}' is not taken; hlo and stablehlo are", code="format")
            program = Program(self.client, module, params.get("options") or {})
        except Failed:
            raise
        except Exception as error:  # XLA raises what its C++ side said
            raise Failed(str(error), code="XLA") from error
        self.made += 1
        handle = f"m{self.made}"
        self.programs[handle] = program
        return {"handle": handle, "seconds": time.perf_counter() - start}

    def run(self, params):
        program = self.programs.get(params["handle"])
        if program is None:
            raise Failed(f"there is no program '{params['handle']}'", code="handle")
        try:
            results, seconds = program.run(read_tensors(params["inputs"]), int(params.get("repeat", 1)))
        except Failed:
            raise
        except Exception as error:
            raise Failed(str(error), code="XLA") from error
        write_tensors(params["outputs"], results)
        return {"seconds": seconds}

    def release(self, params):
        self.programs.pop(params["handle"], None)
        return {}


if __name__ == "__main__":
    sys.exit(serve(Worker()))
