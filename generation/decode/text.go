package decode

import (
	"slices"
	"strings"

	"github.com/foretoken/foretoken/text/tokenizer"
)

// writer turns tokens into text as they come, and holds back what may be the front of a stop string.
type writer struct {
	stream  *tokenizer.Stream
	ends    []int64
	stop    []string
	onText  func(string)
	held    string
	text    string // what was let go
	stopped bool   // a stop string came
}

func newWriter(c chooser) *writer {
	return &writer{stream: c.text.Stream(false), ends: c.Options.Ends, stop: c.Options.Stop, onText: c.OnText}
}

// add takes the next token.
func (w *writer) add(token int64) {
	if !slices.Contains(w.ends, token) { // whose text, where it is not a special token, is none of the answer
		w.write(w.stream.Next(token))
	}
}

// end lets go what is left.
func (w *writer) end() {
	if w.stopped {
		return
	}
	w.write(w.stream.Flush())
	if !w.stopped {
		w.release(len(w.held))
	}
}

func (w *writer) write(piece string) {
	w.held += piece
	first := -1
	for _, s := range w.stop {
		if i := strings.Index(w.held, s); i >= 0 && (first < 0 || i < first) {
			first = i
		}
	}
	if first >= 0 {
		w.release(first)
		w.held, w.stopped = "", true
		return
	}
	w.release(len(w.held) - w.threatened())
}

// threatened is how much of the end of what is held may be the front of a stop string.
func (w *writer) threatened() int {
	longest := 0
	for _, s := range w.stop {
		for n := min(len(s)-1, len(w.held)); n > longest; n-- {
			if strings.HasSuffix(w.held, s[:n]) {
				longest = n
			}
		}
	}
	return longest
}

// release lets the first n bytes go, but for white space at the text's front.
func (w *writer) release(n int) {
	piece := w.held[:n]
	w.held = w.held[n:]
	if w.text == "" {
		piece = strings.TrimLeft(piece, " \t\r\n")
	}
	if piece == "" {
		return
	}
	w.text += piece
	if w.onText != nil {
		w.onText(piece)
	}
}
