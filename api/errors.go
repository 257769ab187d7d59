package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"runtime/debug"
	"strconv"

	"github.com/gin-gonic/gin"

	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/serving"
)

// problem is the context's key for what went wrong, for the log.
const problem = "problem"

// errorBody is an error as OpenAI's clients expect it; all routes answer with it.
type errorBody struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    string  `json:"code"`
}

// fail answers with an error, by its kind. What is our own fault is logged, not told.
func fail(c *gin.Context, err error) {
	status, body := describe(c, err)
	if busy, ok := errors.AsType[*serving.Busy](err); ok {
		c.Header("Retry-After", strconv.Itoa(int(math.Ceil(busy.After.Seconds()))))
	}
	c.AbortWithStatusJSON(status, gin.H{"error": body})
}

// describe is what the client is told of an error; all of it goes to the log.
func describe(c *gin.Context, err error) (status int, body errorBody) {
	kind := errs.Of(err)
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		kind, err = errs.TooLarge, fmt.Errorf("the request's body is larger than the limit of %d bytes", tooLarge.Limit)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		kind, err = errs.Unavailable, errors.New("the request took too long and was given up")
	}
	c.Set(problem, err.Error())
	message := err.Error()
	if kind == errs.Internal {
		message = "internal error; the server's log says more"
	}
	body = bodyOf(kind.HTTPStatus(), kind.String(), message)
	if errors.Is(err, errUnsafe) {
		body.Code = "content_policy_violation"
	}
	return kind.HTTPStatus(), body
}

func bodyOf(status int, code, message string) errorBody {
	kind := "invalid_request_error"
	if status >= http.StatusInternalServerError {
		kind = "server_error"
	}
	return errorBody{Message: message, Type: kind, Code: code}
}

func failStatus(c *gin.Context, status int, code, message string) {
	c.AbortWithStatusJSON(status, gin.H{"error": bodyOf(status, code, message)})
}

func notFound(path string) error { return errs.New(errs.NotFound, "there is nothing at %s", path) }

// recovered turns a panic into an error of ours.
func (s *server) recovered(c *gin.Context) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if p == http.ErrAbortHandler {
			panic(p)
		}
		s.log.Error("panic", "path", c.Request.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		fail(c, fmt.Errorf("panic: %v", p))
	}()
	c.Next()
}

// readJSON reads a request's body; unknown keys are errors where strict is set.
func readJSON(c *gin.Context, into any, strict bool) error {
	d := json.NewDecoder(c.Request.Body)
	if strict {
		d.DisallowUnknownFields()
	}
	err := d.Decode(into)
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); err == nil || tooLarge {
		return err
	}
	return errs.New(errs.Invalid, "the request's body is not the JSON that is expected here: %w", err)
}

// handle makes a handler that answers with the error that f returns, if any.
func handle(f func(*gin.Context) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		if err := f(c); err != nil {
			fail(c, err)
		}
	}
}

// answer writes v where there is no error.
func answer[T any](c *gin.Context, v T, err error) error {
	if err == nil {
		c.JSON(http.StatusOK, v)
	}
	return err
}

// list is how lists are answered.
type list[T any] struct {
	Data []T `json:"data"`
}

func listOf[F, T any](from []F, convert func(F) T) list[T] {
	out := list[T]{Data: []T{}}
	for _, f := range from {
		out.Data = append(out.Data, convert(f))
	}
	return out
}
