package prompt

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// ofKind is a prompt of a kind with the given tensors.
func ofKind(k Kind, tensors map[string]*graph.Tensor) *Prompt {
	return &Prompt{Card: Card{Kind: k, Method: "m", Bundle: BundleRef{"painter", digest}, Token: "<mug>"}, Tensors: tensors}
}

func unplaced(p *Prompt) *Prompt {
	p.Card.Unplaced = true
	return p
}

func TestPromptsOfAllKindsComeBack(t *testing.T) {
	type tensors = map[string]*graph.Tensor
	tests := []struct {
		name          string
		p             *Prompt
		first, second int // widths
	}{
		{"a prefix", ofKind(Caption, tensors{"prefix": floats(4, 8)}), 0, 0},
		{"keys and values", ofKind(Caption, tensors{"keys": floats(2, 4, 3, 8), "values": floats(2, 4, 3, 8)}), 0, 0},
		{"keys and values that take no places", unplaced(ofKind(Caption, tensors{"keys": floats(2, 4, 3, 8), "values": floats(2, 4, 3, 8)})), 0, 0},
		{"a mapped prefix", ofKind(Caption, tensors{"map.0.weight": floats(5, 8), "map.0.bias": floats(5), "map.1.weight": floats(6, 5)}), 0, 0},
		{"image tokens of a captioner", ofKind(Caption, tensors{"visual": floats(2, 3, 8)}), 0, 0},
		{"a concept", ofKind(Concept, tensors{"embedding": floats(3, 8)}), 8, 0},
		{"a concept of two encoders", ofKind(Concept, tensors{"embedding": floats(3, 8), "embedding_2": floats(3, 10)}), 8, 10},
		{"a style", ofKind(Style, tensors{"context": floats(3, 8)}), 8, 0},
		{"a negative prompt", ofKind(Negative, tensors{"negative": floats(3, 8), "negative_2": floats(3, 9)}), 8, 9},
		{"a classifier", ofKind(Classifier, tensors{"context": floats(3, 8)}), 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ReadBytes(encode(t, tt.p))
			if err != nil {
				t.Fatal(err)
			}
			if got.Card.Kind != tt.p.Card.Kind || got.Card.Token != "<mug>" || len(got.Tensors) != len(tt.p.Tensors) {
				t.Errorf("came back as %s %q with %d tensors", got.Card.Kind, got.Card.Token, len(got.Tensors))
			}
			if first, second := got.Widths(); first != tt.first || second != tt.second {
				t.Errorf("widths %d and %d, want %d and %d", first, second, tt.first, tt.second)
			}
		})
	}
}

func TestPromptsThatAreNotOfTheirKindAreRefused(t *testing.T) {
	type tensors = map[string]*graph.Tensor
	token := func(s string) *Prompt {
		p := ofKind(Concept, tensors{"embedding": floats(1, 8)})
		p.Card.Token = s
		return p
	}
	tests := []struct {
		name string
		p    *Prompt
		kind errs.Kind
		says string
	}{
		{"an unknown kind", ofKind("lora", nil), errs.Unsupported, "update foretoken"},
		{"a caption prompt of nothing", ofKind(Caption, tensors{"other": floats(1)}), errs.Invalid, "none of prefix"},
		{"a flat prefix", ofKind(Caption, tensors{"prefix": floats(8)}), errs.Invalid, "rank [2]"},
		{"keys without values", ofKind(Caption, tensors{"keys": floats(2, 4, 3, 8), "prefix": floats(1, 8)}), errs.Invalid, "takes both"},
		{"keys and values that differ", ofKind(Caption, tensors{"keys": floats(2, 4, 3, 8), "values": floats(2, 4, 2, 8)}), errs.Invalid, "first 4 axes"},
		{"a prefix that takes no places", unplaced(ofKind(Caption, tensors{"prefix": floats(1, 8)})), errs.Invalid, "unplaced"},
		{"a map's bias alone", ofKind(Caption, tensors{"map.0.bias": floats(5), "prefix": floats(1, 8)}), errs.Invalid, "map.0.weight"},
		{"a map's bias of another length", ofKind(Caption, tensors{"map.0.bias": floats(5), "map.0.weight": floats(4, 5)}), errs.Invalid, "map.0.weight"},
		{"a concept without rows", ofKind(Concept, tensors{"context": floats(1, 8)}), errs.Invalid, `"embedding"`},
		{"a whole-numbered concept", ofKind(Concept, tensors{"embedding": graph.NewTensor([]int64{1}, 1, 1)}), errs.Invalid, "float tensor"},
		{"a concept of 2 and 3 rows", ofKind(Concept, tensors{"embedding": floats(2, 8), "embedding_2": floats(3, 8)}), errs.Invalid, "first 1 axes"},
		{"a style of class-specific context", ofKind(Style, tensors{"context": floats(2, 3, 8)}), errs.Invalid, "rank [2]"},
		{"a negative prompt without rows", ofKind(Negative, nil), errs.Invalid, `"negative"`},
		{"a concept without a token", token(""), errs.Invalid, "placeholder"},
		{"a token of two words", token("a mug"), errs.Invalid, "placeholder"},
		{"a token with a control", token("mug\x00"), errs.Invalid, "placeholder"},
		{"a token that is not UTF-8", token("\xff"), errs.Invalid, "placeholder"},
		{"a long token", token(strings.Repeat("m", 65)), errs.Invalid, "placeholder"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			err := Write(&b, tt.p)
			if errs.Of(err) != tt.kind || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want %v saying %q", err, tt.kind, tt.says)
			}
		})
	}
}

func TestACardsKindIsReadByName(t *testing.T) {
	var c Card
	if err := json.Unmarshal([]byte(`{"kind":"classifier"}`), &c); err != nil || c.Kind != Classifier {
		t.Errorf("classifier is read as %q, %v", string(c.Kind), err)
	}
	if err := json.Unmarshal([]byte(`{"kind":"concept"}`), &c); err != nil || c.Kind != Concept {
		t.Errorf("concept is read as %q, %v", string(c.Kind), err)
	}
	_, err := ReadBytes(withCard(`{"format":1,"kind":"adapter","bundle":{"digest":"` + digest + `"}}`))
	if errs.Of(err) != errs.Unsupported || !strings.Contains(errors.Unwrap(err).Error(), `"adapter"`) {
		t.Errorf("an unknown kind: %v", err)
	}
}
