package storage

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/foretoken/foretoken/internal/errs"
)

// EmbeddedConfig says where the embedded object store keeps its files.
type EmbeddedConfig struct {
	Dir    string
	Binary string    // "" looks for it: FORETOKEN_S3_BIN, else foretoken-s3 beside the executable
	Listen string    // "" takes a free port of the loopback interface
	Log    io.Writer // what the child prints; nil for nowhere
}

// Embedded is an S3 service in a child process, for when no other is configured.
type Embedded struct {
	Config  S3Config
	command *exec.Cmd
	stdin   io.Closer
	exited  chan struct{}
	tail    *tail
}

// startTime is how long the child may take until it answers.
const startTime = 20 * time.Second

// StartEmbedded starts the child and waits until it answers. Its keys are made on first use and
// kept in keys.json of the folder, readable by the owner alone. The child ends with this process.
func StartEmbedded(ctx context.Context, c EmbeddedConfig) (*Embedded, error) {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, err
	}
	binary, err := embeddedBinary(c.Binary)
	if err != nil {
		return nil, err
	}
	keys, err := embeddedKeys(filepath.Join(dir, "keys.json"))
	if err != nil {
		return nil, err
	}
	listen := c.Listen
	if listen == "" {
		if listen, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	address, err := reach(listen)
	if err != nil {
		return nil, err
	}
	e := &Embedded{exited: make(chan struct{}), tail: &tail{}}
	e.Config = S3Config{Endpoint: "http://" + address, Region: "us-east-1", Bucket: defaultBucket, AccessKey: keys.AccessKey, SecretKey: keys.SecretKey}
	if err := e.start(binary, dir, listen, keys, c.Log); err != nil {
		return nil, err
	}
	if err := e.ready(ctx); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

func embeddedBinary(path string) (string, error) {
	if path == "" {
		path = os.Getenv("FORETOKEN_S3_BIN")
	}
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", err
		}
		path = filepath.Join(filepath.Dir(self), "foretoken-s3")
	}
	if _, err := os.Stat(path); err != nil {
		return "", errs.New(errs.Unavailable, "the embedded S3 server is missing (%w): run `make build`, name it in FORETOKEN_S3_BIN, or set AWS_ENDPOINT_URL_S3 and keys of another S3 service", err)
	}
	return path, nil
}

type embeddedKey struct {
	AccessKey string `json:"access_key"`
	SecretKey string `json:"secret_key"`
}

// embeddedKeys reads the keys, or makes them where there are none.
func embeddedKeys(path string) (embeddedKey, error) {
	var k embeddedKey
	b, err := os.ReadFile(path)
	if err == nil {
		if err := json.Unmarshal(b, &k); err != nil || k.AccessKey == "" || k.SecretKey == "" {
			return k, errs.New(errs.Invalid, "%s holds no keys (%w): delete it to have new ones made", path, err)
		}
		return k, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	k = embeddedKey{"FT" + rand.Text()[:18], rand.Text() + rand.Text()[:14]}
	if b, err = json.Marshal(k); err != nil {
		return k, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return k, err
	}
	return k, os.WriteFile(path, b, 0o600)
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// reach is the address at which this machine reaches what listens.
func reach(listen string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", errs.New(errs.Invalid, "the embedded S3 server can't listen on %q: must be HOST:PORT, as 0.0.0.0:9000", listen)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

func (e *Embedded) start(binary, dir, listen string, k embeddedKey, log io.Writer) error {
	e.command = exec.Command(binary, "-dir", dir, "-listen", listen)
	e.command.Env = []string{"HOME=" + os.Getenv("HOME"), "PATH=" + os.Getenv("PATH")}
	var out io.Writer = e.tail
	if log != nil {
		out = io.MultiWriter(e.tail, log)
	}
	e.command.Stdout, e.command.Stderr = out, out
	stdin, err := e.command.StdinPipe()
	if err != nil {
		return err
	}
	if err := e.command.Start(); err != nil {
		return errs.New(errs.Unavailable, "starting the embedded S3 server %s: %w", binary, err)
	}
	go func() {
		_ = e.command.Wait() // how it ended is in the tail
		close(e.exited)
	}()
	line, err := json.Marshal(k)
	if err != nil {
		return err
	}
	e.stdin = stdin
	_, err = fmt.Fprintf(stdin, "%s\n", line)
	return err
}

// ready waits until the child accepts connections.
func (e *Embedded) ready(ctx context.Context) error {
	deadline := time.After(startTime)
	address := e.Config.Endpoint[len("http://"):]
	for {
		if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			conn.Close()
			return nil
		}
		select {
		case <-e.exited:
			return errs.New(errs.Unavailable, "the embedded S3 server ended at once: %s", e.tail)
		case <-deadline:
			return errs.New(errs.Unavailable, "the embedded S3 server did not answer on %s within %s: %s", address, startTime, e.tail)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Exited is closed when the child has ended.
func (e *Embedded) Exited() <-chan struct{} { return e.exited }

// Close ends the child and waits for it.
func (e *Embedded) Close() error {
	e.stdin.Close()
	select {
	case <-e.exited:
		return nil
	case <-time.After(10 * time.Second):
		return e.command.Process.Kill()
	}
}

// tail keeps the last of what the child printed, for error messages.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(b []byte) (int, error) {
	const most = 4096
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	t.buf = t.buf[max(0, len(t.buf)-most):]
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.buf))
}
