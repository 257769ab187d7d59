package run

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/foretoken/foretoken/dataset"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/starter"
	"github.com/foretoken/foretoken/storage"
	"github.com/foretoken/foretoken/tuning"
	"github.com/foretoken/foretoken/tuning/inversion"
)

// TestAConceptIsARun learns a word from the demo's five pictures in slices, with the dual encoder as judge.
func TestAConceptIsARun(t *testing.T) {
	s := newService(t)
	b := addBundle(t, s, "painter", "../../starter/painter")
	zip, err := starter.Demo.ReadFile("demo/concept.zip")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Objects.Put(t.Context(), "uploads/concept.zip", bytes.NewReader(zip), int64(len(zip)), storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	v, err := dataset.ImportZip(t.Context(), s.Objects, "uploads/concept.zip", dataset.ImportOptions{ID: "concept", Check: check})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Catalog.AddVersion(t.Context(), storage.DatasetVersion{Name: v.ID, Version: v.Digest, Images: len(v.Items), Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	r, err := tuning.BuiltIn("textual-inversion-starter")
	if err != nil {
		t.Fatal(err)
	}
	r.Batch, r.Inversion.Steps, r.Inversion.HeldOut = 2, 3, 2
	r.Inversion.Scenes, r.Inversion.Pictures = []string{"a flat drawing of {}"}, 1
	sp := Spec{Dataset: "concept", Bundle: "painter", Recipe: r, Prompt: "mug"}
	s.SliceSteps = 2
	start(t, s)
	done := wait(t, s, create(t, s, sp).ID)
	if done.State != storage.Done || done.Step != 3 || done.Slice < 2 || done.Prompt != "mug" {
		t.Fatalf("got %+v", done)
	}
	var m inversion.Metrics
	if err := json.Unmarshal(done.Metrics, &m); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{inversion.DenoisingLoss, inversion.CLIPScore, inversion.Identity} {
		if m.ZeroShot.Others[name] == 0 || m.Tuned.Others[name] == 0 {
			t.Errorf("no %s: %s", name, done.Metrics)
		}
	}
	_, p := stored(t, s, "mug")
	if p.Card.Kind != prompt.Concept || p.Card.Token != "<concept>" || p.CheckBundle(b.Digest) != nil {
		t.Errorf("card %+v", p.Card)
	}

	sp.HoldOut = true
	if _, err := s.Create(t.Context(), sp); errs.Of(err) != errs.Invalid {
		t.Errorf("classes are held out: %v", err)
	}
}
