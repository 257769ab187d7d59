"""Writes node.zip: those of ONNX's node tests that are about operators package graph knows.

    pip install onnx==1.23.2 && python make.py

Each test is two files in the archive: NAME/model.onnx, as the onnx package generates it, and
NAME/data.onnx, a graph of constants alone: its inputs "in.NAME" and expected outputs "out.NAME".
"""

import pathlib
import warnings
import zipfile

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

OPS = set("""
Abs Add And ArgMax ArgMin Attention AveragePool BatchNormalization Cast Ceil Clip Concat ConstantOfShape Conv
ConvTranspose Cos CumSum Div Einsum Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm
GlobalAveragePool Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization IsInf
IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max MaxPool Mean Min Mish Mod Mul Neg NonZero
Not OneHot Or PRelu Pad Pow RMSNormalization Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize Round ScatterElements ScatterND Shape
Sigmoid Sign Sin Size Slice Softmax Softplus Split Sqrt Squeeze Sub Sum Tanh Tile Transpose Trilu Unsqueeze Where Xor
""".split())
DTYPES = {"float32", "float64", "int64", "int32", "int8", "uint8", "bool"}
LIMIT = 24 << 10  # bytes of operands in one test


def wanted(case):
    nodes = case.model.graph.node
    if case.model.functions or len(case.data_sets) != 1 or len(nodes) != 1:
        return False
    if nodes[0].domain or nodes[0].op_type not in OPS:
        return False
    arrays = [a for part in case.data_sets[0] for a in part]
    if not all(isinstance(a, (np.ndarray, np.generic)) and str(a.dtype) in DTYPES for a in arrays):
        return False
    return sum(a.nbytes for a in arrays) <= LIMIT


def data(case):
    given, expected = case.data_sets[0]
    graph = case.model.graph
    tensors = [numpy_helper.from_array(np.asarray(a), "in." + v.name) for a, v in zip(given, graph.input)]
    tensors += [numpy_helper.from_array(np.asarray(a), "out." + v.name) for a, v in zip(expected, graph.output)]
    outputs = [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in tensors]
    constants = helper.make_graph([], "data", [], outputs, initializer=tensors)
    return helper.make_model(constants, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def main():
    warnings.simplefilter("ignore")
    cases = [c for c in collect_testcases(None) if wanted(c)]
    path = pathlib.Path(__file__).with_name("node.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as z:
        for case in sorted(cases, key=lambda c: c.name):
            for opset in case.model.opset_import:
                opset.version = max(opset.version, 9)  # those operators did not change before
            for name, model in (("model.onnx", case.model), ("data.onnx", data(case))):
                info = zipfile.ZipInfo(f"{case.name}/{name}", (1980, 1, 1, 0, 0, 0))
                info.compress_type = zipfile.ZIP_DEFLATED
                z.writestr(info, model.SerializeToString(deterministic=True))
    print(f"{len(cases)} tests from onnx {onnx.__version__}, {path.stat().st_size} bytes")


main()
