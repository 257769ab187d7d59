package api

import (
	"context"
	"encoding/base64"
	"net/url"
	"slices"
	"strings"

	"github.com/foretoken/foretoken/dataset"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/serving"
)

// The addresses that an image may have in a request.
const (
	dataImage   = "data:image/"
	dataShape   = "data:image/TYPE;base64,DATA"
	storedShape = "/v1/datasets/NAME/images/SHA256"
)

// imageOf reads the image at an address: one in the address itself, one of a data set, or, where whoever runs the server
// allows it, one on another host. key is the request's, for errors.
func (s *server) imageOf(ctx context.Context, key, address string) (b []byte, err error) {
	switch u, parseErr := url.Parse(address); {
	case strings.HasPrefix(address, "data:"):
		b, err = decodeDataURL(address)
	case parseErr == nil && u.Scheme == "" && u.Host == "":
		b, err = s.storedImage(ctx, u)
	case s.Fetch == nil:
		err = errs.New(errs.Invalid, "%.60q: this server fetches nothing from other hosts, unless whoever runs it starts it with --fetch: give a data URL, %s, or the path of a stored image, %s", address, dataShape, storedShape)
	default:
		serving.Arrived(ctx) // other requests need not wait for the image
		b, err = s.Fetch.Get(ctx, address)
	}
	if err != nil {
		return nil, errs.New(errs.Of(err), "%s: %w", key, err)
	}
	return b, nil
}

// decodeDataURL reads an image from "data:image/...;base64,...".
func decodeDataURL(url string) ([]byte, error) {
	header, data, found := strings.Cut(url, ",")
	if !found || !strings.HasPrefix(header, dataImage) || !strings.HasSuffix(header, ";base64") {
		return nil, errs.New(errs.Invalid, "the address begins %.30q, must be a data URL of an image, %s", url, dataShape)
	}
	b, err := base64.StdEncoding.DecodeString(data)
	if err != nil {
		return nil, errs.New(errs.Invalid, "the data URL's base64: %w", err)
	}
	return b, nil
}

// storedImage reads an image of a data set by its path.
func (s *server) storedImage(ctx context.Context, u *url.URL) ([]byte, error) {
	parts := strings.Split(strings.TrimPrefix(u.Path, "/"), "/")
	if len(parts) != 5 || parts[0] != "v1" || parts[1] != "datasets" || parts[3] != "images" {
		return nil, errs.New(errs.Invalid, "the address begins %.60q, must be a data URL, %s, the path of a stored image, %s, or https://HOST/PATH", u.Path, dataShape, storedShape)
	}
	v, _, err := s.version(ctx, parts[2], u.Query().Get("version"))
	if err != nil {
		return nil, err
	}
	return s.imageIn(ctx, v, parts[4])
}

// imageIn reads an image of a version by its SHA-256.
func (s *server) imageIn(ctx context.Context, v *dataset.Version, sha256 string) ([]byte, error) {
	i := slices.IndexFunc(v.Items, func(it dataset.Item) bool { return it.SHA256 == sha256 })
	if i < 0 {
		return nil, errs.New(errs.NotFound, "data set %q has no image %.70q", v.ID, sha256)
	}
	return dataset.ReadImage(ctx, s.Objects, v.Items[i])
}
