"""Writes node.zip: ONNX's node tests of one operator.

    pip install onnx==1.23.2 && python make.py [--limit BYTES] [OUT]

Those of operators that package graph knew when this was written are in the archive's root; those of all others are in
others/, and wait for the operator to get a row. Tests with more operands than the limit are left out; 0 leaves none out (make node-tests). Each test is two files in the archive: NAME/model.onnx, as the onnx package generates it, and
NAME/data.onnx, a graph of constants alone: its inputs "in.NAME" and expected outputs "out.NAME". left_out.txt
counts the tests of those operators that are left out for the type of an operand.
"""

import argparse
import collections
import pathlib
import warnings
import zipfile

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

OPS = set("""
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization Cast CastLike Ceil
Celu Clip Concat ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div
Dropout DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm
GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity
InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization
LpPool MatMul MatMulInteger Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NegativeLogLikelihoodLoss
NonZero Not OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization Range Reciprocal
ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
Relu Reshape Resize RotaryEmbedding Round ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice
Softmax SoftmaxCrossEntropyLoss Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum SwiGLU Swish Tan Tanh
TensorScatter ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor
""".split())
DTYPES = set("float32 float64 float16 bfloat16 int64 int32 int16 int8 int4 uint64 uint32 uint16 uint8 uint4 bool".split())
LIMIT = 24 << 10  # bytes of operands in one test


def about(case):
    nodes = case.model.graph.node
    if case.model.functions or len(case.data_sets) != 1 or len(nodes) != 1:
        return False
    return not nodes[0].domain


def known(case):
    return case.model.graph.node[0].op_type in OPS


def operands(case):
    """Its inputs and outputs; tensors in ONNX's own form as arrays."""
    return [[numpy_helper.to_array(a) if isinstance(a, onnx.TensorProto) else a for a in part] for part in case.data_sets[0]]


def other_type(case):
    """The element type, of one of its operands, that keeps a test out; None where all are read."""
    for part in operands(case):
        for a in part:
            kind = str(a.dtype) if isinstance(a, (np.ndarray, np.generic)) else type(a).__name__
            if kind not in DTYPES:
                return kind
    return None


def wanted(case, limit):
    if not about(case) or other_type(case):
        return False
    return not limit or sum(a.nbytes for part in operands(case) for a in part) <= limit


def data(case):
    given, expected = operands(case)
    graph = case.model.graph
    tensors = [numpy_helper.from_array(np.asarray(a), "in." + v.name) for a, v in zip(given, graph.input)]
    tensors += [numpy_helper.from_array(np.asarray(a), "out." + v.name) for a, v in zip(expected, graph.output)]
    outputs = [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in tensors]
    constants = helper.make_graph([], "data", [], outputs, initializer=tensors)
    return helper.make_model(constants, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def main():
    warnings.simplefilter("ignore")
    here = pathlib.Path(__file__).with_name("node.zip")
    parser = argparse.ArgumentParser()
    parser.add_argument("out", nargs="?", type=pathlib.Path, default=here)
    parser.add_argument("--limit", type=int, default=LIMIT)
    options = parser.parse_args()
    every = collect_testcases(None)
    cases = [c for c in every if wanted(c, options.limit)]
    left_out = collections.Counter(filter(None, (other_type(c) for c in every if about(c) and known(c))))
    with zipfile.ZipFile(options.out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as z:
        for case in sorted(cases, key=lambda c: c.name):
            for opset in case.model.opset_import:
                opset.version = max(opset.version, 9)  # those operators did not change before
            for name, model in (("model.onnx", case.model), ("data.onnx", data(case))):
                info = zipfile.ZipInfo(f"{case.name}/{name}" if known(case) else f"others/{case.name}/{name}", (1980, 1, 1, 0, 0, 0))
                info.compress_type = zipfile.ZIP_DEFLATED
                z.writestr(info, model.SerializeToString(deterministic=True))
        info = zipfile.ZipInfo("left_out.txt", (1980, 1, 1, 0, 0, 0))
        z.writestr(info, "".join(f"{n} {kind}\n" for kind, n in sorted(left_out.items())))
    print(f"{sum(map(known, cases))} tests and {len(cases) - sum(map(known, cases))} others from onnx {onnx.__version__}, {options.out.stat().st_size} bytes")


main()
