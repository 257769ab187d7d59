package tokenizer

import "strings"

// Stream decodes ids as they come. It is not safe for concurrent use.
type Stream struct {
	t           *Tokenizer
	keepSpecial bool
	ids         []int64 // the last that were returned, for the context they give, and those that wait
	shown       string  // what of them was returned
	context     int     // how many ids shown is of
}

// Stream starts to decode a text; keepSpecial is as in [Tokenizer.Decode].
func (t *Tokenizer) Stream(keepSpecial bool) *Stream {
	return &Stream{t: t, keepSpecial: keepSpecial}
}

// Next takes the next id and returns the text that is now known. A character of which bytes
// are still missing is held back.
func (s *Stream) Next(id int64) string {
	s.ids = append(s.ids, id)
	text := s.t.Decode(s.ids, s.keepSpecial)
	if len(text) <= len(s.shown) || strings.HasSuffix(text, "\uFFFD") || !strings.HasPrefix(text, s.shown) {
		return ""
	}
	return s.show(text)
}

// show returns what is new in the text, and keeps the ids that were new as context.
func (s *Stream) show(text string) string {
	fresh := text[len(s.shown):]
	waited := len(s.ids) - s.context
	s.ids = append(s.ids[:0], s.ids[s.context:]...)
	s.context = waited
	s.shown = s.t.Decode(s.ids, s.keepSpecial)
	return fresh
}

// Flush ends the text and returns what was held back; bytes that make no character are U+FFFD.
func (s *Stream) Flush() string {
	text := s.t.Decode(s.ids, s.keepSpecial)
	fresh, _ := strings.CutPrefix(text, s.shown)
	s.ids, s.shown, s.context = nil, "", 0
	return fresh
}
