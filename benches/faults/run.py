#!/usr/bin/env python3
"""The fault benchmark: plants faults in models, lets `porter bisect` look for them, and counts.

    benches/faults/run.py --porter target/release/porter --yolo tests/models --models DIR [--count 320] [--seed 1]

A case is a model at some sizes, a base engine (ort or tract) and no, one, two or three planted faults; the same seed gives
the same cases. Nodes are drawn at random among those where a fault of the kind can show. The healthy cases are every model
on ONNX Runtime with all its optimisations, on tract, and on OpenVINO in float32 where that is installed. --models is where
`nudenet`, `rapidocr-onnxruntime`, `silero-vad` and `magika` lie as tests/run.py installs them (PORTER_MODELS); stripped YOLOs
are filled first, and the attention encoder is made by encoder.py. Needs the onnx and numpy packages.

Found exactly: every planted node is named, alone, and nothing else is. Within the region: every planted node is in what is
named, but not alone. A wrong fingerprint is counted on its own: `unknown` is no mistake, a wrong name is. Gross are all
faults that change a tensor by a percent or more; the others go down to a ten-thousandth, some ten times what rounding does
to a convolution.
"""
import argparse
import concurrent.futures
import json
import pathlib
import random
import statistics
import subprocess
import tempfile
import time

import onnx

VALUE_KINDS = [
    "stride-drop", "transposed", "shifted", "zeroed", "batch-broadcast", "channels-permuted", "scaled", "saturated",
    "rounded", "wrong-mode", "stale", "nan", "nondeterministic",
]
FAILURES = ["compile-error", "crash", "hang"]
# A model's file below --yolo or --models, the sizes that are given, and how often it is drawn.
MODELS = {
    "yolo26n-raw": ("yolo:yolo26n-raw.onnx", [], 1),
    "yolo26n-raw-b4": ("yolo:yolo26n-raw-b4.onnx", [], 1),
    "yolo26n-b1-256": ("yolo:yolo26n-dynamic.onnx", ["images=1,3,256,256"], 10),
    "yolo26n-b4-128": ("yolo:yolo26n-dynamic.onnx", ["images=4,3,128,128"], 10),
    "nudenet": ("nudenet/*/320n.onnx", ["images=1,3,160,160"], 8),
    "rapidocr-det": ("rapidocr-onnxruntime/*/*det*.onnx", ["x=1,3,96,96"], 8),
    "rapidocr-rec": ("rapidocr-onnxruntime/*/*rec*.onnx", ["x=2,3,48,96"], 8),
    "silero": ("silero-vad/*/silero_vad_op18_ifless.onnx", ["input=2,576", "state=2,2,128"], 16),
    "magika": ("magika/*/model.onnx", ["bytes=2,2048"], 8),
    "encoder": ("made:encoder", [], 10),
}
HEALTHY = ["ort", "tract", "openvino"]
# What a fault may also be called: planted noise at every run is no shape of values.
SAME = {"constant-transposed": "transposed"}


def shapes_of(model, sizes):
    for text in sizes:
        name, dims = text.rsplit("=", 1)
        shape = next(i for i in model.graph.input if i.name == name).type.tensor_type.shape
        for dim, size in zip(shape.dim, dims.split(",")):
            dim.dim_value = int(size)
    # What the file says of the values inside stands in the way of sizes that were given.
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    known = {}
    for value in list(inferred.graph.value_info) + list(inferred.graph.output) + list(inferred.graph.input):
        tensor = value.type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
        known[value.name] = (tensor.elem_type, dims)
    return known


