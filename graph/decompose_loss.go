package graph

// crossEntropy is SoftmaxCrossEntropyLoss, and NegativeLogLikelihoodLoss, whose scores are
// logarithms already: scores [B,C,...] against labels [B,...], with optional weights [C]. Labels equal to
// ignore_index count for nothing.
func crossEntropy(b *Builder, n *Node) []*Value {
	logs, labels, like := n.Inputs[0], n.Inputs[1], n.Inputs[0]
	if n.Op == "SoftmaxCrossEntropyLoss" {
		logs = b.Op("LogSoftmax", Attrs{"axis": int64(1)}, logs)
	}
	var share *Value // of each label, nil for 1
	if a, ok := n.Attrs["ignore_index"]; ok {
		index, _ := a.Value.(int64)
		ignored := scalar(float64(index), labels.Type)
		kept := b.Op("Not", nil, b.Op("Equal", nil, labels, b.Const(ignored)))
		share = b.Op("Cast", Attrs{"to": int64(like.Type)}, kept)
		labels = b.Op("Where", nil, kept, labels, b.Const(scalar(0, labels.Type)))
	}
	if weights := n.Input(2); weights != nil {
		of := b.Op("Gather", nil, weights, labels)
		if share != nil {
			of = b.Mul(of, share)
		}
		share = of
	}
	one := b.Ints(1)
	picked := b.Op("Squeeze", nil, b.Op("GatherElements", Attrs{"axis": int64(1)}, logs, b.Op("Unsqueeze", nil, labels, one)), one)
	loss := b.Op("Neg", nil, picked)
	if share != nil {
		loss = b.Mul(loss, share)
	}
	all := Attrs{"keepdims": int64(0)}
	switch reduction := n.Str("reduction", "mean"); {
	case reduction == "none":
	case reduction == "sum":
		loss = b.Op("ReduceSum", all, loss)
	case share != nil:
		loss = b.Div(b.Op("ReduceSum", all, loss), b.Op("ReduceSum", all, share))
	default:
		loss = b.Op("ReduceMean", all, loss)
	}
	return []*Value{loss, logs}
}
