package api

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"mime"
	"net/http"
	"path"

	"github.com/gin-gonic/gin"
)

//go:embed web/index.html web/style.css web/app.js openapi.yaml
var files embed.FS

// policy lets the page load nothing from elsewhere, and nobody frame it.
const policy = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// page serves the web page and the OpenAPI document.
func page(r gin.IRoutes) {
	for url, name := range map[string]string{
		"/": "web/index.html", "/style.css": "web/style.css", "/app.js": "web/app.js", "/openapi.yaml": "openapi.yaml",
	} {
		b, err := files.ReadFile(name)
		if err != nil {
			panic(err) // the files are compiled in
		}
		sum := sha256.Sum256(b)
		tag := `"` + hex.EncodeToString(sum[:8]) + `"`
		kind := mime.TypeByExtension(path.Ext(name))
		r.GET(url, func(c *gin.Context) {
			c.Header("ETag", tag)
			c.Header("Cache-Control", "no-cache")
			c.Header("Content-Security-Policy", policy)
			c.Header("X-Content-Type-Options", "nosniff")
			c.Header("Referrer-Policy", "no-referrer")
			if c.GetHeader("If-None-Match") == tag {
				c.Status(http.StatusNotModified)
				return
			}
			c.Data(http.StatusOK, kind, b)
		})
	}
}