class Model:
    def __init__(self, path, sizes):
        self.path, self.sizes = path, sizes
        model = onnx.load(path)
        self.types = shapes_of(model, sizes)
        constants = {i.name for i in model.graph.initializer}
        for node in model.graph.node:
            # Sizes are constants once they are given, and folded away.
            if node.op_type in ("Constant", "Shape") or all(name in constants or not name for name in node.input):
                constants.update(node.output)
        self.nodes = [
            node for node in model.graph.node if node.name and any(o not in constants for o in node.output)
        ]
        self.readers = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {o.name for o in model.graph.output}

    def dims(self, node):
        """Sizes of a float result, or nothing."""
        kind, dims = self.types.get(node.output[0], (0, []))
        if kind != onnx.TensorProto.FLOAT or not dims or any(d <= 0 for d in dims):
            return None
        return dims

    def fits(self, node, kind):
        dims = self.dims(node)
        if kind in FAILURES:
            return node.op_type != "Constant"
        if dims is None:
            return False
        count = 1
        for d in dims:
            count *= d
        if count < 64:
            return False
        if kind == "stride-drop":
            if node.op_type == "Split":
                axis = next((a.i for a in node.attribute if a.name == "axis"), 0) % len(dims)
            elif node.op_type == "Concat":
                axis = next(a.i for a in node.attribute if a.name == "axis") % len(dims)
            else:
                return False
            outer = 1
            for d in dims[:axis]:
                outer *= d
            return outer > 1
        if kind == "transposed":
            return len(dims) >= 2 and dims[-1] > 2 and dims[-2] > 2
        if kind == "shifted":
            return dims[-1] > 2
        if kind == "batch-broadcast":
            return dims[0] > 1
        if kind == "channels-permuted":
            return len(dims) > 2 and 3 < dims[1] and count // dims[1] > 8
        if kind == "wrong-mode":
            return node.op_type == "Resize"
        if kind == "rounded":
            return node.op_type in ("Conv", "MatMul", "Gemm", "Sigmoid", "Mul", "Add", "Softmax")
        return True


def draw(model, kind, rng):
    nodes = [node for node in model.nodes if model.fits(node, kind)]
    if not nodes:
        return None
    node = rng.choice(nodes)
    fault = {"kind": kind, "at": {"node": node.name}}
    dims = model.dims(node)
    if kind == "scaled":
        fault["amount"] = rng.choice([1.5, 0.5, 1.01, 1.001, 1.0001])
    if kind == "nondeterministic":
        fault["amount"] = rng.choice([1.0, 0.1, 0.01])
    if kind == "rounded":
        fault["dtype"] = rng.choice(["bfloat16", "float16"])
    if kind == "compile-error":
        fault["code"] = rng.choice(["NCC_EVRF029", "NCC_ITEN406", "E4711"])
    if kind == "crash":
        fault["code"] = rng.choice(["exit:70", "signal:11"])
    if kind in ("scaled", "zeroed", "shifted", "transposed") and dims and len(dims) > 2 and rng.random() < 0.4:
        inner = 1
        for d in dims[2:]:
            inner *= d
        if inner >= 64:
            fault["channel"] = rng.randrange(dims[1])
    if kind not in FAILURES and kind != "batch-broadcast" and dims and dims[0] > 1 and rng.random() < 0.5:
        fault["batch"] = rng.randrange(1, dims[0])
    truth = {"nodes": [node.name], "kind": kind}
    return fault, truth


def draw_fusion(model, rng):
    """A fault of two neighbours that shows only while what is between them is hidden."""
    pairs = []
    for node in model.nodes:
        readers = model.readers.get(node.output[0], [])
        if len(readers) == 1 and node.output[0] not in model.outputs and readers[0] in model.nodes:
            if model.fits(readers[0], "zeroed") and model.dims(node) is not None:
                pairs.append((node, readers[0]))
    if not pairs:
        return None
    first, second = rng.choice(pairs)
    kind = rng.choice(["zeroed", "scaled"])
    fault = {"kind": kind, "at": {"node": second.name, "after": first.op_type}, "amount": 1.5}
    return fault, {"nodes": [first.name, second.name], "kind": kind, "fused": True}


def draw_failure(model, rng):
    """A compile error, crash or hang tied to a node, an operator, an operator and its sizes, or two neighbours."""
    kind = rng.choice(FAILURES)
    code = {"compile-error": ["NCC_EVRF029", "NCC_ITEN406", "E4711"], "crash": ["exit:70", "signal:11"]}.get(kind)
    tie = rng.choice(["node", "op", "shape", "pair"])
    nodes = [node for node in model.nodes if model.fits(node, kind)]
    if tie == "pair":
        drawn = draw_fusion(model, rng)
        if drawn is None:
            return None
        fault, truth = drawn
        fault = {"kind": kind, "at": fault["at"]}
        truths = [{**truth, "kind": kind}]
    else:
        node = rng.choice(nodes)
        at = {"node": node.name}
        alike = [node]
        if tie == "op":
            at = {"op": node.op_type}
            alike = [other for other in nodes if other.op_type == node.op_type]
        elif tie == "shape":
            dims = model.dims(node)
            if dims is None:
                return None
            at = {"op": node.op_type, "shape": dims}
            alike = [other for other in nodes if other.op_type == node.op_type and model.dims(other) == dims]
        if len(alike) > 4:
            return None
        fault = {"kind": kind, "at": at}
        truths = [{"nodes": [other.name], "kind": kind} for other in alike]
    if code:
        fault["code"] = rng.choice(code)
    return fault, truths


