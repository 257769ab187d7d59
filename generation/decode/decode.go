// Package decode makes texts of a model that says how likely each token is to come next: greedily, by beam
// search or by drawing, as transformers' generate does (version 5.23). It knows token ids, logits and text, and
// nothing of ONNX, images or prompts.
//
// Each text is a search of its own, with its own options; those of a batch only share the model's runs. So a text
// never depends on its company, save for rounding within the model.
package decode

import (
	"context"
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/text/tokenizer"
)

// Model is what texts are made with. It keeps, for each of its rows, what was said so far.
type Model interface {
	// Start computes the logits [R,V] of the tokens that follow the R requests' openings.
	Start(ctx context.Context) (logits []float32, err error)
	// Next makes row i what row from[i] was, with tokens[i] behind it, and computes the logits
	// [len(tokens),V] of the tokens that follow. Rows may be left out, repeated and reordered.
	Next(ctx context.Context, from []int, tokens []int64) (logits []float32, err error)
}

// Request is one text to be made.
type Request struct {
	Opening []int64 // the ids that the text begins with; may be empty where the model starts from other things
	// Before is how many places of the model's lie before the opening, which MaxLength and MinLength count too.
	Before int
	// Room is how many tokens, the opening's among them, the model has places for; 0: as many as one likes.
	Room    int
	Options Options
	// OnText, where set, is called with each piece of text as soon as it is certain. With beams that is
	// at the end. It is called from the goroutine that called [Generate].
	OnText func(piece string)
}

// Finish says why a text ended.
type Finish string

// The reasons.
const (
	Stopped Finish = "stop"   // at an end token or a stop string
	Cut     Finish = "length" // at the limit of its length
)

// Result is a text made.
type Result struct {
	// Text is what the tokens read as, special ones and white space at its front left out, up to a stop string.
	Text   string
	Tokens []int64 // behind the opening, the end token among them
	Finish Finish
	// LogProb is the sum of the tokens' log-probabilities, as the model gives them and no option changes them.
	LogProb float64
}

// search makes one text.
type search interface {
	// advance is given the logits of the search's rows, [rows,V], and returns its next rows: which of the former ones
	// each continues, and with which token. None: the text is complete.
	advance(logits []float32, vocabulary int) (from []int, tokens []int64, err error)
	result() Result
}

// Generate makes the texts. An opening without room, or a limit over it, is an error of kind [errs.Invalid]; when ctx
// ends, so does the work, between two tokens or within a run of the model.
func Generate(ctx context.Context, m Model, t *tokenizer.Tokenizer, rs []Request) ([]Result, error) {
	searches, rows := make([]search, len(rs)), make([]int, len(rs))
	for i, r := range rs {
		limit, err := r.limit()
		if err != nil {
			return nil, err
		}
		searches[i], rows[i] = newSearch(r, limit, t), 1
	}
	logits, err := m.Start(ctx)
	for err == nil {
		var from []int
		var tokens []int64
		if from, tokens, err = advance(searches, rows, logits); err != nil || len(tokens) == 0 {
			break
		}
		if err = ctx.Err(); err == nil {
			logits, err = m.Next(ctx, from, tokens)
		}
	}
	if err != nil {
		return nil, err
	}
	results := make([]Result, len(rs))
	for i, s := range searches {
		results[i] = s.result()
	}
	return results, nil
}

func newSearch(r Request, limit int, t *tokenizer.Tokenizer) search {
	c := chooser{Request: r, limit: limit, process: r.processors(limit), text: t}
	if r.Options.Beams > 1 {
		return newBeams(c)
	}
	return newLine(c)
}

// advance gives each search that goes on its rows of the logits, and joins the rows that they want next. rows is how
// many each has, and becomes how many it wants.
func advance(searches []search, rows []int, logits []float32) (from []int, tokens []int64, err error) {
	total := 0
	for _, n := range rows {
		total += n
	}
	if total == 0 || len(logits) == 0 || len(logits)%total != 0 {
		return nil, nil, errs.New(errs.Internal, "the model gave %d logits for %d rows", len(logits), total)
	}
	vocabulary, at := len(logits)/total, 0
	for i, s := range searches {
		if rows[i] == 0 {
			continue
		}
		f, next, err := s.advance(logits[at*vocabulary:(at+rows[i])*vocabulary], vocabulary)
		if err != nil {
			return nil, nil, err
		}
		for _, row := range f {
			from = append(from, at+row)
		}
		tokens = append(tokens, next...)
		at, rows[i] = at+rows[i], len(next)
	}
	return from, tokens, nil
}

// limit is how many tokens the text may have, the opening's among them.
func (r Request) limit() (int, error) {
	if err := r.Options.Check(); err != nil {
		return 0, err
	}
	o, n := r.Options, len(r.Opening)
	if r.Room > 0 && n >= r.Room {
		return 0, errs.New(errs.Invalid, "an opening of %d tokens leaves none of the decoder's %d places to the text: shorten it, or the prefix before it", n, r.Room)
	}
	limit := n + defaultTokens
	switch {
	case o.MaxNewTokens > 0:
		limit = n + o.MaxNewTokens
	case o.MaxLength > 0:
		if limit = o.MaxLength - r.Before; limit <= n {
			return 0, errs.New(errs.Invalid, "max_length %d is used up by what precedes the text, %d places and %d tokens: raise it, or set max_new_tokens", o.MaxLength, r.Before, n)
		}
	case r.Room > 0:
		limit = min(limit, r.Room)
	}
	if r.Room > 0 && limit > r.Room {
		return 0, errs.New(errs.Invalid, "up to %d new tokens are asked for, behind an opening of %d; the decoder has places for %d: set max_new_tokens to %d or less", limit-n, n, r.Room, r.Room-n)
	}
	return limit, nil
}

// chooser is what both kinds of search share.
type chooser struct {
	Request
	limit   int // of tokens, the opening's among them
	process []processor
	text    *tokenizer.Tokenizer
}

// scored runs the processors on the scores of the token that follows ids.
func (c *chooser) scored(ids []int64, scores []float32) {
	for _, p := range c.process {
		p(ids, scores)
	}
}

// ends says whether a text of these ids, behind the opening, is complete: by its last token or its length.
func (c *chooser) ends(ids []int64) bool {
	return len(c.Opening)+len(ids) >= c.limit || slices.Contains(c.Options.Ends, ids[len(ids)-1])
}

// finished is the result of tokens and the text that was made of them.
func (c *chooser) finished(tokens []int64, logProb float64, w *writer) Result {
	r := Result{Text: w.text, Tokens: tokens, Finish: Cut, LogProb: logProb}
	if w.stopped || len(tokens) > 0 && slices.Contains(c.Options.Ends, tokens[len(tokens)-1]) {
		r.Finish = Stopped
	}
	return r
}
