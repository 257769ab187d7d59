package main

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/starter"
	"github.com/foretoken/foretoken/storage/storagetest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"foretoken": main})
}

// TestScripts runs the transcripts of testdata/script: what a person types and sees.
func TestScripts(t *testing.T) {
	s3, err := storagetest.Binary()
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	library := os.Getenv("FORETOKEN_ORT_LIB")
	if library == "" {
		library = filepath.Join(root, ".cache", "ort", "libonnxruntime.so")
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("FORETOKEN_S3_BIN", s3)
			env.Setenv("FORETOKEN_ORT_LIB", library)
			env.Setenv("STARTER", filepath.Join(root, "starter", "bundle"))
			env.Setenv("FIXTURES", filepath.Join(root, "graph", "testdata", "fixtures"))
			env.Setenv("EMBEDS", filepath.Join(root, "prompt", "embeds", "testdata"))
			if err := errors.Join(writeConcept(filepath.Join(env.WorkDir, "mug.safetensors")), writeCaptioned(filepath.Join(env.WorkDir, "german"))); err != nil {
				return err
			}
			for to, from := range map[string]string{
				"openmoji.zip": "openmoji.zip", "concept.zip": "concept.zip", "fashion_bag.png": "samples/fashion_bag.png",
				"pets/cat/1.png": "samples/openmoji_animal_mammal.png", "pets/bag/1.png": "samples/fashion_bag.png",
			} {
				b, err := starter.Demo.ReadFile("demo/" + from)
				if err != nil {
					return err
				}
				to = filepath.Join(env.WorkDir, to)
				if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), os.WriteFile(to, b, 0o600)); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"server": server},
	})
}

// writeConcept writes a textual-inversion file of two rows for the starter's painter.
func writeConcept(file string) error {
	var b bytes.Buffer
	rows := graph.NewTensor(make([]float32, 2*256), 2, 256)
	if err := prompt.WriteTensors(&b, map[string]*graph.Tensor{"<mug>": rows}); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o600)
}

// writeCaptioned writes a few pictures of the demo's captions into a folder; the scripts say what they show.
func writeCaptioned(dir string) error {
	b, err := starter.Demo.ReadFile("demo/captions.zip")
	if err != nil {
		return err
	}
	files, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return err
	}
	for _, name := range []string{"train/000.png", "train/001.png", "train/002.png", "train/003.png", "test/000.png", "test/001.png"} {
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), os.WriteFile(to, b, 0o600)); err != nil {
			return err
		}
	}
	return nil
}

// server starts `foretoken serve` on a free port and sets FORETOKEN_URL and FORETOKEN_API_KEY to
// what it prints; the script's end ends it.
func server(ts *testscript.TestScript, _ bool, _ []string) {
	out := ts.MkAbs("server.out")
	f, err := os.Create(out)
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	binary, err := exec.LookPath(filepath.Join(filepath.SplitList(ts.Getenv("PATH"))[0], "foretoken"))
	ts.Check(err)
	cmd := exec.CommandContext(ctx, binary, "serve", "--data", ts.MkAbs("data"), "--listen", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "FORETOKEN_S3_BIN="+ts.Getenv("FORETOKEN_S3_BIN"), "FORETOKEN_ORT_LIB="+ts.Getenv("FORETOKEN_ORT_LIB"))
	cmd.Stdout, cmd.Stderr = f, f
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	ts.Check(cmd.Start())
	ts.Defer(func() {
		cancel()
		if err := cmd.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			ts.Logf("serve: %v", err)
		}
		f.Close()
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		b, err := os.ReadFile(out)
		ts.Check(err)
		url, key := after(string(b), "listening on "), after(string(b), "shown once: ")
		if url != "" && key != "" {
			ts.Setenv("FORETOKEN_URL", url)
			ts.Setenv("FORETOKEN_API_KEY", key)
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("the server does not start:\n%s", b)
		}
	}
}

// after is what follows a text on its line.
func after(s, text string) string {
	_, rest, found := strings.Cut(s, text)
	line, _, complete := strings.Cut(rest, "\n")
	if !found || !complete {
		return ""
	}
	return line
}
