package inspect

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Print writes the report for people: a column of labels, a column of findings.
func (r *Report) Print(w io.Writer) {
	p := printer{w}
	p.line("model", "%s: %s", r.Name, described(r.Kind, r.Type))
	if r.Digest != "" {
		p.line("digest", "%s", r.Digest)
	}
	p.line("files", "%d, %s", r.Files, megabytes(r.Bytes))
	if r.LogitScale != 0 {
		p.line("logit scale", "%.4g (%s)", r.LogitScale, r.ScaleFrom)
	}
	if r.Preprocessing != "" {
		p.line("images", "%s", r.Preprocessing)
	}
	if r.Tokenizer != "" {
		p.line("tokenizer", "%s", r.Tokenizer)
	}
	for _, m := range r.Models {
		m.print(p)
	}
	if r.Image != nil {
		r.Image.print(p)
	}
	if r.Text != nil {
		r.Text.print(p)
	}
	if r.Decoder != nil {
		r.Decoder.print(p)
	}
	for _, note := range r.Notes {
		p.line("note", "%s", note)
	}
	for _, reason := range r.Refusals {
		p.line("refused", "%s", reason)
	}
}

func described(kind, name string) string {
	if name == "" {
		return kind
	}
	return kind + " (" + name + ")"
}

// printer writes lines of two columns.
type printer struct{ w io.Writer }

// line writes a finding beside its label; without a label it goes on with the last one.
func (p printer) line(label, format string, args ...any) {
	fmt.Fprintf(p.w, "%-11s  %s\n", label, fmt.Sprintf(format, args...))
}

func (m Model) print(p printer) {
	p.line("file", "%s, opset %s, by %s", m.File, opsets(m.Opset), known(m.Exporter))
	p.line("", "takes %s", list(m.Inputs))
	p.line("", "gives %s", list(m.Outputs))
	p.line("", "%s weights, %s in the file, %s in memory", count(m.Parameters), megabytes(m.Bytes), megabytes(m.Resident))
	p.line("", "holds %s", histogram(m.Operators))
}

func known(exporter string) string {
	if exporter == "" {
		return "an exporter that does not say its name"
	}
	return exporter
}

func (t *Image) print(p printer) {
	size := "any number of"
	if t.Height > 0 {
		size = fmt.Sprintf("%d x %d", t.Width, t.Height)
	}
	p.line("image tower", "%s pixels, %d tokens (%d class) of width %d, prompts enter %d blocks", size, t.Tokens, t.ClassTokens, t.TokenWidth, t.Blocks)
	if t.GridRows > 0 {
		patch := ""
		if t.Height > 0 {
			patch = fmt.Sprintf(" of %d x %d pixels", t.Width/t.GridColumns, t.Height/t.GridRows)
		}
		p.line("", "%d x %d patches%s", t.GridColumns, t.GridRows, patch)
	}
	if t.Batch > 0 {
		p.line("", "exported for batches of %d alone", t.Batch)
	}
	t.Tower.print(p, fmt.Sprintf("pooled by: %s", t.Pooling), "prompts join")
}

func (t *Text) print(p printer) {
	p.line("text tower", "%s of width %d, context enters %d blocks", window(t.Window), t.TokenWidth, t.Blocks)
	length := "has to be padded as in training"
	if t.Trims {
		length = "a batch may be cut to its longest text"
	}
	if t.Fixed != "" {
		length = "of one length: " + t.Fixed
	}
	p.line("", "vocabulary of %d, %s", t.Vocabulary, length)
	pooling := ""
	if t.Pooling != "" {
		pooling = "pooled by: " + t.Pooling
	}
	t.Tower.print(p, pooling, "context joins")
}

func (t *Decoder) print(p printer) {
	p.line("decoder", "%s of width %d, a prefix enters %d attentions", window(t.Window), t.TokenWidth, t.SelfLayers)
	how := []string{fmt.Sprintf("vocabulary of %d", t.Vocabulary)}
	if t.Causal {
		how = append(how, "causal")
	}
	if t.Cross > 0 {
		how = append(how, fmt.Sprintf("%d cross attentions to %s", t.Cross, t.Encoder))
	}
	if t.Cache {
		how = append(how, "takes past keys and values")
	}
	p.line("", "%s", strings.Join(how, ", "))
	t.Tower.print(p, "", "a soft prefix joins")
}

