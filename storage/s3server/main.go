// Command foretoken-s3 is the embedded object store: versitygw's S3 gateway over a folder. It is
// a child process of foretoken, in a module of its own, so that its hundreds of modules stay out
// of the service's. It ends when its standard input closes or its parent dies.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

func main() {
	dir := flag.String("dir", "", "folder that holds the objects")
	listen := flag.String("listen", "127.0.0.1:9000", "address to listen on")
	flag.Parse()
	if err := run(*dir, *listen); err != nil {
		fmt.Fprintln(os.Stderr, "foretoken-s3:", err)
		os.Exit(1)
	}
}

// keys are the credentials that the parent hands over on the first line of standard input.
type keys struct {
	AccessKey string `json:"access_key"`
	SecretKey string `json:"secret_key"`
}

func run(dir, listen string) error {
	in := bufio.NewReader(os.Stdin)
	k, err := readKeys(in)
	if err != nil {
		return err
	}
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	go endWithParent(in, cancel)
	return serve(ctx, dir, listen, k)
}

// endWithParent calls end when standard input closes, as it does when the parent ends, or when
// this process has another parent, should something else hold the pipe open.
func endWithParent(in io.Reader, end func()) {
	defer end()
	closed := make(chan struct{})
	go func() {
		io.Copy(io.Discard, in)
		close(closed)
	}()
	parent := os.Getppid()
	for os.Getppid() == parent {
		select {
		case <-closed:
			return
		case <-time.After(time.Second):
		}
	}
}

func readKeys(in *bufio.Reader) (keys, error) {
	var k keys
	line, err := in.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &k)
	}
	if err != nil || k.AccessKey == "" || k.SecretKey == "" {
		return k, fmt.Errorf(`expected {"access_key":..., "secret_key":...} as the first line of standard input (%w): start me through foretoken`, err)
	}
	return k, nil
}

// lock takes the folder for this process; the lock goes when the process ends, however it does.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("folder %s is in use by another foretoken-s3: end that one, or choose another folder (%w)", dir, err)
	}
	return func() { f.Close() }, nil
}

// serve runs the gateway until ctx ends. Metadata lies in files beside the objects, because not
// every file system has extended attributes.
func serve(ctx context.Context, dir, listen string, k keys) error {
	objects, sidecar := filepath.Join(dir, "objects"), filepath.Join(dir, "metadata")
	for _, d := range []string{objects, sidecar} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	store, err := meta.NewSideCar(sidecar)
	if err != nil {
		return err
	}
	be, err := posix.New(objects, store, posix.PosixOpts{SideCarDir: sidecar, NewDirPerm: 0o700, NewFilePerm: 0o600, CopyObjectThreshold: 5 << 30})
	if err != nil {
		return err
	}
	err = embedgw.RunVersityGW(ctx, be, &embedgw.Config{
		RootUserAccess: k.AccessKey, RootUserSecret: k.SecretKey, Region: "us-east-1",
		Ports: []string{listen}, MaxConnections: 1024, MaxRequests: 512, MultipartMaxParts: 10_000, Quiet: true, KeepAlive: true,
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
