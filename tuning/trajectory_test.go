package tuning

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/tuning/tuningtest"
)

// trajectorySteps is how far the runs are followed.
const trajectorySteps = 20

// trajectories are the methods that are followed, with their published values on the starter
// bundle, warm-up off, and a rate at which twenty steps get somewhere.
var trajectories = map[string]float64{"coop": 0.02, "vpt-deep": 0.1, "maple": 0.0035}

func trajectoryTuner(t *testing.T, name string) *Tuner {
	t.Helper()
	r := recipe(t, name)
	r.Schedule = Schedule{Epochs: trajectorySteps}
	r.Optimizer.LearningRate = trajectories[name]
	r.Batch, r.Views = 20, 1
	return newTuner(t, r, demoData(t, "fashion", 2, 0))
}

// TestTrajectory follows 20 steps and compares where they lead with PyTorch: for each learned
// tensor, ||dp - dp'|| / ||dp'|| <= 1e-2, dp what the steps changed. What PyTorch made of the same
// start and batches lies in testdata/trajectory, written by `make reference`.
func TestTrajectory(t *testing.T) {
	if dir := os.Getenv("FORETOKEN_TRAJECTORY_OUT"); dir != "" {
		for name := range trajectories {
			writeTrajectory(t, trajectoryTuner(t, name), filepath.Join(dir, name+".safetensors"), trajectorySteps)
		}
		return
	}
	for name := range trajectories {
		t.Run(name, func(t *testing.T) {
			tuner := trajectoryTuner(t, name)
			want, digest := readTensors(t, filepath.Join("testdata", "trajectory", name+".safetensors"))
			if digest != tuner.model.Bundle.Digest {
				t.Fatalf("the reference is of bundle %s, this is %s: run `make reference`", digest, tuner.model.Bundle.Digest)
			}
			losses := want["losses"]
			if first, last := losses[0], losses[len(losses)-1]; last > 0.9*first {
				t.Errorf("the reference's loss went from %.3f to %.3f alone", first, last)
			}
			start := map[string][]float32{}
			for _, p := range tuner.params {
				start[p.Name] = slices.Clone(p.values)
			}
			steps(t, tuner, trajectorySteps)
			for _, p := range tuner.params {
				e := tuningtest.Distance(p.values, want["end."+p.Name], start[p.Name])
				t.Logf("%-18s %.1e", p.Name, e)
				if !(e <= 1e-2) {
					t.Errorf("%s: ||dp - dp'|| / ||dp'|| is %.2e, at most 1e-2", p.Name, e)
				}
			}
		})
	}
}

// TestAWrongGradientLeavesTheTrajectory runs TestTrajectory with one gradient rule, softmax's,
// made 5 % too large. It has to fail.
func TestAWrongGradientLeavesTheTrajectory(t *testing.T) {
	tuningtest.FailsWithAWrongGradient(t, "../graph", "^TestTrajectory$", "at most 1e-2")
}

// named is a tensor to write.
type named struct {
	name   string
	tensor *graph.Tensor
}

// writeTrajectory writes what the reference needs for so many steps: start, batches, rates,
// classes, and more.
func writeTrajectory(t *testing.T, tuner *Tuner, path string, steps int, more ...named) {
	t.Helper()
	r := tuner.Recipe
	list := more
	for _, p := range tuner.params {
		list = append(list, named{"start." + p.Name, graph.NewTensor(slices.Clone(p.values), p.Tensor.Dims...)})
	}
	for name, v := range map[string]float64{"scale": float64(tuner.model.Scale.Value), "momentum": r.Optimizer.Momentum, "weight_decay": r.Optimizer.WeightDecay} {
		list = append(list, named{name, graph.NewTensor([]float64{v}, 1)})
	}
	if classes := tuner.objective.fixed["classes"]; classes != nil {
		list = append(list, named{"classes", classes})
	} else {
		list = append(list, named{"ids", tuner.objective.fixed[tuner.model.Texts.Info.IDs.Name]})
	}
	var rates []float64
	for ; tuner.step < steps; tuner.step++ {
		indexes, epoch := tuner.nextBatch()
		rows, err := tuner.features.Rows(t.Context(), indexes, epoch%tuner.features.Views)
		if err != nil {
			t.Fatal(err)
		}
		var labels []int64
		for _, i := range indexes {
			labels = append(labels, int64(tuner.data.Train[i].Class))
		}
		rates = append(rates, r.Schedule.Rate(r.Optimizer.LearningRate, epoch))
		list = append(list, named{fmt.Sprintf("batch.%04d.features", tuner.step), rows},
			named{fmt.Sprintf("batch.%04d.labels", tuner.step), graph.NewTensor(labels, int64(len(labels)))})
	}
	list = append(list, named{"rates", graph.NewTensor(rates, int64(len(rates)))})
	writeTensors(t, path, tuner.model.Bundle.Digest, list)
}

// entry is a tensor in a safetensors header.
type entry struct {
	Type    string   `json:"dtype"`
	Shape   []int64  `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
}

func writeTensors(t *testing.T, path, digest string, list []named) {
	t.Helper()
	header := map[string]any{"__metadata__": map[string]string{"digest": digest}}
	var data []byte
	for _, n := range list {
		b, err := n.tensor.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		kind := map[graph.DataType]string{graph.Float: "F32", graph.Double: "F64", graph.Int64: "I64"}[n.tensor.Type]
		header[n.name] = entry{kind, n.tensor.Dims, [2]int64{int64(len(data)), int64(len(data) + len(b))}}
		data = append(data, b...)
	}
	h, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(h))), h...)
	if err := os.WriteFile(path, append(file, data...), 0o644); err != nil {
		t.Fatal(err)
	}
}

// readTensors reads a safetensors file of 32-bit floats.
func readTensors(t *testing.T, path string) (tensors map[string][]float32, digest string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	size := binary.LittleEndian.Uint64(b)
	var header map[string]json.RawMessage
	if err := json.Unmarshal(b[8:8+size], &header); err != nil {
		t.Fatal(err)
	}
	tensors = map[string][]float32{}
	for name, raw := range header {
		var e entry
		var meta map[string]string
		if name == "__metadata__" {
			if err := json.Unmarshal(raw, &meta); err != nil {
				t.Fatal(err)
			}
			digest = meta["digest"]
			continue
		}
		if err := json.Unmarshal(raw, &e); err != nil || e.Type != "F32" {
			t.Fatal(name, e.Type, err)
		}
		values := make([]float32, (e.Offsets[1]-e.Offsets[0])/4)
		if _, err := binary.Decode(b[8+size:][e.Offsets[0]:e.Offsets[1]], binary.LittleEndian, values); err != nil {
			t.Fatal(err)
		}
		tensors[name] = values
	}
	return tensors, digest
}
