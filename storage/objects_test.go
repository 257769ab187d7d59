package storage

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/storage/storagetest"
)

func startEmbedded(t *testing.T, dir string) *Embedded {
	t.Helper()
	path, err := storagetest.Binary()
	if err != nil {
		t.Fatal(err)
	}
	e, err := StartEmbedded(t.Context(), EmbeddedConfig{Dir: dir, Binary: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// TestObjects is the conformance suite: against the embedded server, and against the S3 service
// that the AWS variables name, where they do.
func TestObjects(t *testing.T) {
	configs := map[string]S3Config{"embedded": startEmbedded(t, t.TempDir()).Config}
	if c, ok := S3ConfigFromEnv(); ok {
		configs["configured"] = c
	}
	for name, c := range configs {
		objs, err := OpenS3(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		prefix := fmt.Sprintf("conformance-%d/", time.Now().UnixNano())
		for what, test := range map[string]func(*testing.T, Objects, string){
			"what is put comes back":                 putAndGet,
			"a range is read":                        getRange,
			"a missing object is not found":          missing,
			"keys are listed in order":               list,
			"deleting is final and can repeat":       remove,
			"an upload that breaks off is not there": brokenUpload,
			"many writers do not mix":                concurrent,
			"a shared address is enough to read":     share,
		} {
			t.Run(name+"/"+what, func(t *testing.T) { test(t, objs, prefix+strings.ReplaceAll(what, " ", "-")+"/") })
		}
	}
}

func put(t *testing.T, objs Objects, key string, b []byte, size int64) ObjectInfo {
	t.Helper()
	info, err := objs.Put(t.Context(), key, bytes.NewReader(b), size, PutOptions{ContentType: "image/png"})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func get(t *testing.T, objs Objects, key string) ([]byte, ObjectInfo) {
	t.Helper()
	r, info, err := objs.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b, info
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	g := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(g.Uint32())
	}
	return b
}

func putAndGet(t *testing.T, objs Objects, prefix string) {
	for _, size := range []int{0, 1, 1000, partSize + 17} {
		for _, declared := range []int64{int64(size), -1} {
			key, want := fmt.Sprintf("%s%d %d ü", prefix, size, declared), randomBytes(size)
			put(t, objs, key, randomBytes(3), 3) // is replaced
			put(t, objs, key, want, declared)
			got, info := get(t, objs, key)
			if !bytes.Equal(got, want) || info.Size != int64(size) || info.ContentType != "image/png" {
				t.Errorf("%s: %d bytes came back as %d, info %+v", key, size, len(got), info)
			}
			if stat, err := objs.Stat(t.Context(), key); err != nil || stat.Size != int64(size) || time.Since(stat.Modified) > time.Hour {
				t.Errorf("Stat: %+v, %v", stat, err)
			}
		}
	}
}

func share(t *testing.T, objs Objects, prefix string) {
	want := randomBytes(1000)
	put(t, objs, prefix+"a picture.png", want, 1000)
	ask := func(change func(string) string) (int, []byte) {
		u, err := objs.Share(t.Context(), prefix+"a picture.png", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.Get(change(u))
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, b
	}
	if status, b := ask(func(u string) string { return u }); status != http.StatusOK || !bytes.Equal(b, want) {
		t.Errorf("%d, %d bytes", status, len(b))
	}
	if status, _ := ask(func(u string) string { return strings.Replace(u, "picture", "pictures", 1) }); status != http.StatusForbidden {
		t.Errorf("the address of another object: %d", status)
	}
}

func getRange(t *testing.T, objs Objects, prefix string) {
	b := randomBytes(1000)
	put(t, objs, prefix+"a", b, 1000)
	for _, r := range [][2]int64{{0, 1000}, {0, 1}, {999, 1}, {10, 0}, {500, 123}} {
		body, err := objs.GetRange(t.Context(), prefix+"a", r[0], r[1])
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		body.Close()
		if err != nil || !bytes.Equal(got, b[r[0]:r[0]+r[1]]) {
			t.Errorf("range %v: %d bytes, %v", r, len(got), err)
		}
	}
	for _, r := range [][2]int64{{-1, 1}, {0, -1}} {
		if _, err := objs.GetRange(t.Context(), prefix+"a", r[0], r[1]); errs.Of(err) != errs.Invalid {
			t.Errorf("range %v: %v, want an invalid one", r, err)
		}
	}
}

func missing(t *testing.T, objs Objects, prefix string) {
	if _, _, err := objs.Get(t.Context(), prefix+"none"); errs.Of(err) != errs.NotFound || !strings.Contains(err.Error(), prefix+"none") {
		t.Errorf("Get: %v", err)
	}
	if _, err := objs.Stat(t.Context(), prefix+"none"); errs.Of(err) != errs.NotFound {
		t.Errorf("Stat: %v", err)
	}
	body, err := objs.GetRange(t.Context(), prefix+"none", 0, 1)
	if err == nil {
		_, err = io.ReadAll(body)
	}
	if errs.Of(err) != errs.NotFound {
		t.Errorf("GetRange: %v", err)
	}
	for _, err := range objs.List(t.Context(), prefix+"none") {
		t.Errorf("List yields something: %v", err)
	}
}

func list(t *testing.T, objs Objects, prefix string) {
	want := []string{prefix + "a/1", prefix + "a/2", prefix + "b"}
	for _, key := range want {
		put(t, objs, key, []byte("x"), 1)
	}
	var got []string
	for info, err := range objs.List(t.Context(), prefix) {
		if err != nil || info.Size != 1 {
			t.Fatal(info, err)
		}
		got = append(got, info.Key)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for range objs.List(t.Context(), prefix) {
		break // stopping early leaves nothing behind
	}
}

func remove(t *testing.T, objs Objects, prefix string) {
	put(t, objs, prefix+"a", []byte("x"), 1)
	for range 2 {
		if err := objs.Delete(t.Context(), prefix+"a", prefix+"never"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := objs.Stat(t.Context(), prefix+"a"); errs.Of(err) != errs.NotFound {
		t.Errorf("it is still there: %v", err)
	}
}

// broken gives some bytes, then an error.
type broken struct{ left int }

func (b *broken) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errs.New(errs.TooLarge, "the sender gave up")
	}
	n := min(len(p), b.left)
	b.left -= n
	return n, nil
}

func brokenUpload(t *testing.T, objs Objects, prefix string) {
	for _, size := range []int64{-1, 3 * partSize} {
		_, err := objs.Put(t.Context(), prefix+"a", &broken{2 * partSize}, size, PutOptions{})
		if errs.Of(err) != errs.TooLarge {
			t.Errorf("size %d: %v, want the reader's error", size, err)
		}
		if _, err := objs.Stat(t.Context(), prefix+"a"); errs.Of(err) != errs.NotFound {
			t.Errorf("part of the object is there: %v", err)
		}
	}
}

func concurrent(t *testing.T, objs Objects, prefix string) {
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			key, want := fmt.Sprintf("%s%d", prefix, i), randomBytes(1000+i)
			put(t, objs, key, want, int64(len(want)))
			if got, _ := get(t, objs, key); !bytes.Equal(got, want) {
				t.Errorf("%s came back as something else", key)
			}
		})
	}
	wg.Wait()
}

func TestTheEmbeddedServer(t *testing.T) {
	dir := t.TempDir()
	first := startEmbedded(t, dir)
	objs, err := OpenS3(t.Context(), first.Config)
	if err != nil {
		t.Fatal(err)
	}
	put(t, objs, "kept", []byte("x"), 1)

	t.Run("refuses a second one on its folder", func(t *testing.T) {
		path, _ := storagetest.Binary()
		_, err := StartEmbedded(t.Context(), EmbeddedConfig{Dir: dir, Binary: path})
		if errs.Of(err) != errs.Unavailable || !strings.Contains(err.Error(), "in use by another") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("shares addresses under its public name", func(t *testing.T) {
		inside, err := url.Parse(first.Config.Endpoint)
		if err != nil {
			t.Fatal(err)
		}
		proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(inside)
			r.Out.Host = r.In.Host
		}})
		defer proxy.Close()
		c := first.Config
		c.Public = proxy.URL
		objs, err := OpenS3(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if u, err := objs.Share(t.Context(), "kept", time.Minute); err != nil || !strings.HasPrefix(u, proxy.URL+"/") {
			t.Errorf("%s, %v, want one of %s", u, err, proxy.URL)
		}
		share(t, objs, "public/")
		c.Public = proxy.URL + "/below"
		if _, err := OpenS3(t.Context(), c); errs.Of(err) != errs.Invalid {
			t.Errorf("a public name with a path: %v", err)
		}
	})
	t.Run("listens where it is told", func(t *testing.T) {
		free, err := freeAddress()
		if err != nil {
			t.Fatal(err)
		}
		path, _ := storagetest.Binary()
		e, err := StartEmbedded(t.Context(), EmbeddedConfig{Dir: t.TempDir(), Binary: path, Listen: strings.Replace(free, "127.0.0.1", "0.0.0.0", 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		if _, err := OpenS3(t.Context(), e.Config); err != nil || e.Config.Endpoint != "http://"+free {
			t.Errorf("at %s: %v, want %s", e.Config.Endpoint, err, free)
		}
		if _, err := StartEmbedded(t.Context(), EmbeddedConfig{Dir: t.TempDir(), Binary: path, Listen: "9000"}); errs.Of(err) != errs.Invalid {
			t.Errorf("a port alone: %v", err)
		}
	})
	t.Run("refuses other keys", func(t *testing.T) {
		c := first.Config
		c.SecretKey = "wrong"
		if _, err := OpenS3(t.Context(), c); err == nil {
			t.Error("a wrong key opens it")
		}
	})
	t.Run("keeps its keys from others", func(t *testing.T) {
		info, err := os.Stat(filepath.Join(dir, "keys.json"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v, want 0600", info.Mode(), err)
		}
	})
	t.Run("ends when its input closes, and keeps objects and keys", func(t *testing.T) {
		first.Close()
		select {
		case <-first.Exited():
		case <-time.After(20 * time.Second):
			t.Fatal("it runs on")
		}
		again := startEmbedded(t, dir)
		objs, err := OpenS3(t.Context(), again.Config)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := get(t, objs, "kept"); string(got) != "x" || again.Config.SecretKey != first.Config.SecretKey {
			t.Error("objects or keys are gone")
		}
	})
}

// TestTheEmbeddedServerEndsWithItsParent kills a process that started one.
func TestTheEmbeddedServerEndsWithItsParent(t *testing.T) {
	if dir := os.Getenv("FORETOKEN_TEST_PARENT"); dir != "" {
		e := startEmbedded(t, dir)
		fmt.Println("pid", e.command.Process.Pid)
		time.Sleep(time.Minute)
		return
	}
	parent := exec.Command(os.Args[0], "-test.run=^TestTheEmbeddedServerEndsWithItsParent$", "-test.v")
	path, err := storagetest.Binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	parent.Env = append(os.Environ(), "FORETOKEN_TEST_PARENT="+dir, "FORETOKEN_S3_BIN="+path)
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for seen := ""; !strings.Contains(seen, "pid "); {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatal(seen, err)
		}
		seen += string(buf[:n])
	}
	parent.Process.Kill()
	parent.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for ctx.Err() == nil { // the lock is free again when the child has ended
		if e, err := StartEmbedded(ctx, EmbeddedConfig{Dir: dir, Binary: path}); err == nil {
			e.Close()
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Error("the child outlives its parent")
}

func TestOpeningAStoreThatIsNotThere(t *testing.T) {
	for name, c := range map[string]struct {
		endpoint string
		want     errs.Kind
	}{
		"no URL":            {"s3", errs.Invalid},
		"nobody listening":  {"http://127.0.0.1:1", errs.Unavailable},
		"an unknown scheme": {"ftp://127.0.0.1", errs.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if _, err := OpenS3(ctx, S3Config{Endpoint: c.endpoint, Bucket: "bucket", AccessKey: "a", SecretKey: "s"}); errs.Of(err) != c.want {
				t.Errorf("got %v, want kind %s", err, c.want)
			}
		})
	}
}
