// Package api is the HTTP service: native resources under /v1, the routes that OpenAI's clients
// use, and the page. It translates; what things mean is for the rooms below it.
package api

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/foretoken/foretoken/internal/fetch"
	"github.com/foretoken/foretoken/serving"
	"github.com/foretoken/foretoken/storage"
	"github.com/foretoken/foretoken/tuning"
	"github.com/foretoken/foretoken/tuning/run"
)

// Config is what the service stands on, and its limits. Zero limits mean the defaults.
type Config struct {
	Catalog  *storage.Catalog
	Objects  storage.Objects
	Models   *tuning.Models
	Runs     *run.Service
	Engine   *serving.Engine
	Registry *prometheus.Registry
	Version  string
	Log      io.Writer // request logs as JSON lines; nil for none
	// MaxUpload is the most bytes of an uploaded zip: default 20 GiB.
	MaxUpload int64
	// Fetch fetches images that requests name by addresses on other hosts; nil where none are fetched.
	Fetch *fetch.Fetcher
	// Timeout is how long a request may take that does not upload, score or watch: default 1 minute.
	Timeout time.Duration
}

const (
	maxJSON     = 1 << 20  // bytes of a request without images
	maxImages   = 96 << 20 // bytes of a request with images
	longTimeout = 30 * time.Minute
)

type server struct {
	Config
	log *slog.Logger
}

// New makes the service's handler.
func New(c Config) http.Handler {
	if c.MaxUpload == 0 {
		c.MaxUpload = 20 << 30
	}
	if c.Timeout == 0 {
		c.Timeout = time.Minute
	}
	if c.Log == nil {
		c.Log = io.Discard
	}
	s := &server{c, slog.New(slog.NewJSONHandler(c.Log, nil))}
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.HandleMethodNotAllowed = true
	r.Use(s.logged, s.recovered)
	r.NoRoute(func(c *gin.Context) { fail(c, notFound(c.Request.URL.Path)) })
	r.NoMethod(func(c *gin.Context) {
		failStatus(c, http.StatusMethodNotAllowed, "method_not_allowed", c.Request.Method+" is not possible here")
	})
	s.open(r)
	s.native(r.Group("/v1", s.authorised))
	return r
}

// open routes need no key.
func (s *server) open(r gin.IRoutes) {
	page(r)
	r.GET("/healthz", handle(s.health))
	r.GET("/metrics", gin.WrapH(promhttp.HandlerFor(s.Registry, promhttp.HandlerOpts{})))
}

func (s *server) native(v1 gin.IRoutes) {
	short, long := within(s.Timeout), within(longTimeout)
	v1.GET("/bundles", short, handle(s.listBundles))
	v1.POST("/bundles", long, limit(maxJSON), handle(s.addBundle))
	v1.GET("/recipes", short, handle(s.listRecipes))
	v1.GET("/recipes/:name", short, handle(s.getRecipe))

	v1.GET("/datasets", short, handle(s.listDatasets))
	v1.POST("/datasets", long, limit(s.MaxUpload), handle(s.uploadDataset))
	v1.GET("/datasets/:name", short, handle(s.getDataset))
	v1.GET("/datasets/:name/images/:sha256", short, handle(s.getImage))

	v1.GET("/runs", short, handle(s.listRuns))
	v1.POST("/runs", short, limit(maxJSON), handle(s.createRun))
	v1.GET("/runs/:id", short, handle(s.getRun))
	v1.GET("/runs/:id/events", handle(s.watchRun))
	v1.POST("/runs/:id/cancel", short, limit(maxJSON), handle(s.cancelRun))

	v1.GET("/prompts", short, handle(s.listPrompts))
	v1.GET("/prompts/:name", short, handle(s.getPrompt))
	v1.GET("/prompts/:name/file", short, handle(s.downloadPrompt))
	v1.POST("/prompts/import", short, limit(maxConcept), handle(s.importPrompt))
	v1.POST("/prompts/:name/promote", short, limit(maxJSON), handle(s.promotePrompt))

	v1.POST("/classify", short, s.expected, limit(maxImages), handle(s.classify))
	v1.POST("/search", long, limit(maxJSON), handle(s.search))
	v1.POST("/evaluations", long, limit(maxJSON), handle(s.evaluate))

	v1.GET("/models", short, handle(s.listModels))
	v1.GET("/models/:id", short, handle(s.getModel))
	v1.POST("/embeddings", short, limit(maxImages), handle(s.embeddings))
	v1.POST("/chat/completions", long, s.expected, limit(maxImages), handle(s.chat))
	v1.POST("/images/generations", long, limit(maxJSON), handle(s.generateImages))
	v1.POST("/images/edits", long, limit(maxImages), handle(s.editImages))
	v1.POST("/images/variations", long, limit(maxImages), handle(s.varyImages))

	v1.GET("/keys", short, handle(s.listKeys))
	v1.POST("/keys", short, limit(maxJSON), handle(s.createKey))
	v1.DELETE("/keys/:id", short, handle(s.revokeKey))
}

// health says that the catalogue answers.
func (s *server) health(c *gin.Context) error {
	if _, err := s.Catalog.Bundles(c.Request.Context()); err != nil {
		return err
	}
	c.JSON(http.StatusOK, gin.H{"status": "ok", "version": s.Version})
	return nil
}

// within bounds a request's time.
func within(d time.Duration) gin.HandlerFunc {
	return func(c *gin.Context) {
		ctx, cancel := context.WithTimeout(c.Request.Context(), d)
		defer cancel()
		c.Request = c.Request.WithContext(ctx)
		c.Next()
	}
}

// expected tells the engine of a request with an image before its body is read.
func (s *server) expected(c *gin.Context) {
	ctx, arrived := s.Engine.Expect(c.Request.Context())
	defer arrived()
	c.Request = c.Request.WithContext(ctx)
	c.Next()
}

// limit bounds a request's body.
func limit(bytes int64) gin.HandlerFunc {
	return func(c *gin.Context) {
		c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, bytes)
		c.Next()
	}
}

// logged writes a line for each request: no headers, no query, no body.
func (s *server) logged(c *gin.Context) {
	start := time.Now()
	c.Next()
	s.log.Info("request", "method", c.Request.Method, "path", c.Request.URL.Path, "status", c.Writer.Status(),
		"ms", time.Since(start).Milliseconds(), "bytes", c.Writer.Size(), "key", c.GetString(keyID), "error", c.GetString(problem))
}
