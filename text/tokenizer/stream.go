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
	text := s.text()
	if strings.HasSuffix(text, incomplete) {
		return ""
	}
	return s.show(text)
}

// incomplete is how decoders write bytes that are no character, or not yet.
const incomplete = "\uFFFD"

// text is what the ids read as. If that contradicts what was shown, which a decoder may do after
// broken bytes, it is what the new ids read as alone.
func (s *Stream) text() string {
	text := s.t.Decode(s.ids, s.keepSpecial)
	if strings.HasPrefix(text, s.shown) || strings.HasSuffix(text, incomplete) {
		return text
	}
	s.ids, s.shown, s.context = s.ids[s.context:], "", 0
	return s.t.Decode(s.ids, s.keepSpecial)
}

// show returns what is new in the text, and keeps the ids that were new as context.
func (s *Stream) show(text string) string {
	fresh := text[len(s.shown):]
	if fresh == "" {
		return ""
	}
	waited := len(s.ids) - s.context
	s.ids = append(s.ids[:0], s.ids[s.context:]...)
	s.context = waited
	s.shown = s.t.Decode(s.ids, s.keepSpecial)
	return fresh
}

// Flush ends the text and returns what was held back; bytes that make no character are U+FFFD.
func (s *Stream) Flush() string {
	text := s.t.Decode(s.ids, s.keepSpecial)
	if !strings.HasPrefix(text, s.shown) {
		text, s.shown = s.t.Decode(s.ids[s.context:], s.keepSpecial), ""
	}
	fresh := text[len(s.shown):]
	s.ids, s.shown, s.context = nil, "", 0
	return fresh
}
