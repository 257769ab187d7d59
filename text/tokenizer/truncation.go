package tokenizer

import (
	"encoding/json"

	"github.com/foretoken/foretoken/internal/errs"
)

// truncation cuts what is longer than max tokens, special ones included.
type truncation struct {
	max      int
	stride   int // by how many tokens what overflows overlaps what is before it
	left     bool
	strategy string // which of a pair is cut
}

// longest bounds the lengths that a file may ask for.
const longest = 1 << 17

func readTruncation(raw json.RawMessage) (*truncation, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	s := struct {
		Max       int64  `json:"max_length"`
		Stride    int64  `json:"stride"`
		Strategy  string `json:"strategy"`
		Direction string `json:"direction"`
	}{Strategy: "LongestFirst", Direction: "Right"}
	if err := (config{raw: raw}).into(&s); err != nil {
		return nil, err
	}
	if s.Max < 0 || s.Max > longest || s.Stride < 0 || s.Stride > s.Max {
		return nil, errs.New(errs.Invalid, "truncation to %d tokens with a stride of %d: at most %d, and the stride below it", s.Max, s.Stride, longest)
	}
	switch s.Strategy {
	case "LongestFirst", "OnlyFirst", "OnlySecond":
	default:
		return nil, errs.New(errs.Unsupported, "its truncation strategy %q is not supported", s.Strategy)
	}
	left, err := isLeft(s.Direction)
	return &truncation{int(s.Max), int(s.Stride), left, s.Strategy}, err
}

func isLeft(direction string) (bool, error) {
	if direction != "Left" && direction != "Right" {
		return false, errs.New(errs.Unsupported, "its direction %q is not supported", direction)
	}
	return direction == "Left", nil
}

// cut cuts one text or two to windows, the first of which counts and the others overflow. room
// is how many tokens there are for them.
func (t *truncation) cut(texts [][]Token, room int) ([][][]Token, error) {
	lengths := make([]int, len(texts))
	total := 0
	for i, tokens := range texts {
		lengths[i] = len(tokens)
		total += len(tokens)
	}
	if total > room || room == 0 {
		if err := t.share(lengths, room, total-room); err != nil {
			return nil, err
		}
	}
	windows := make([][][]Token, len(texts))
	for i, tokens := range texts {
		var err error
		if windows[i], err = t.windows(tokens, lengths[i]); err != nil {
			return nil, err
		}
	}
	return windows, nil
}

// share sets how many tokens of each text stay, where excess have to go.
func (t *truncation) share(lengths []int, room, excess int) error {
	which := 0
	switch {
	case room == 0:
		clear(lengths)
		return nil
	case t.strategy == "LongestFirst" && len(lengths) == 2:
		shareBoth(lengths, room)
		return nil
	case t.strategy == "OnlySecond":
		which = 1
	}
	if which >= len(lengths) {
		return errs.New(errs.Invalid, "only the second text may be cut, and there is one")
	}
	if t.strategy != "LongestFirst" && lengths[which] <= excess {
		return errs.New(errs.Invalid, "a text of %d tokens can't be cut by %d", lengths[which], excess)
	}
	lengths[which] -= excess
	return nil
}

// shareBoth cuts the longer text to what the shorter leaves, and both to half, where that isn't enough.
func shareBoth(lengths []int, room int) {
	short, long := 0, 1
	if lengths[0] > lengths[1] {
		short, long = 1, 0
	}
	n := lengths[short]
	lengths[long] = n
	if n <= room {
		lengths[long] = max(n, room-n)
	}
	if n+lengths[long] > room {
		lengths[short] = room / 2
		lengths[long] = room/2 + room%2
	}
}

// maxOverlap bounds how many windows a token may be in.
const maxOverlap = 64

// windows cuts tokens to windows of n, each of which begins stride before the end of the last.
func (t *truncation) windows(tokens []Token, n int) ([][]Token, error) {
	switch {
	case n >= len(tokens):
		return [][]Token{tokens}, nil
	case n == 0:
		return [][]Token{nil, tokens}, nil
	case t.stride >= n || n > maxOverlap*(n-t.stride):
		return nil, errs.New(errs.Invalid, "truncation to %d tokens, special ones not counted, with a stride of %d: each token would be in more than %d windows", n, t.stride, maxOverlap)
	}
	var all [][]Token
	for i := 0; ; i += n - t.stride {
		lo, hi := i, min(i+n, len(tokens))
		if t.left {
			lo, hi = max(0, len(tokens)-i-n), len(tokens)-i
		}
		all = append(all, tokens[lo:hi:hi])
		if t.left && lo == 0 || !t.left && hi == len(tokens) {
			return all, nil
		}
	}
}

// padding fills up what is shorter.
type padding struct {
	fixed    int // 0: to the longest of a batch
	multiple int
	left     bool
	token    Token
}

func readPadding(raw json.RawMessage) (*padding, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	s := struct {
		Strategy  json.RawMessage `json:"strategy"` // "BatchLongest" or {"Fixed":64}
		Direction string          `json:"direction"`
		Multiple  *int64          `json:"pad_to_multiple_of"`
		ID        int64           `json:"pad_id"`
		Segment   int64           `json:"pad_type_id"`
		Token     string          `json:"pad_token"`
	}{Direction: "Right"}
	if err := (config{raw: raw}).into(&s); err != nil {
		return nil, err
	}
	p := &padding{token: Token{ID: s.ID, Text: s.Token, Word: -1, Special: true, Padding: true, Segment: s.Segment}}
	var err error
	if p.left, err = isLeft(s.Direction); err != nil {
		return nil, err
	}
	if p.fixed, err = readFixed(s.Strategy); err != nil {
		return nil, err
	}
	if s.Multiple != nil {
		if *s.Multiple < 0 || *s.Multiple > longest {
			return nil, errs.New(errs.Invalid, "padding to a multiple of %d, limit %d", *s.Multiple, longest)
		}
		p.multiple = int(*s.Multiple)
	}
	return p, nil
}

func readFixed(strategy json.RawMessage) (int, error) {
	if string(strategy) == `"BatchLongest"` {
		return 0, nil
	}
	var s struct {
		Fixed *int64 `json:"Fixed"`
	}
	if json.Unmarshal(strategy, &s) != nil || s.Fixed == nil {
		return 0, errs.New(errs.Unsupported, "its padding strategy %s is not supported", shorten(string(strategy)))
	}
	if *s.Fixed < 0 || *s.Fixed > longest {
		return 0, errs.New(errs.Invalid, "padding to %d tokens, limit %d", *s.Fixed, longest)
	}
	return int(*s.Fixed), nil
}

// length is what texts of which the longest has so many tokens are padded to.
func (p *padding) length(longest int) int {
	if p.fixed > 0 {
		longest = p.fixed
	}
	if p.multiple > 0 && longest%p.multiple > 0 {
		longest += p.multiple - longest%p.multiple
	}
	return longest
}

// pad fills tokens up to a length.
func (p *padding) pad(tokens []Token, length int) []Token {
	if len(tokens) >= length {
		return tokens
	}
	padded := make([]Token, 0, length)
	if !p.left {
		padded = append(padded, tokens...)
	}
	for range length - len(tokens) {
		padded = append(padded, p.token)
	}
	if p.left {
		padded = append(padded, tokens...)
	}
	return padded
}
