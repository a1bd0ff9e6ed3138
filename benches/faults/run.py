#!/usr/bin/env python3
"""The fault benchmark: plants faults in models, lets `porter bisect` look for them, and counts.

    benches/faults/run.py --porter target/release/porter --models DIR [--count 300] [--seed 1] [--jobs 2] [--list]

A case is a model, a base engine (ort or tract) and no, one, two or three planted faults; the same seed gives the same
cases. Nodes are drawn at random among those where a fault of the kind can show. DIR is searched for .onnx files; stripped
ones are filled first. Needs the onnx package.

Found exactly: every planted node is named, alone, and nothing else is. Within the region: every planted node is in what is
named, but not alone. A wrong fingerprint is counted on its own: `unknown` is no mistake, a wrong name is.
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
# What a fault may also be called: planted noise at every run is no shape of values.
SAME = {"constant-transposed": "transposed"}


def shapes_of(model):
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    known = {}
    for value in list(inferred.graph.value_info) + list(inferred.graph.output) + list(inferred.graph.input):
        tensor = value.type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
        known[value.name] = (tensor.elem_type, dims)
    return known


class Model:
    def __init__(self, path):
        self.path = path
        model = onnx.load(path)
        self.types = shapes_of(model)
        constants = {i.name for i in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" or all(name in constants or not name for name in node.input):
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


def make_cases(models, count, rng):
    cases = []
    names = sorted(models)
    turn = 0
    while len(cases) < count:
        name = names[turn % len(names)]
        turn += 1
        model = models[name]
        base = rng.choice(["ort", "ort", "tract"])
        sort = rng.choices(["one", "two", "three", "failure", "fusion", "healthy"], [10, 3, 2, 3, 2, 2])[0]
        drawn = []
        if sort == "failure":
            drawn = [draw(model, rng.choice(FAILURES), rng)]
        elif sort == "fusion":
            drawn = [draw_fusion(model, rng)]
        elif sort != "healthy":
            for _ in range({"one": 1, "two": 2, "three": 3}[sort]):
                drawn.append(draw(model, rng.choice(VALUE_KINDS), rng))
        if any(one is None for one in drawn):
            continue
        nodes = [node for _, truth in drawn for node in truth["nodes"]]
        if len(set(nodes)) < len(nodes):
            continue
        cases.append({
            "number": len(cases), "model": name, "base": base, "sort": sort,
            "faults": [fault for fault, _ in drawn], "truth": [truth for _, truth in drawn],
        })
    return cases


def run_case(porter, models, case, folder):
    plan = folder / f"case{case['number']}.json"
    plan.write_text(json.dumps(case["faults"]))
    target = f"faulty:{plan}@{case['base']}" if case["faults"] else case["base"]
    command = [porter, "bisect", str(models[case["model"]].path), "--target", target, "--no-cache", "--json"]
    command = ["/usr/bin/env", "time", "-f", "PEAK %M", *command] if HAS_TIME else command
    start = time.time()
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    seconds = time.time() - start
    peak = next((int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("PEAK")), 0)
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        return {**case, "result": "error", "why": done.stderr[-400:], "seconds": seconds, "peak": peak}
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--porter", default="target/release/porter")
    parser.add_argument("--models", type=pathlib.Path, required=True, nargs="+")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", type=int, nargs="*", help="run only the cases of these numbers")
    parser.add_argument("--list", action="store_true", help="print the cases and run nothing")
    parser.add_argument("--output", type=pathlib.Path, help="write every case with its result as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        models = {}
        files = [f for m in args.models for f in (sorted(m.rglob("*.onnx")) if m.is_dir() else [m])]
        for file in files:
            whole = scratch / f"{file.stem}.onnx"
            subprocess.run([args.porter, "hydrate", str(file), "-o", str(whole)], check=True, capture_output=True)
            models[file.stem] = Model(whole)
        cases = make_cases(models, args.count, random.Random(args.seed))
        if args.only:
            cases = [case for case in cases if case["number"] in args.only]
        if args.list:
            print(json.dumps(cases, indent=1))
            return 0
        results = []
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            for result in pool.map(lambda case: run_case(args.porter, models, case, scratch), cases):
                results.append(result)
                faults = ", ".join(f"{t['kind']} at {'+'.join(t['nodes'])}" for t in result["truth"]) or "healthy"
                told = "" if result["result"] in ("exact", "healthy") else f"  named {result.get('named')} {result.get('why', '')}"
                odd = f"  WRONG NAME {result['wrong_names']}" if result.get("wrong_names") else ""
                print(f"{result['number']:4} {result['model']:>24}@{result['base']:<5} {result['result']:<11} "
                      f"{result['seconds']:6.1f} s  {faults}{told}{odd}", flush=True)
    if args.output:
        args.output.write_text(json.dumps(results, indent=1))
    planted = [r for r in results if r["truth"]]
    count = lambda kind: sum(r["result"] == kind for r in results)
    probes = [r["probes"]["compiles"] for r in results if "probes" in r]
    print(f"\n{len(results)} cases, {len(planted)} with faults: found exactly {count('exact')}, within the region "
          f"{count('region')}, missed {count('missed')}, false alarms {count('false alarm')}, errors {count('error')}; "
          f"healthy and said so {count('healthy')}")
    shapes = sum(r.get("shapes", 0) for r in results)
    print(f"fingerprints: {shapes} given, {sum(len(r.get('wrong_names', [])) for r in results)} wrong")
    if probes:
        seconds = [r["seconds"] for r in results]
        print(f"target compiles: median {statistics.median(probes):.0f}, most {max(probes)}; seconds: median "
              f"{statistics.median(seconds):.1f}, most {max(seconds):.1f}; peak memory "
              f"{max(r['peak'] for r in results) / 1024:.0f} MiB")
    return 0 if count("missed") + count("false alarm") + count("error") == 0 else 1


HAS_TIME = subprocess.run(["/usr/bin/env", "time", "-f", "%M", "true"], capture_output=True).returncode == 0

if __name__ == "__main__":
    raise SystemExit(main())