def is_subtle(fault):
    return fault["kind"] == "scaled" and abs(fault.get("amount", 1.5) - 1) < 0.01 or fault["kind"] == "nondeterministic"


def make_cases(models, count, rng, healthy):
    cases = []

    def add(name, base, sort, faults, truth):
        cases.append({"number": len(cases), "model": name, "base": base, "sort": sort, "faults": faults, "truth": truth,
                      "gross": bool(faults) and not any(map(is_subtle, faults))})

    for name in models:
        for base in healthy:
            add(name, base, "healthy", [], [])
    names = [name for name in models for _ in range(MODELS[name][2])]
    while len(cases) < count:
        name = rng.choice(names)
        model = models[name]
        base = rng.choice(["ort", "ort", "tract"])
        sort = rng.choices(["one", "two", "three", "failure", "fusion"], [10, 3, 2, 4, 2])[0]
        drawn = []
        if sort == "failure":
            one = draw_failure(model, rng)
            drawn = [(one[0], one[1])] if one else [None]
        elif sort == "fusion":
            one = draw_fusion(model, rng)
            drawn = [(one[0], [one[1]])] if one else [None]
        else:
            for _ in range({"one": 1, "two": 2, "three": 3}[sort]):
                one = draw(model, rng.choice(VALUE_KINDS), rng)
                drawn.append((one[0], [one[1]]) if one else None)
        if any(one is None for one in drawn):
            continue
        truth = [truth for _, truths in drawn for truth in truths]
        nodes = [node for one in truth for node in one["nodes"]]
        if len(set(nodes)) < len(nodes):
            continue
        add(name, base, sort, [fault for fault, _ in drawn], truth)
    return cases


def run_case(porter, models, case, folder):
    plan = folder / f"case{case['number']}.json"
    plan.write_text(json.dumps(case["faults"]))
    target = f"faulty:{plan}@{case['base']}" if case["faults"] else case["base"]
    model = models[case["model"]]
    command = [porter, "bisect", str(model.path), "--target", target, "--no-cache", "--json"]
    for sizes in model.sizes:
        command += ["--shape", sizes]
    command = ["/usr/bin/env", "time", "-f", "PEAK %M", *command] if HAS_TIME else command
    start = time.time()
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    seconds = time.time() - start
    peak = next((int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("PEAK")), 0)
    if done.returncode == 3 and not case["faults"]:
        return {**case, "result": "not there", "seconds": seconds, "peak": peak}
    try:
        report = json.loads(done.stdout)
        report["faults"]
    except (json.JSONDecodeError, KeyError):
        return {**case, "result": "error", "why": (done.stdout + done.stderr)[-400:], "seconds": seconds, "peak": peak}
    named = [tuple(sorted(fault["nodes"])) for fault in report["faults"]]
    truth = [tuple(sorted(truth["nodes"])) for truth in case["truth"]]
    if sorted(named) == sorted(truth):
        result = "exact" if truth else "healthy"
        if not truth and report["verdict"] != "healthy":
            result = "false alarm"
    elif not truth or any(not set(nodes) & {n for t in truth for n in t} for nodes in named):
        result = "false alarm"
    elif all(any(set(nodes) <= set(found) for found in named) for nodes in truth):
        result = "region"
    else:
        result = "missed"
    wrong_names = []
    for fault in report["faults"]:
        for one in case["truth"]:
            if sorted(fault["nodes"]) == sorted(one["nodes"]) and fault["fingerprint"]:
                want = SAME.get(one["kind"], one["kind"])
                if fault["fingerprint"] != want:
                    wrong_names.append([fault["fingerprint"], want, fault["nodes"]])
    named_shapes = sum(1 for fault in report["faults"] if fault["fingerprint"])
    return {
        **case, "result": result, "named": named, "seconds": seconds, "peak": peak, "probes": report["probes"],
        "wrong_names": wrong_names, "shapes": named_shapes, "verdict": report["verdict"],
    }


def fill(porter, yolo, folder, scratch):
    """The models, filled or made, by name."""
    models = {}
    for name, (place, sizes, _) in MODELS.items():
        path = scratch / f"{name}.onnx"
        if place == "made:encoder":
            import encoder
            onnx.save(encoder.encoder(2, 24), path)
        elif place.startswith("yolo:"):
            subprocess.run([porter, "hydrate", str(yolo / place[5:]), "-o", str(path)], check=True, capture_output=True)
        else:
            found = sorted(folder.glob(place))
            if not found:
                print(f"{name}: there is no {folder / place}; left out")
                continue
            path = found[0]
        models[name] = Model(path, sizes)
    return models


