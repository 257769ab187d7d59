package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/storage"
)

// keyID is the context's key for the id of the request's API key.
const keyID = "key"

// NewKey makes an API key. The key is shown once: the catalogue keeps its hash.
func NewKey(ctx context.Context, c *storage.Catalog, name string) (id, key string, err error) {
	id, key = strings.ToLower(rand.Text()[:8]), "ft_"+rand.Text()
	return id, key, c.AddKey(ctx, storage.Key{ID: id, Name: name, Hash: hashKey(key), Created: time.Now()})
}

// hashKey needs no salt: a key has 130 random bits.
func hashKey(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// authorised lets requests with a key pass.
func (s *server) authorised(c *gin.Context) {
	key, found := strings.CutPrefix(c.GetHeader("Authorization"), "Bearer ")
	if !found {
		c.Header("WWW-Authenticate", "Bearer")
		fail(c, errs.New(errs.Unauthorized, "an API key is needed, in the header Authorization: Bearer KEY"))
		return
	}
	k, err := s.Catalog.KeyByHash(c.Request.Context(), hashKey(key))
	if errs.Of(err) == errs.NotFound {
		err = errs.New(errs.Unauthorized, "the API key is not known, or was revoked")
	}
	if err != nil {
		fail(c, err)
		return
	}
	c.Set(keyID, k.ID)
}

type keyView struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	Revoked bool      `json:"revoked"`
	Key     string    `json:"key,omitempty"` // when it is made
}

func (s *server) listKeys(c *gin.Context) error {
	keys, err := s.Catalog.Keys(c.Request.Context())
	return answer(c, listOf(keys, func(k storage.Key) keyView { return keyView{k.ID, k.Name, k.Created, k.Revoked, ""} }), err)
}

func (s *server) createKey(c *gin.Context) error {
	var in struct {
		Name string `json:"name"`
	}
	if err := readJSON(c, &in, true); err != nil {
		return err
	}
	if in.Name == "" || len(in.Name) > 100 {
		return errs.New(errs.Invalid, "name: must be 1 to 100 characters, to know the key by")
	}
	id, key, err := NewKey(c.Request.Context(), s.Catalog, in.Name)
	if err != nil {
		return err
	}
	c.JSON(http.StatusCreated, keyView{ID: id, Name: in.Name, Created: time.Now().UTC(), Key: key})
	return nil
}

func (s *server) revokeKey(c *gin.Context) error {
	if err := s.Catalog.RevokeKey(c.Request.Context(), c.Param("id")); err != nil {
		return err
	}
	c.Status(http.StatusNoContent)
	return nil
}
