package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/foretoken/foretoken/api"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/fetch"
	"github.com/foretoken/foretoken/storage"
)

// dataFlag adds --data, the folder of the stores.
func dataFlag(cmd *cobra.Command, dir *string) {
	def := os.Getenv("FORETOKEN_DATA")
	if def == "" {
		def = "data"
	}
	cmd.Flags().StringVar(dir, "data", def, "folder of catalogue, embedded S3 and bundles (FORETOKEN_DATA)")
}

const defaultListen = "127.0.0.1:8080"

func newServe() *cobra.Command {
	var dir, listen string
	var hosts, networks []string
	limits := api.Config{}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the API and the page, and work on runs",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if limits.Fetch, err = newFetcher(hosts, networks); err != nil {
				return err
			}
			a, err := openWorker(cmd.Context(), dir, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer a.Close()
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return errs.New(errs.Unavailable, "listening on %s: %w; choose another address with --listen", listen, err)
			}
			if err := a.announce(cmd.Context(), cmd.OutOrStdout(), l.Addr().String()); err != nil {
				return err
			}
			limits.Log = cmd.ErrOrStderr()
			return a.serve(cmd.Context(), l, limits)
		},
	}
	dataFlag(cmd, &dir)
	cmd.Flags().StringVar(&listen, "listen", defaultListen, "address; other machines reach it only where this says so, for example 0.0.0.0:8080")
	cmd.Flags().Int64Var(&limits.MaxUpload, "max-upload", 20<<30, "most bytes of an uploaded zip")
	cmd.Flags().StringSliceVar(&hosts, "fetch", nil, "hosts to fetch images from that requests name by address, each [SCHEME://]HOST[:PORT]: a name, *.NAME or * (default none; https unless SCHEME says http)")
	cmd.Flags().StringSliceVar(&networks, "fetch-networks", nil, "networks that these hosts may be in beside the public internet, as 10.1.0.0/16 (default none)")
	return cmd
}

// newFetcher makes what fetches images from other hosts; nil where there are no hosts.
func newFetcher(hosts, networks []string) (*fetch.Fetcher, error) {
	if len(hosts) == 0 {
		if len(networks) > 0 {
			return nil, errs.New(errs.Invalid, "--fetch-networks %s: without --fetch nothing is fetched: say from which hosts", strings.Join(networks, ","))
		}
		return nil, nil
	}
	return fetch.New(fetch.Config{Hosts: hosts, Networks: networks})
}

// openWorker opens the data folder and begins to work on runs.
func openWorker(ctx context.Context, dir string, log io.Writer) (*app, error) {
	a, err := openApp(ctx, dir, log)
	if err != nil {
		return nil, err
	}
	if err := a.work(ctx); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

// announce prints the address and, at the first start, the first API key.
func (a *app) announce(ctx context.Context, w io.Writer, address string) error {
	fmt.Fprintf(w, "listening on http://%s\n", address)
	keys, err := a.catalog.Keys(ctx)
	if err != nil || len(keys) > 0 {
		return err
	}
	_, key, err := api.NewKey(ctx, a.catalog, "first")
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "API key, shown once: %s\nthe page, with that key: http://%s/#key=%s\n", key, address, key)
	return nil
}

// serve answers requests until ctx ends; those under way may finish. c has the log, what is fetched, and limits.
func (a *app) serve(ctx context.Context, l net.Listener, c api.Config) error {
	c.Catalog, c.Objects, c.Models, c.Runs, c.Engine, c.Registry, c.Version = a.catalog, a.objects, a.models, a.runs, a.engine, a.registry, version
	server := &http.Server{
		Handler:           api.New(c),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		server.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func newWorker() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Work on queued runs without serving, while no server has the data folder open",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := openWorker(cmd.Context(), dir, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer a.Close()
			fmt.Fprintln(cmd.OutOrStdout(), "working; end with Ctrl-C")
			<-cmd.Context().Done()
			return nil
		},
	}
	dataFlag(cmd, &dir)
	return cmd
}

func newStorage() *cobra.Command {
	cmd := &cobra.Command{Use: "storage", Short: "Look after the object store, while no server has the data folder open"}
	var dir string
	var grace time.Duration
	gc := &cobra.Command{
		Use:   "gc",
		Short: "Delete objects that nothing names any more",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := openApp(cmd.Context(), dir, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer a.Close()
			return a.collect(cmd.Context(), cmd.OutOrStdout(), grace)
		},
	}
	dataFlag(gc, &dir)
	gc.Flags().DurationVar(&grace, "older-than", 24*time.Hour, "leave younger objects: an upload may be under way")
	cmd.AddCommand(gc)
	return cmd
}

// collect deletes uploads, checkpoints, prompts, manifests and images that no row leads to.
func (a *app) collect(ctx context.Context, w io.Writer, grace time.Duration) error {
	used, err := a.used(ctx)
	if err != nil {
		return err
	}
	var count int
	var bytes int64
	for _, prefix := range []string{"uploads/", "runs/", "prompts/", "datasets/", "blobs/", "images/"} {
		deleted, err := storage.Collect(ctx, a.objects, prefix, func(key string) bool { return used[key] }, grace, time.Now())
		for _, o := range deleted {
			count, bytes = count+1, bytes+o.Size
		}
		if err != nil {
			return err
		}
	}
	fmt.Fprintf(w, "deleted %d objects, %d bytes\n", count, bytes)
	return nil
}