def share(part, whole):
    return f"{part} of {whole}" + (f" ({100 * part / whole:.1f} %)" if whole else "")


def tell(results):
    planted = [r for r in results if r["truth"]]
    ran = [r for r in results if "probes" in r]
    count = lambda kind, of=results: sum(r["result"] == kind for r in of)
    gross = [r for r in planted if r["gross"]]
    print(f"\n{len(results)} cases, {len(planted)} with faults: found exactly {share(count('exact', planted), len(planted))}, "
          f"gross ones {share(count('exact', gross), len(gross))}; within the region {count('region')}, missed "
          f"{count('missed')}, false alarms {count('false alarm')}, errors {count('error')}; healthy and said so "
          f"{share(count('healthy'), len(results) - len(planted) - count('not there'))}")
    shapes = sum(r.get("shapes", 0) for r in results)
    print(f"fingerprints: {shapes} given, {sum(len(r.get('wrong_names', [])) for r in results)} wrong")
    for sort in sorted({r["sort"] for r in results}):
        own = [r for r in results if r["sort"] == sort and "probes" in r]
        if own:
            right = sum(r["result"] in ("exact", "healthy") for r in own)
            print(f"  {sort:<8} {right:>3} of {len(own):<3} target compiles {statistics.median(r['probes']['compiles'] for r in own):.0f}")
    for name in MODELS:
        own = [r for r in ran if r["model"] == name]
        if own:
            right = sum(r["result"] in ("exact", "healthy") for r in own)
            print(f"  {name:<16} {right:>3} of {len(own):<3} seconds: median {statistics.median(r['seconds'] for r in own):.1f}, "
                  f"most {max(r['seconds'] for r in own):.1f}; peak memory {max(r['peak'] for r in own) / 1024:.0f} MiB")
    if ran:
        probes = [r["probes"]["compiles"] for r in ran]
        print(f"target compiles: median {statistics.median(probes):.0f}, most {max(probes)}; seconds: median "
              f"{statistics.median(r['seconds'] for r in ran):.1f}, most {max(r['seconds'] for r in ran):.1f}; peak memory "
              f"{max(r['peak'] for r in ran) / 1024:.0f} MiB")
    good = count("exact", gross) == len(gross) and count("exact", planted) >= 0.95 * len(planted)
    return good and count("false alarm", [r for r in results if not r["truth"]]) + count("error") == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--porter", default="target/release/porter")
    parser.add_argument("--yolo", type=pathlib.Path, default=pathlib.Path("tests/models"))
    parser.add_argument("--models", type=pathlib.Path, required=True)
    parser.add_argument("--count", type=int, default=320)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", type=int, nargs="*", help="run only the cases of these numbers")
    parser.add_argument("--skip", nargs="*", default=[], help="models that are left out")
    parser.add_argument("--list", action="store_true", help="print the cases and run nothing")
    parser.add_argument("--output", type=pathlib.Path, help="write every case with its result as JSON")
    parser.add_argument("--resume", action="store_true", help="take the results that --output holds already, run the others")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        models = fill(args.porter, args.yolo, args.models, scratch)
        cases = make_cases(models, args.count, random.Random(args.seed), HEALTHY)
        cases = [case for case in cases if case["model"] not in args.skip]
        if args.only:
            cases = [case for case in cases if case["number"] in args.only]
        if args.list:
            print(json.dumps(cases, indent=1))
            return 0
        results = json.loads(args.output.read_text()) if args.resume and args.output.exists() else []
        done = {result["number"] for result in results}
        cases = [case for case in cases if case["number"] not in done]
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            for result in pool.map(lambda case: run_case(args.porter, models, case, scratch), cases):
                results.append(result)
                faults = ", ".join(f"{t['kind']} at {'+'.join(t['nodes'])}" for t in result["truth"]) or "healthy"
                told = "" if result["result"] in ("exact", "healthy") else f"  named {result.get('named')} {result.get('why', '')}"
                odd = f"  WRONG NAME {result['wrong_names']}" if result.get("wrong_names") else ""
                print(f"{result['number']:4} {result['model']:>16}@{result['base']:<8} {result['result']:<11} "
                      f"{result['seconds']:6.1f} s  {faults}{told}{odd}", flush=True)
                if args.output:
                    args.output.write_text(json.dumps(results, indent=1))
    return 0 if tell(results) else 1


HAS_TIME = subprocess.run(["/usr/bin/env", "time", "-f", "%M", "true"], capture_output=True).returncode == 0

if __name__ == "__main__":
    raise SystemExit(main())
