package storage

import (
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/foretoken/foretoken/internal/errs"
)

// S3Config says which bucket of which S3 service holds the objects.
type S3Config struct {
	Endpoint     string // URL, such as https://s3.eu-central-1.amazonaws.com
	Public       string // URL of the same service for others, whose addresses Share gives; "" is Endpoint
	Region       string
	Bucket       string // made when it is missing
	AccessKey    string
	SecretKey    string
	SessionToken string
}

// defaultBucket is used where FORETOKEN_S3_BUCKET is not set.
const defaultBucket = "foretoken"

// S3ConfigFromEnv reads the standard AWS variables AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL,
// AWS_REGION or AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
// AWS_SESSION_TOKEN, FORETOKEN_S3_BUCKET and FORETOKEN_S3_PUBLIC_URL. It is false where no key is set.
func S3ConfigFromEnv() (S3Config, bool) {
	c := S3Config{
		Endpoint:     firstEnv("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
		Public:       os.Getenv("FORETOKEN_S3_PUBLIC_URL"),
		Region:       firstEnv("AWS_REGION", "AWS_DEFAULT_REGION"),
		Bucket:       firstEnv("FORETOKEN_S3_BUCKET"),
		AccessKey:    os.Getenv("AWS_ACCESS_KEY_ID"),
		SecretKey:    os.Getenv("AWS_SECRET_ACCESS_KEY"),
		SessionToken: os.Getenv("AWS_SESSION_TOKEN"),
	}
	if c.Region == "" {
		c.Region = "us-east-1"
	}
	if c.Endpoint == "" {
		c.Endpoint = "https://s3." + c.Region + ".amazonaws.com"
	}
	if c.Bucket == "" {
		c.Bucket = defaultBucket
	}
	return c, c.AccessKey != ""
}

func firstEnv(names ...string) string {
	for _, name := range names {
		if v := os.Getenv(name); v != "" {
			return v
		}
	}
	return ""
}

type s3 struct {
	client *minio.Client
	public *minio.Client // signs addresses for others: a signature covers the host's name
	bucket string
}

// partSize is the size of the parts in which objects of unknown size are sent: it bounds the
// memory of an upload, and with 10,000 parts an object to 160 GiB.
const partSize = 16 << 20

// OpenS3 connects to a bucket, and makes it where it is missing.
func OpenS3(ctx context.Context, c S3Config) (Objects, error) {
	client, err := c.client(c.Endpoint)
	if err != nil {
		return nil, err
	}
	public := client
	if c.Public != "" {
		if public, err = c.client(c.Public); err != nil {
			return nil, err
		}
	}
	s := &s3{client, public, c.Bucket}
	exists, err := client.BucketExists(ctx, c.Bucket)
	if err != nil {
		return nil, s.wrap("opening", c.Endpoint, err)
	}
	if !exists {
		err = client.MakeBucket(ctx, c.Bucket, minio.MakeBucketOptions{Region: c.Region})
		if code := minio.ToErrorResponse(err).Code; err != nil && code != "BucketAlreadyOwnedByYou" {
			return nil, s.wrap("opening", c.Endpoint, err)
		}
	}
	return s, nil
}

// client speaks to the service at an endpoint, once it is asked to.
func (c *S3Config) client(endpoint string) (*minio.Client, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" {
		return nil, errs.New(errs.Invalid, "S3 endpoint %q must be an http or https URL without a path", endpoint)
	}
	client, err := minio.New(u.Host, &minio.Options{
		Creds:  credentials.NewStaticV4(c.AccessKey, c.SecretKey, c.SessionToken),
		Secure: u.Scheme == "https",
		Region: c.Region,
	})
	if err != nil {
		return nil, errs.New(errs.Invalid, "S3 endpoint %q: %w", endpoint, err)
	}
	return client, nil
}

// wrap says which object an error is about, and of what kind it is.
func (s *s3) wrap(what, key string, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return errs.New(s3Kind(err), "%s %s in S3 bucket %s: %w", what, key, s.bucket, err)
}

