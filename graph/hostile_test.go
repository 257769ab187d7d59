package graph_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/process"
)

// message writes protocol-buffers fields by hand, for files that no exporter writes.
type message []byte

func (m message) text(field protowire.Number, s string) message {
	return protowire.AppendString(protowire.AppendTag(m, field, protowire.BytesType), s)
}

func (m message) inner(field protowire.Number, s message) message { return m.text(field, string(s)) }

func (m message) number(field protowire.Number, v uint64) message {
	return protowire.AppendVarint(protowire.AppendTag(m, field, protowire.VarintType), v)
}

// model wraps a GraphProto.
func model(g message) []byte {
	return message{}.number(1, 8).inner(7, g).inner(8, message{}.number(2, 18))
}

func value(name string, dims ...string) message {
	var shape message
	for _, d := range dims {
		shape = shape.inner(1, message{}.text(2, d))
	}
	return message{}.text(1, name).inner(2, message{}.inner(1, message{}.number(1, 1).inner(2, shape)))
}

func node(op, in, out string) message {
	m := message{}
	for _, name := range strings.Fields(in) {
		m = m.text(1, name)
	}
	return m.text(2, out).text(4, op)
}

// external is a graph that adds an input to a weight of 4 KiB in another file.
func external(entries ...string) []byte {
	weight := message{}.number(1, 1024).number(2, 1).text(8, "w").number(14, 1)
	for i := 0; i < len(entries); i += 2 {
		weight = weight.inner(13, message{}.text(1, entries[i]).text(2, entries[i+1]))
	}
	return model(message{}.inner(1, node("Add", "x w", "y")).inner(5, weight).inner(11, value("x", "n")).inner(12, value("y", "n")))
}

