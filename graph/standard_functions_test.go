package graph_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
)

// TestOperatorsThatAreFunctionsAreKnown goes over the operators that ONNX, as of opset 28, defines by a
// body of others: each has a row or is written out, and gradients pass it where it computes floats from
// floats. The others are for signals, at random or about sequences, and are refused by name where a
// gradient would have to pass.
func TestOperatorsThatAreFunctionsAreKnown(t *testing.T) {
	all := strings.Fields(`AffineGrid Attention Bernoulli BlackmanWindow CastLike CausalConvWithState Celu CenterCropPad Clip DepthToSpace
		DynamicQuantizeLinear Elu Gelu GreaterOrEqual GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish LayerNormalization
		LeakyRelu LessOrEqual LinearAttention LogSoftmax MeanVarianceNormalization Mish NegativeLogLikelihoodLoss PRelu RMSNormalization Range
		ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare Relu RotaryEmbedding Selu SequenceMap Shrink Softmax
		SoftmaxCrossEntropyLoss Softplus Softsign SpaceToDepth SwiGLU Swish ThresholdedRelu`)
	withoutGradient := strings.Fields("GreaterOrEqual LessOrEqual Range")
	refused := strings.Fields("AffineGrid Bernoulli BlackmanWindow CausalConvWithState CenterCropPad HammingWindow HannWindow LinearAttention SequenceMap")
	rows := graph.Operators()
	for _, op := range all {
		gradient, row := rows[op]
		switch written := graph.IsWrittenOut(op); {
		case slices.Contains(refused, op):
			if row || written {
				t.Errorf("%s is known now: strike it from the list of those that are not", op)
			}
		case slices.Contains(withoutGradient, op):
			if !row {
				t.Errorf("%s has no row", op)
			}
		case !gradient && !written:
			t.Errorf("no gradient passes %s", op)
		}
	}
}
