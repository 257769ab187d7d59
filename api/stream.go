package api

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/gin-gonic/gin"
)

// stream sends server-sent events. Nothing is sent before the first event: until then an error can be
// an answer of its own.
type stream struct {
	c     *gin.Context
	begun bool
}

// send sends an event; without a kind it is data alone.
func (s *stream) send(kind string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.write(kind, string(b))
}

func (s *stream) write(kind, data string) error {
	if !s.begun {
		s.begun = true
		s.c.Header("Content-Type", "text/event-stream")
		s.c.Header("Cache-Control", "no-store")
		s.c.Header("X-Accel-Buffering", "no")
		s.c.Status(http.StatusOK)
	}
	if kind != "" {
		kind = "event: " + kind + "\n"
	}
	_, err := fmt.Fprintf(s.c.Writer, "%sdata: %s\n\n", kind, data)
	s.c.Writer.Flush()
	return err
}

// end sends an error that came after the first event, as OpenAI does; one that came before is
// returned.
func (s *stream) end(err error) error {
	if err == nil || !s.begun {
		return err
	}
	_, body := describe(s.c, err)
	_ = s.send("error", gin.H{"error": body}) // a client that is gone does not read it
	return nil
}