// TestExternalDataStaysInTheModelsFolder lays out a folder with a model, and files inside and
// outside of it, some reachable by links.
func TestExternalDataStaysInTheModelsFolder(t *testing.T) {
	root, dir := layOut(t)
	tests := []struct {
		name    string
		entries []string
		want    string // in the error; "" for none
	}{
		{"beside the model", []string{"location", "w"}, ""},
		{"in a folder", []string{"location", "inner/w"}, ""},
		{"up and down again inside", []string{"location", "inner/../w"}, ""},
		{"a link that stays inside", []string{"location", "in"}, ""},
		{"an offset", []string{"location", "w", "offset", "4096", "length", "4096"}, ""},
		{"the folder above", []string{"location", "../secret"}, "inside the model's folder"},
		{"the folder above by a detour", []string{"location", "inner/../../secret"}, "inside the model's folder"},
		{"a folder of like name", []string{"location", "../model-2/w"}, "inside the model's folder"},
		{"an absolute path", []string{"location", filepath.Join(root, "secret")}, "inside the model's folder"},
		{"a link that leads out", []string{"location", "out"}, "leads out"},
		{"an absolute link", []string{"location", "absolute"}, "leads out"},
		{"a linked folder", []string{"location", "folder/secret"}, "leads out"},
		{"a link to itself", []string{"location", "loop"}, "loop"},
		{"a link to nothing", []string{"location", "dangling"}, "no such file"},
		{"a file that is not there", []string{"location", "nothing"}, "no such file"},
		{"the folder itself", []string{"location", "."}, "regular file"},
		{"a folder", []string{"location", "inner"}, "regular file"},
		{"no location", nil, "inside the model's folder"},
		{"an empty location", []string{"location", ""}, "inside the model's folder"},
		{"a file too short", []string{"location", "short"}, "4095 bytes"},
		{"an offset behind the end", []string{"location", "w", "offset", "8192"}, "8192 bytes"},
		{"an offset that overflows", []string{"location", "w", "offset", "9223372036854775807"}, "8192 bytes"},
		{"a negative offset", []string{"location", "w", "offset", "-1"}, "offset"},
		{"an offset that is no number", []string{"location", "w", "offset", "1e3"}, "offset"},
		{"another length than the dims say", []string{"location", "w", "length", "8"}, "length"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(dir, "model.onnx")
			if err := os.WriteFile(path, external(tt.entries...), 0o644); err != nil {
				t.Fatal(err)
			}
			g, err := graph.Load(path)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if b, err := g.Nodes[0].Inputs[1].Const.Bytes(); err != nil || len(b) != 4096 {
					t.Errorf("the weight has %d bytes: %v", len(b), err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || errs.Of(err) == errs.Internal {
				t.Errorf("got %v of kind %v, which should say %q", err, errs.Of(err), tt.want)
			}
		})
	}
	if _, err := graph.Parse(external("location", "w"), ""); err == nil {
		t.Error("a model without a folder reads external data")
	}
	if _, err := graph.Parse(external("location", "w"), dir); err != nil {
		t.Errorf("a model in memory, with a folder: %v", err)
	}
}

// layOut makes the folders: root, and the model's dir within.
func layOut(t *testing.T) (root, dir string) {
	t.Helper()
	root = t.TempDir()
	dir = filepath.Join(root, "model")
	weights := make([]byte, 8192)
	for _, d := range []string{dir, filepath.Join(dir, "inner"), filepath.Join(root, "model-2")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"secret", "model/w", "model/inner/w", "model-2/w", "model/short"} {
		data := weights
		if filepath.Base(f) == "short" {
			data = weights[:4095]
		}
		if err := os.WriteFile(filepath.Join(root, f), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"out": "../secret", "in": "inner/w", "folder": "..", "absolute": filepath.Join(root, "secret"), "loop": "loop", "dangling": "nothing"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	return root, dir
}

// hang is processor time that only work out of all proportion takes. It is no measure of speed: the slowest file below takes 7 s, and
// 24 s under the race detector on a slow machine.
const hang = 2 * time.Minute

// TestModelsMadeToCostMuchDoNot hands over files of at most a few megabytes that are made to take
// very long, or very much memory, by a way of reading that does not guard against it.
func TestModelsMadeToCostMuchDoNot(t *testing.T) {
	chain := func(count int, op string, inputs func(before string) string) message {
		m, last := message{}, "x"
		for i := range count {
			next := fmt.Sprint("v", i)
			m = m.inner(1, node(op, inputs(last), next))
			last = next
		}
		return m.inner(12, value(last))
	}
	twice := func(v string) string { return v + " " + v }
	once := func(v string) string { return v }
	const many = 30_000
	symbols := message{}
	var names []string
	for i := range 20_000 {
		name := fmt.Sprint("s", i)
		symbols, names = symbols.inner(11, value(name, name)), append(names, name)
	}
	vector := message{}.number(1, 1024).number(2, 7).text(8, "c").text(9, string(make([]byte, 8192)))
	branch := message{}.inner(1, node("Identity", "x", "inner")).inner(12, value("inner"))
	conditional := message{}
	for i := range 20_000 {
		n := node("If", "x", fmt.Sprint("v", i)).inner(5, message{}.text(1, "then_branch").inner(6, branch).number(20, 5))
		conditional = conditional.inner(1, n)
	}
	nested := branch
	for range 100 {
		nested = message{}.inner(1, node("If", "x", "inner").inner(5, message{}.text(1, "then_branch").inner(6, nested).number(20, 5))).inner(12, value("inner"))
	}
	tokens := []string{"b", "n", "d"}
	models := map[string]message{
		"a chain of sums of a value with itself":    chain(many, "Add", twice).inner(11, value("x", tokens...)),
		"a chain of products of an extent's number": chain(many, "Mul", twice).inner(11, value("x")),
		"a long chain":            chain(many, "Relu", once).inner(11, value("x", tokens...)),
		"more nodes than allowed": chain(200_000, "Relu", once).inner(11, value("x", tokens...)),
		"softmaxes of old":        chain(many, "Softmax", once).inner(11, value("x", tokens...)),
		"activations written out": chain(20_000, "Mish", once).inner(11, value("x", tokens...)),
		"axes that grow":          chain(20_000, "Concat", func(v string) string { return v + " " + v + " " + v }).inner(11, value("x", tokens...)),
		"a sum of many extents":   symbols.inner(1, node("Concat", strings.Join(names, " "), "y")).inner(12, value("y")),
		"a very long symbol":      chain(20_000, "Add", twice).inner(11, value("x", strings.Repeat("n", 1<<20), "m")),
		"many followed vectors":   chain(many, "Add", func(v string) string { return strings.Replace(v+" c", "x c", "c c", 1) }).inner(5, vector).inner(11, value("x")),
		"many inner graphs":       conditional.inner(11, value("x")).inner(12, value("v1")),
		"graphs nested deeply":    nested.inner(11, value("x")),
		"very many axes":          chain(100, "Relu", once).inner(11, value("x", make([]string, 1<<16)...)),
		"very many attributes":    message{}.inner(1, node("Relu", "x", "y").text(5, "").text(5, strings.Repeat("\x2a\x00", 1<<20))).inner(11, value("x")).inner(12, value("y")),
	}
	for name, m := range models {
		t.Run(name, func(t *testing.T) {
			file := model(m)
			if name == "softmaxes of old" {
				file = message{}.number(1, 8).inner(7, m).inner(8, message{}.number(2, 9))
			}
			start, before := process.Time(), allocated()
			handle(t, file)
			took := process.Time() - start
			if took > hang {
				t.Errorf("%d bytes took %s", len(file), took)
			}
			used := (allocated() - before) >> 20
			t.Logf("%.1f MB: %s, %d MiB allocated", float64(len(file))/1e6, took.Round(time.Millisecond), used)
			if used > 8<<10 {
				t.Errorf("%d bytes needed %d MiB of memory", len(file), used)
			}
		})
	}
}
