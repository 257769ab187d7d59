// Package dataset makes immutable, content-addressed versions of images out of zips and folders,
// with classes, captions, questions and answers or nothing besides, and splits them. It knows objects by their keys and images as bytes; decoding
// is handed in, and it knows neither models nor the catalogue.
package dataset

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"regexp"
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/storage"
)

// format is the version of the manifest that this package writes and reads.
const format = 1

// maxManifest is the size of a manifest that is still read: some two million images.
const maxManifest = 512 << 20

// Version is an immutable list of images and what is said of them. Its manifest is stored as JSON at
// datasets/ID/versions/DIGEST/manifest.json and the images at blobs/sha256/HEX; the digest is
// the SHA-256 of the manifest, which holds neither the dataset's name nor a time, so the same
// files give the same digest wherever they come from.
type Version struct {
	ID      string    `json:"-"` // the dataset's name
	Digest  string    `json:"-"`
	Format  int       `json:"format"`
	Classes []Class   `json:"classes"` // sorted by folder
	Items   []Item    `json:"items"`   // sorted by path
	SplitBy SplitBy   `json:"split_by"`
	Skipped []Skipped `json:"skipped,omitempty"` // sorted by path
	Ignored int       `json:"ignored,omitempty"` // files that were not used
	// Leaks are images that lie in more than one split, so that scores flatter.
	Leaks []Duplicate `json:"leaks,omitempty"`
	// Ambiguous are images that lie in more than one class.
	Ambiguous []Duplicate `json:"ambiguous,omitempty"`
}

// Class is one label.
type Class struct {
	Folder string `json:"folder"`
	Name   string `json:"name"` // as it is written into templates
}

// NoClass is an item's class in versions without classes.
const NoClass = -1

// Item is one image, or one question about an image: then several items share an image.
type Item struct {
	Path   string `json:"path"` // in the zip or folder, below a wrapping folder
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"` // bytes
	Width  int    `json:"width"`
	Height int    `json:"height"`
	Class  int    `json:"class"` // index into Classes, or NoClass
	Split  string `json:"split"` // Train, Validation or Test
	// Texts, in the order in which they came: white space is single spaces.
	Captions []string `json:"captions,omitempty"`
	Question string   `json:"question,omitempty"`
	Answers  []string `json:"answers,omitempty"` // to Question, by one or more people; may be none
}

// Texts are what people wrote of an item: answers where it has a question, else captions.
func (it Item) Texts() []string {
	if it.Question != "" {
		return it.Answers
	}
	return it.Captions
}

// Kind is what a version says of its images.
type Kind string

// The kinds of a version.
const (
	Classes   Kind = "classes"   // each image has a class, some may have captions too
	Captions  Kind = "captions"  // each image has captions
	Questions Kind = "questions" // each item has a question, some may have captions instead
	Pictures  Kind = "pictures"  // images alone
)

// Kind is what the version says of its images.
func (v *Version) Kind() Kind {
	switch {
	case len(v.Classes) > 0:
		return Classes
	case slices.ContainsFunc(v.Items, func(it Item) bool { return it.Question != "" }):
		return Questions
	case slices.ContainsFunc(v.Items, func(it Item) bool { return it.Captions != nil }):
		return Captions
	}
	return Pictures
}

// Images is the number of images: items of one path are questions about one image.
func (v *Version) Images() int {
	n := 0
	for i, it := range v.Items {
		if i == 0 || v.Items[i-1].Path != it.Path {
			n++
		}
	}
	return n
}

// ClassName is the display name of an item's class, "" where it has none.
func (v *Version) ClassName(it Item) string {
	if it.Class == NoClass {
		return ""
	}
	return v.Classes[it.Class].Name
}

// Skipped is an image that was left out.
type Skipped struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// Duplicate is one image, byte for byte, under several paths.
type Duplicate struct {
	SHA256 string   `json:"sha256"`
	Paths  []string `json:"paths"`
}

// blobKey is where an image's bytes are stored.
func blobKey(sha string) string { return "blobs/sha256/" + sha }

// ManifestKey is where a version's manifest is stored.
func ManifestKey(id, digest string) string {
	return "datasets/" + id + "/versions/" + digest + "/manifest.json"
}