func window(tokens int) string {
	if tokens == 0 {
		return "any number of tokens"
	}
	return fmt.Sprintf("window of %d tokens", tokens)
}

func (t *Tower) print(p printer, pooling, what string) {
	parts := []string{}
	if t.Heads > 0 {
		parts = append(parts, fmt.Sprintf("%d heads", t.Heads))
	}
	if t.Layout != "" {
		parts = append(parts, "tokens as "+t.Layout)
	}
	parts = append(parts, "output "+t.Output.String())
	if pooling != "" {
		parts = append(parts, pooling)
	}
	p.line("", "%s", strings.Join(parts, ", "))
	p.line("", "%s at %s", what, t.Insert)
	for i, b := range t.BlockInputs {
		switch last := len(t.BlockInputs) - 1; {
		case i < 2 || i == last:
			p.line("", "block %d at %s", i, b)
		case i == 2:
			p.line("", "...")
		}
	}
	var passed, off, missing []string
	for _, o := range t.Operators {
		switch {
		case o.OnPath > 0 && o.Gradient:
			passed = append(passed, fmt.Sprintf("%s %d", o.Op, o.OnPath))
		case o.OnPath > 0:
			missing = append(missing, fmt.Sprintf("%s (%d, first %q)", o.Op, o.OnPath, o.First))
		case !o.Gradient:
			off = append(off, fmt.Sprintf("%s %d", o.Op, o.Nodes))
		}
	}
	p.line("", "%d nodes, gradients pass %d: %s", t.Nodes, t.OnPath, strings.Join(passed, ", "))
	if len(off) > 0 {
		p.line("", "without a gradient, off its path: %s", strings.Join(off, ", "))
	}
	if len(missing) > 0 {
		p.line("", "without a gradient, on its path: %s", strings.Join(missing, ", "))
	}
	if t.Step != nil {
		t.Step.print(p)
	}
}

func (s *Step) print(p printer) {
	size := fmt.Sprintf("batch of %d, %d prompts", s.Batch, s.Prompts)
	if s.Depth > 1 {
		size += fmt.Sprintf(" at %d blocks", s.Depth)
	}
	if s.Length > 0 {
		size += fmt.Sprintf(", texts of %d tokens", s.Length)
	}
	takes := megabytes(s.Memory)
	if s.Seconds > 0 {
		takes = duration(s.Seconds) + " and " + takes
	}
	p.line("", "a step (%s) takes some %s, for %.1f GFLOP", size, takes, float64(s.Operations)/1e9)
	if s.MeasuredSeconds > 0 {
		p.line("", "measured: %s and %s", duration(s.MeasuredSeconds), megabytes(s.MeasuredMemory))
	}
}

func duration(seconds float64) string {
	switch {
	case seconds < 0.01:
		return fmt.Sprintf("%.1f ms", 1e3*seconds)
	case seconds < 1:
		return fmt.Sprintf("%.0f ms", 1e3*seconds)
	}
	return fmt.Sprintf("%.1f s", seconds)
}

// String writes the tensor as graphs are printed.
func (t Tensor) String() string { return t.Name + ":" + t.Type + t.Shape }

func list(ts []Tensor) string {
	parts := make([]string, len(ts))
	for i, t := range ts {
		parts[i] = t.String()
	}
	return strings.Join(parts, ", ")
}

// histogram writes operators, the most frequent first.
func histogram(operators map[string]int) string {
	ops := slices.SortedFunc(maps.Keys(operators), func(a, b string) int {
		if d := operators[b] - operators[a]; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	for i, op := range ops {
		ops[i] = fmt.Sprintf("%s %d", op, operators[op])
	}
	return strings.Join(ops, ", ")
}

func opsets(versions map[string]int64) string {
	parts := []string{fmt.Sprint(versions["ai.onnx"])}
	for _, domain := range slices.Sorted(maps.Keys(versions)) {
		if domain != "ai.onnx" {
			parts = append(parts, fmt.Sprintf("%s %d", domain, versions[domain]))
		}
	}
	return strings.Join(parts, ", ")
}

// megabytes writes bytes in the unit that leaves a few digits.
func megabytes(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	case n >= 1e5:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f KB", float64(n)/1e3)
}

// count writes a number of parameters.
func count(n int64) string {
	if n >= 1e5 {
		return fmt.Sprintf("%.1f million", float64(n)/1e6)
	}
	return fmt.Sprint(n)
}
