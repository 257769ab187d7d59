package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/foretoken/foretoken/dataset"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/storage"
	"github.com/foretoken/foretoken/vision"
)

type datasetView struct {
	Name    string    `json:"name"`
	Version string    `json:"version"`
	Images  int       `json:"images"`
	Classes int       `json:"classes"`
	Created time.Time `json:"created"`
}

func viewDataset(v storage.DatasetVersion) datasetView {
	return datasetView{v.Name, v.Version, v.Images, v.Classes, v.Created}
}

// listDatasets lists the latest version of each data set.
func (s *server) listDatasets(c *gin.Context) error {
	versions, err := s.Catalog.Versions(c.Request.Context())
	latest := slices.CompactFunc(versions, func(a, b storage.DatasetVersion) bool { return a.Name == b.Name })
	return answer(c, listOf(latest, viewDataset), err)
}

// uploadView is what became of an upload.
type uploadView struct {
	datasetView
	Kind      dataset.Kind        `json:"kind"`
	Skipped   []dataset.Skipped   `json:"skipped"`
	Ignored   int                 `json:"ignored"`
	Leaks     []dataset.Duplicate `json:"leaks"`
	Ambiguous []dataset.Duplicate `json:"ambiguous"`
}

// uploadDataset spools the zip as an object, then reads it by ranges: it is never whole in memory.
func (s *server) uploadDataset(c *gin.Context) error {
	v, err := s.importZip(c)
	if err != nil {
		return err
	}
	row := storage.DatasetVersion{Name: v.ID, Version: v.Digest, Images: v.Images(), Classes: len(v.Classes), Created: time.Now().UTC()}
	if err := s.Catalog.AddVersion(c.Request.Context(), row); err != nil {
		return err
	}
	c.JSON(http.StatusCreated, uploadView{viewDataset(row), v.Kind(), orEmpty(v.Skipped), v.Ignored, orEmpty(v.Leaks), orEmpty(v.Ambiguous)})
	return nil
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (s *server) importZip(c *gin.Context) (*dataset.Version, error) {
	ctx := c.Request.Context()
	o := dataset.ImportOptions{ID: c.Query("name"), Check: checkImage, Limits: dataset.Limits{Bytes: s.MaxUpload}}
	if o.ID == "" {
		return nil, errs.New(errs.Invalid, "the query must give the data set's name: POST /v1/datasets?name=NAME")
	}
	var err error
	if seed := c.Query("seed"); seed != "" {
		if o.Seed, err = strconv.ParseUint(seed, 10, 64); err != nil {
			return nil, errs.New(errs.Invalid, "seed %q must be a number from 0 to 2^64-1", seed)
		}
	}
	key := "uploads/" + strings.ToLower(rand.Text()) + ".zip"
	if _, err := s.Objects.Put(ctx, key, c.Request.Body, c.Request.ContentLength, storage.PutOptions{ContentType: "application/zip"}); err != nil {
		return nil, err
	}
	defer s.Objects.Delete(context.WithoutCancel(ctx), key) // what stays is collected as garbage
	return dataset.ImportZip(ctx, s.Objects, key, o)
}

// checkImage decodes an image as training will.
func checkImage(_ context.Context, image []byte) (width, height int, err error) {
	img, err := vision.Decode(bytes.NewReader(image), vision.Limits{})
	if err != nil {
		return 0, 0, err
	}
	return img.Bounds().Dx(), img.Bounds().Dy(), nil
}

// version loads the version that a request names.
func (s *server) version(ctx context.Context, name, version string) (*dataset.Version, storage.DatasetVersion, error) {
	row, err := s.Catalog.Version(ctx, name, version)
	if err != nil {
		return nil, row, err
	}
	v, err := dataset.Load(ctx, s.Objects, row.Name, row.Version)
	return v, row, err
}

type classView struct {
	Name       string       `json:"name"`
	Folder     string       `json:"folder"`
	Count      int          `json:"count"`
	Train      int          `json:"train"`
	Validation int          `json:"validation"`
	Test       int          `json:"test"`
	Samples    []sampleView `json:"samples"`
}

type sampleView struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
}

// itemView is an item with its texts.
type itemView struct {
	sampleView
	Split    string   `json:"split"`
	Captions []string `json:"captions,omitempty"`
	Question string   `json:"question,omitempty"`
	Answers  []string `json:"answers,omitempty"`
}

// sizesView is the number of items in each split.
type sizesView struct {
	Train      int `json:"train"`
	Validation int `json:"validation"`
	Test       int `json:"test"`
}

// firstItems are the first few items of a version that has no classes.
func firstItems(v *dataset.Version, samples int) []itemView {
	items := []itemView{}
	if v.Kind() == dataset.Classes {
		return items
	}
	for _, it := range v.Items[:min(samples, len(v.Items))] {
		items = append(items, itemView{sampleView{it.Path, it.SHA256}, it.Split, it.Captions, it.Question, it.Answers})
	}
	return items
}

// getDataset shows a version's classes, with the first few images of each, or its first items.
func (s *server) getDataset(c *gin.Context) error {
	v, row, err := s.version(c.Request.Context(), c.Param("name"), c.Query("version"))
	if err != nil {
		return err
	}
	samples, err := intQuery(c, "samples", 0, 0, 100)
	if err != nil {
		return err
	}
	classes := make([]classView, len(v.Classes))
	for i, n := range v.Counts() {
		classes[i] = classView{v.Classes[i].Name, v.Classes[i].Folder, n.Train + n.Validation + n.Test, n.Train, n.Validation, n.Test, []sampleView{}}
	}
	for _, it := range v.Items {
		if it.Class == dataset.NoClass {
			break
		}
		if class := &classes[it.Class]; len(class.Samples) < samples {
			class.Samples = append(class.Samples, sampleView{it.Path, it.SHA256})
		}
	}
	c.JSON(http.StatusOK, struct {
		datasetView
		Kind      dataset.Kind      `json:"kind"`
		Sizes     sizesView         `json:"sizes"`
		ClassList []classView       `json:"classes"`
		Items     []itemView        `json:"items"`
		Skipped   []dataset.Skipped `json:"skipped"`
	}{viewDataset(row), v.Kind(), sizesView(v.Sizes()), classes, firstItems(v, samples), orEmpty(v.Skipped)})
	return nil
}

func intQuery(c *gin.Context, name string, def, least, most int) (int, error) {
	s := c.Query(name)
	if s == "" {
		return def, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		return 0, errs.New(errs.Invalid, "%s is %.20q, must be %d to %d", name, s, least, most)
	}
	return n, nil
}

// getImage sends an image of a data set, or a thumbnail of it where a size is given.
func (s *server) getImage(c *gin.Context) error {
	size, err := intQuery(c, "size", 0, 8, 2048)
	if err != nil {
		return err
	}
	v, _, err := s.version(c.Request.Context(), c.Param("name"), c.Query("version"))
	if err != nil {
		return err
	}
	b, err := s.imageIn(c.Request.Context(), v, c.Param("sha256"))
	if err == nil && size > 0 {
		b, err = thumbnail(b, size)
	}
	if err != nil {
		return err
	}
	c.Header("Cache-Control", "private, immutable, max-age=86400")
	c.Header("X-Content-Type-Options", "nosniff")
	c.Data(http.StatusOK, http.DetectContentType(b), b)
	return nil
}

func thumbnail(b []byte, size int) ([]byte, error) {
	img, err := vision.Decode(bytes.NewReader(b), vision.Limits{})
	if err != nil {
		return nil, err
	}
	return vision.Thumbnail(img, size)
}