var (
	validID  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	validSHA = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

func checkID(id string) error {
	if !validID.MatchString(id) {
		return errs.New(errs.Invalid, "dataset name %.80q: must be 1 to 64 letters, digits, dots, dashes or underscores, beginning with a letter or digit", id)
	}
	return nil
}

// Load reads a version and verifies its digest.
func Load(ctx context.Context, objs storage.Objects, id, digest string) (*Version, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	if !validSHA.MatchString(digest) {
		return nil, errs.New(errs.Invalid, "dataset %s: version %.80q is no SHA-256 in lower-case hexadecimal", id, digest)
	}
	manifest, err := readObject(ctx, objs, ManifestKey(id, digest), maxManifest)
	if err == nil && sum(manifest) != digest {
		err = errs.New(errs.Internal, "the stored manifest has the digest %s: it was changed or damaged", sum(manifest))
	}
	if err != nil {
		return nil, errs.New(errs.Of(err), "dataset %s version %s: %w", id, digest, err)
	}
	v := &Version{ID: id, Digest: digest}
	if err := json.Unmarshal(manifest, v); err != nil {
		return nil, errs.New(errs.Invalid, "dataset %s version %s: manifest: %w", id, digest, err)
	}
	return v, v.check()
}

// check refuses a manifest that is of another format or names what is not there.
func (v *Version) check() error {
	if v.Format != format {
		return errs.New(errs.Unsupported, "dataset %s version %s: manifest of format %d, this version reads %d", v.ID, v.Digest, v.Format, format)
	}
	for _, it := range v.Items {
		if (it.Class != NoClass || len(v.Classes) > 0) && (it.Class < 0 || it.Class >= len(v.Classes)) || splitOrder(it.Split) < 0 || !validSHA.MatchString(it.SHA256) || it.Size < 0 {
			return errs.New(errs.Invalid, "dataset %s version %s: item %q of class %d of %d, split %q, image %q is malformed",
				v.ID, v.Digest, it.Path, it.Class, len(v.Classes), it.Split, it.SHA256)
		}
	}
	return nil
}

// save stores the manifest under its digest. What is there already is the same, byte for byte.
func (v *Version) save(ctx context.Context, objs storage.Objects) error {
	manifest, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(manifest) > maxManifest {
		return errs.New(errs.TooLarge, "manifest of %d bytes, limit %d: fewer images or texts", len(manifest), maxManifest)
	}
	v.Digest = sum(manifest)
	return putOnce(ctx, objs, ManifestKey(v.ID, v.Digest), manifest, "application/json")
}

// ReadImage reads an item's bytes and verifies their digest.
func ReadImage(ctx context.Context, objs storage.Objects, it Item) ([]byte, error) {
	b, err := readObject(ctx, objs, blobKey(it.SHA256), it.Size)
	if err == nil && sum(b) != it.SHA256 {
		err = errs.New(errs.Internal, "the stored bytes have the digest %s: they were changed or damaged", sum(b))
	}
	if err != nil {
		return nil, errs.New(errs.Of(err), "image %q (%s): %w", it.Path, it.SHA256, err)
	}
	return b, nil
}

func readObject(ctx context.Context, objs storage.Objects, key string, limit int64) ([]byte, error) {
	r, _, err := objs.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, errs.New(errs.TooLarge, "object %s: more than %d bytes", key, limit)
	}
	return b, nil
}

// putOnce stores a content-addressed object where it is not there yet.
func putOnce(ctx context.Context, objs storage.Objects, key string, b []byte, contentType string) error {
	info, err := objs.Stat(ctx, key)
	if err == nil && info.Size == int64(len(b)) {
		return nil
	}
	if err != nil && errs.Of(err) != errs.NotFound {
		return err
	}
	_, err = objs.Put(ctx, key, bytes.NewReader(b), int64(len(b)), storage.PutOptions{ContentType: contentType})
	return err
}

// sum is the SHA-256 in hexadecimal.
func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// Objects are the keys of all objects that the version needs: its manifest and its images.
func (v *Version) Objects() []string {
	keys := []string{ManifestKey(v.ID, v.Digest)}
	for _, it := range v.Items {
		keys = append(keys, blobKey(it.SHA256))
	}
	return keys
}
