package graph

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestDetectionAgreesWithTheExporter compares what is found in the graph with the tensors
// that the fixtures' makers hooked in PyTorch.
func TestDetectionAgreesWithTheExporter(t *testing.T) {
	dirs, _ := filepath.Glob(filepath.Join(fixturesDir(), "*"))
	for _, dir := range dirs {
		var meta struct {
			Kind      string
			Output    string
			Class     int        `json:"class_tokens"`
			Insert    []string   `json:"insert_tensor"`
			Embedding []string   `json:"token_embedding_tensor"`
			Blocks    [][]string `json:"block_inputs"`
		}
		b, err := os.ReadFile(filepath.Join(dir, "meta.json"))
		if err != nil {
			continue
		}
		t.Run(filepath.Base(dir), func(t *testing.T) {
			if err := json.Unmarshal(b, &meta); err != nil {
				t.Fatal(err)
			}
			g, err := Load(filepath.Join(dir, "model.onnx"))
			if err != nil {
				t.Fatal(err)
			}
			switch meta.Kind {
			case "vision":
				tower, err := FindImageTower(g, meta.Output)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Contains(meta.Insert, tower.Insert.Name) || tower.ClassTokens != meta.Class {
					t.Errorf("insertion at %q with %d class tokens, want %q with %d", tower.Insert.Name, tower.ClassTokens, meta.Insert, meta.Class)
				}
				checkBlocks(t, tower.Blocks, meta.Blocks)
			case "text":
				tower, err := FindTextTower(g, meta.Output)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Contains(meta.Embedding, tower.Embedding.Name) {
					t.Errorf("embedding at %q, want %q", tower.Embedding.Name, meta.Embedding)
				}
				checkBlocks(t, tower.Blocks, meta.Blocks)
			}
		})
	}
}

func checkBlocks(t *testing.T, got []*Value, want [][]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d blocks, want %d", len(got), len(want))
	}
	for i, v := range got {
		if !slices.Contains(want[i], v.Name) {
			t.Errorf("block %d begins at %q, want %q", i, v.Name, want[i])
		}
	}
}

func fixturesDir() string {
	if dir := os.Getenv("FORETOKEN_FIXTURES"); dir != "" {
		return dir
	}
	return filepath.Join("testdata", "fixtures")
}
