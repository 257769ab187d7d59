"""Weights in half the bytes, and how to read them back."""
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

HALF_FROM = 4096  # numbers; smaller weights stay fp32


def halve(path, wanted=lambda w, graph: True):
    """Store large fp32 weights that `wanted` picks as fp16, each behind a Cast to fp32."""
    model = onnx.load(path)
    casts = []
    for i, w in enumerate(model.graph.initializer):
        if w.data_type == TensorProto.FLOAT and np.prod(w.dims) >= HALF_FROM and wanted(w, model.graph):
            half = numpy_helper.from_array(numpy_helper.to_array(w).astype(np.float16), w.name + "_fp16")
            casts.append(helper.make_node("Cast", [half.name], [w.name], name=w.name + "_cast", to=TensorProto.FLOAT))
            model.graph.initializer[i].CopyFrom(half)
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def stored(graph):
    """The weights by the names that they had before they were halved, fp32."""
    return {w.name.removesuffix("_fp16"): torch.from_numpy(numpy_helper.to_array(w).astype(np.float32)) for w in graph.initializer}


def read(path):
    """The state dict of a network that was exported and halved. The tracing exporter keeps PyTorch's names but of the matrices of
    linear layers, which it transposes, and of the scales and shifts of group norms: those are named by the nodes that use them."""
    graph = onnx.load(path).graph
    weights, state = stored(graph), {}
    for node in graph.node:
        for name in set(node.input) & set(weights):
            w = weights[name]
            if name.startswith("onnx::"):
                module = ".".join(node.name.strip("/").split("/")[:-1])
                name, w = {"MatMul": (module + ".weight", w.mT), "Mul": (module + ".weight", w.flatten()), "Add": (module + ".bias", w.flatten())}[node.op_type]
            state[name.split(".", 1)[1]] = w.contiguous()
    return state
