"""Weights in half the bytes."""
import numpy as np
import onnx
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
