package graph_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/process"
)

// pieces is a file in parts: bytes, and holes between them that take no space on disk.
type pieces struct {
	parts [][]byte
	holes []int64 // after each part
}

func (p *pieces) add(b []byte, hole int64) {
	p.parts, p.holes = append(p.parts, b), append(p.holes, hole)
}

func (p *pieces) size() (n int64) {
	for i, b := range p.parts {
		n += int64(len(b)) + p.holes[i]
	}
	return n
}

func (p *pieces) write(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i, b := range p.parts {
		if _, err := f.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Seek(p.holes[i], io.SeekCurrent); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(p.size()); err != nil {
		t.Fatal(err)
	}
}

// inlined is a model whose weights, external in the given one, lie in the file itself.
func inlined(t *testing.T, model []byte) *pieces {
	t.Helper()
	var head []byte
	body := &pieces{}
	each(t, model, func(num protowire.Number, whole, content []byte) {
		if num != 7 {
			head = append(head, whole...)
			return
		}
		each(t, content, func(num protowire.Number, whole, content []byte) {
			if hole := externalLength(t, content); num == 5 && hole > 0 {
				header := message{}
				each(t, content, func(num protowire.Number, whole, _ []byte) {
					if num < 13 {
						header = append(header, whole...)
					}
				})
				header = protowire.AppendVarint(protowire.AppendTag(header, 9, protowire.BytesType), uint64(hole))
				start := protowire.AppendVarint(protowire.AppendTag(nil, 5, protowire.BytesType), uint64(int64(len(header))+hole))
				body.add(append(start, header...), hole)
				return
			}
			body.add(whole, 0)
		})
	})
	start := protowire.AppendVarint(protowire.AppendTag(head, 7, protowire.BytesType), uint64(body.size()))
	return &pieces{append([][]byte{start}, body.parts...), append([]int64{0}, body.holes...)}
}

// each visits the fields of a message: the whole of each, and its content where it has a length.
func each(t *testing.T, m []byte, visit func(num protowire.Number, whole, content []byte)) {
	t.Helper()
	for len(m) > 0 {
		num, typ, tag := protowire.ConsumeTag(m)
		n := protowire.ConsumeFieldValue(num, typ, m[tag:])
		if tag < 0 || n < 0 {
			t.Fatal("the model is malformed")
		}
		var content []byte
		if typ == protowire.BytesType {
			content, _ = protowire.ConsumeBytes(m[tag:])
		}
		visit(num, m[:tag+n], content)
		m = m[tag+n:]
	}
}

// externalLength is how long a TensorProto says its external data is, 0 where it has none.
func externalLength(t *testing.T, tensor []byte) (n int64) {
	if !bytes.Contains(tensor, []byte("location")) {
		return 0
	}
	each(t, tensor, func(num protowire.Number, _, content []byte) {
		if num != 13 {
			return
		}
		var pair []string
		each(t, content, func(_ protowire.Number, _, content []byte) { pair = append(pair, string(content)) })
		if pair[0] == "length" {
			fmt.Sscan(pair[1], &n)
		}
	})
	return n
}

// TestWeightsStayWhereTheyAre loads towers of gigabytes, whose weights are holes in sparse files.
func TestWeightsStayWhereTheyAre(t *testing.T) {
	const most = 300 << 20
	tests := []struct {
		name   string
		blocks int64
		inline bool
		bytes  int64 // at least
	}{
		{"as large as ViT-L/14, in the model's file", 24, true, 1200 << 20},
		{"of three gigabytes, in a file of its own", 62, false, 3 << 30},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			data := graph.Source{Path: filepath.Join(dir, "model.onnx.data")}
			tower := tiny{width: 1280, heads: 20, blocks: tt.blocks, tokens: 257, seed: 1, weights: &data}
			g, err := tower.image()
			if err != nil {
				t.Fatal(err)
			}
			size := data.Offset + data.Length
			model, err := g.Marshal(graph.MarshalOptions{DataDir: dir})
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "model.onnx")
			if tt.inline {
				inlined(t, model).write(t, path)
			} else {
				(&pieces{[][]byte{model}, []int64{0}}).write(t, path)
				(&pieces{[][]byte{nil}, []int64{size}}).write(t, data.Path)
			}
			if size < tt.bytes {
				t.Fatalf("its weights have %d bytes only", size)
			}
			start, cpu, before := time.Now(), process.Time(), allocated()
			loaded, err := graph.Load(path)
			if err != nil {
				t.Fatal(err)
			}
			took, used := process.Time()-cpu, allocated()-before
			t.Logf("%.2f GB: loaded in %s (%s of processor time) with %.1f MiB of heap; %s resident", float64(size)/1e9, time.Since(start).Round(time.Millisecond), took.Round(time.Millisecond), float64(used)/(1<<20), resident())
			if used > most {
				t.Errorf("loading took %d MiB", used>>20)
			}
			before = allocated()
			image, err := graph.FindImageTower(loaded, "image_embeds")
			if err != nil {
				t.Fatal(err)
			}
			prompted, err := image.WithPrompts(graph.ImagePromptOptions{Tokens: 4, Depth: 2})
			if err != nil {
				t.Fatal(err)
			}
			written, err := prompted.Marshal(graph.MarshalOptions{DataDir: dir})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("put prompts in and wrote %.1f MB with %.1f MiB of heap; %s resident", float64(len(written))/1e6, float64(allocated()-before)/(1<<20), resident())
			if used := allocated() - before; used > most {
				t.Errorf("putting prompts in took %d MiB", used>>20)
			}
		})
	}
}

// resident is how much of the process lies in memory, where the system tells.
func resident() string {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return "unknown"
}
