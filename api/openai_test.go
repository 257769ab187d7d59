package api

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

func routesOf(c Config) gin.RoutesInfo { return New(c).(*gin.Engine).Routes() }

// slipZip is a zip with an entry that leads out of the folder.
func slipZip(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	w := must(z.Create("../../etc/cron.d/x.png"))(t)
	w.Write([]byte("x"))
	check(t, z.Close())
	return out.Bytes()
}

// TestOpenAIsOwnClient speaks to the service through OpenAI's client for Go.
func TestOpenAIsOwnClient(t *testing.T) {
	s := start(t, nil)
	s.upload(t, "emoji", demoZip(t, "openmoji", 2, 1))
	s.tune(t, "emoji", "maple", "p")
	client := openai.NewClient(option.WithBaseURL(s.URL+"/v1"), option.WithAPIKey(s.key), option.WithMaxRetries(0))
	ctx := t.Context()

	models := must(client.Models.List(ctx))(t)
	if len(models.Data) != 2 || models.Data[0].ID != "starter" || models.Data[1].ID != "p" || models.Data[1].OwnedBy != "starter" {
		t.Errorf("models %+v", models.Data)
	}
	if m := must(client.Models.Get(ctx, "p"))(t); m.ID != "p" {
		t.Errorf("model %+v", m)
	}
	embed := func(p openai.EmbeddingNewParams) *openai.CreateEmbeddingResponse {
		return must(client.Embeddings.New(ctx, p))(t)
	}
	one := embed(openai.EmbeddingNewParams{Model: "p", Input: openai.EmbeddingNewParamsInputUnion{OfString: openai.String("a cat")}})
	two := embed(openai.EmbeddingNewParams{Model: "p", Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{dataURL(t), "a cat"}}})
	if len(two.Data) != 2 || two.Data[1].Index != 1 || one.Usage.PromptTokens < 3 || two.Usage.TotalTokens <= one.Usage.TotalTokens {
		t.Errorf("usage %+v and %+v, %d embeddings", one.Usage, two.Usage, len(two.Data))
	}
	for _, e := range append(one.Data, two.Data...) {
		if n := length(e.Embedding); math.Abs(n-1) > 1e-5 {
			t.Errorf("a vector of length %g", n)
		}
	}
	if d := difference(one.Data[0].Embedding, two.Data[1].Embedding); d > 1e-5 {
		t.Errorf("the same text differs by %g", d)
	}
	plain := embed(openai.EmbeddingNewParams{Model: "starter", Input: openai.EmbeddingNewParamsInputUnion{OfString: openai.String("a cat")}})
	if difference(one.Data[0].Embedding, plain.Data[0].Embedding) < 1e-3 {
		t.Error("the prompt changes nothing")
	}
	for name, p := range map[string]openai.EmbeddingNewParams{
		"dimensions":   {Model: "p", Input: openai.EmbeddingNewParamsInputUnion{OfString: openai.String("a")}, Dimensions: openai.Int(8)},
		"token arrays": {Model: "p", Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfTokens: []int64{1, 2}}},
		"empty string": {Model: "p", Input: openai.EmbeddingNewParamsInputUnion{OfString: openai.String("")}},
	} {
		_, err := client.Embeddings.New(ctx, p)
		if e := (*openai.Error)(nil); !errors.As(err, &e) || e.StatusCode != 400 || !strings.Contains(e.Message, name) || e.Type != "invalid_request_error" {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := client.Embeddings.New(ctx, openai.EmbeddingNewParams{Model: "none", Input: openai.EmbeddingNewParamsInputUnion{OfString: openai.String("a")}})
	if e := (*openai.Error)(nil); !errors.As(err, &e) || e.StatusCode != 404 {
		t.Errorf("an unknown model: %v", err)
	}
}

// TestBase64IsLittleEndianFloats compares the two encodings.
func TestBase64IsLittleEndianFloats(t *testing.T) {
	s := start(t, nil)
	var floats struct {
		Data []struct{ Embedding []float64 }
	}
	var packed struct{ Data []struct{ Embedding string } }
	s.post(t, "/v1/embeddings", map[string]any{"model": "starter", "input": "a cat"}, 200, &floats)
	s.post(t, "/v1/embeddings", map[string]any{"model": "starter", "input": "a cat", "encoding_format": "base64"}, 200, &packed)
	b := must(base64.StdEncoding.DecodeString(packed.Data[0].Embedding))(t)
	values := make([]float32, len(b)/4)
	must(binary.Decode(b, binary.LittleEndian, values))(t)
	for i, v := range values {
		if float32(floats.Data[0].Embedding[i]) != v {
			t.Fatalf("number %d is %g and %g", i, floats.Data[0].Embedding[i], v)
		}
	}
}

func length(v []float64) float64 { return math.Sqrt(difference2(v, make([]float64, len(v)))) }

func difference2(a, b []float64) (sum float64) {
	for i := range a {
		sum += (a[i] - b[i]) * (a[i] - b[i])
	}
	return sum
}

func difference(a, b []float64) (most float64) {
	for i := range a {
		most = max(most, math.Abs(a[i]-b[i]))
	}
	return most
}