func s3Kind(err error) errs.Kind {
	if errors.Is(err, context.Canceled) {
		return errs.Canceled
	}
	response := minio.ToErrorResponse(err)
	switch response.Code {
	case "NoSuchKey", "NoSuchBucket", "NotFound":
		return errs.NotFound
	case "InvalidRange":
		return errs.Invalid
	case "EntityTooLarge":
		return errs.TooLarge
	}
	var network net.Error
	if errors.As(err, &network) || response.StatusCode >= http.StatusInternalServerError || errors.Is(err, context.DeadlineExceeded) {
		return errs.Unavailable
	}
	return errs.Or(err, errs.Internal)
}

func (s *s3) Put(ctx context.Context, key string, r io.Reader, size int64, o PutOptions) (ObjectInfo, error) {
	info, err := s.client.PutObject(ctx, s.bucket, key, r, size, minio.PutObjectOptions{
		ContentType: o.ContentType, PartSize: partSize, DisableContentSha256: size == 0,
	})
	if err != nil {
		return ObjectInfo{}, s.wrap("storing", key, err)
	}
	return ObjectInfo{Key: key, Size: info.Size, Modified: info.LastModified, ContentType: o.ContentType, ETag: info.ETag}, nil
}

func (s *s3) Get(ctx context.Context, key string) (io.ReadCloser, ObjectInfo, error) {
	o, err := s.client.GetObject(ctx, s.bucket, key, minio.GetObjectOptions{})
	if err != nil {
		return nil, ObjectInfo{}, s.wrap("reading", key, err)
	}
	stat, err := o.Stat()
	if err != nil {
		o.Close()
		return nil, ObjectInfo{}, s.wrap("reading", key, err)
	}
	return &object{o, s, key}, objectInfo(stat), nil
}

func (s *s3) GetRange(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if offset < 0 || length < 0 {
		return nil, errs.New(errs.Invalid, "reading %s: range of %d bytes from %d", key, length, offset)
	}
	if length == 0 {
		return io.NopCloser(strings.NewReader("")), nil
	}
	var options minio.GetObjectOptions
	if err := options.SetRange(offset, offset+length-1); err != nil {
		return nil, s.wrap("reading", key, err)
	}
	o, err := s.client.GetObject(ctx, s.bucket, key, options)
	if err != nil {
		return nil, s.wrap("reading", key, err)
	}
	return &object{o, s, key}, nil
}

// object gives read errors a kind.
type object struct {
	*minio.Object
	s   *s3
	key string
}

func (o *object) Read(b []byte) (int, error) {
	n, err := o.Object.Read(b)
	return n, o.s.wrap("reading", o.key, err)
}

func (s *s3) Stat(ctx context.Context, key string) (ObjectInfo, error) {
	stat, err := s.client.StatObject(ctx, s.bucket, key, minio.StatObjectOptions{})
	if err != nil {
		return ObjectInfo{}, s.wrap("looking for", key, err)
	}
	return objectInfo(stat), nil
}

func (s *s3) List(ctx context.Context, prefix string) iter.Seq2[ObjectInfo, error] {
	return func(yield func(ObjectInfo, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for info := range s.client.ListObjects(ctx, s.bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
			if !yield(objectInfo(info), s.wrap("listing", prefix, info.Err)) || info.Err != nil {
				return
			}
		}
	}
}

func (s *s3) Share(ctx context.Context, key string, during time.Duration) (string, error) {
	u, err := s.public.PresignedGetObject(ctx, s.bucket, key, during, nil)
	if err != nil {
		return "", s.wrap("sharing", key, err)
	}
	return u.String(), nil
}

func (s *s3) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := s.client.RemoveObject(ctx, s.bucket, key, minio.RemoveObjectOptions{}); err != nil && s3Kind(err) != errs.NotFound {
			return s.wrap("deleting", key, err)
		}
	}
	return nil
}

func objectInfo(o minio.ObjectInfo) ObjectInfo {
	return ObjectInfo{Key: o.Key, Size: o.Size, Modified: o.LastModified.UTC().Truncate(time.Millisecond), ContentType: o.ContentType, ETag: o.ETag}
}
