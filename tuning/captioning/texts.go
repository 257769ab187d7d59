package captioning

import (
	"slices"

	"github.com/foretoken/foretoken/generation/caption"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/tuning"
)

// spoken is one text as the model would say it.
type spoken struct {
	opening []int64 // what stands before it: start tokens, a question
	words   []int64 // the text, and the token that ends it
}

// lesson is what the decoder reads of a text and what it is to say after each token. Openings are given, not learned. Where
// texts are open, what is said first is told at the last place before the text.
func (s spoken) lesson(open bool) (ids, targets []int64) {
	all := slices.Concat(s.opening, s.words)
	targets = slices.Clone(all)
	for i := range s.opening {
		targets[i] = ignored
	}
	if !open {
		targets = targets[1:]
	}
	return all[:len(all)-1], targets
}

// say turns each sample's captions, or the answers to its question, into tokens.
func (t *Trainer) say(samples []tuning.Sample) ([][]spoken, error) {
	if len(samples) == 0 {
		return nil, errs.New(errs.Invalid, "dataset %s has no training images", t.data.Dataset)
	}
	ends := t.model.Options().Ends
	if len(ends) == 0 {
		return nil, errs.New(errs.Invalid, "bundle %s: no token ends a text: set eos_token_id in generation_config.json", t.model.Bundle.Name)
	}
	room := t.Recipe.Caption.Longest
	all := make([][]spoken, len(samples))
	for i, s := range samples {
		opening, err := t.model.Opening(s.Item.Question)
		if err != nil {
			return nil, errs.New(errs.Of(err), "image %q: %w", s.Item.Path, err)
		}
		for _, text := range s.Item.Texts() {
			words, err := answerTokens(t.model, s.Item.Question, text)
			if err != nil {
				return nil, errs.New(errs.Of(err), "image %q: %w", s.Item.Path, err)
			}
			words = append(words, ends[0])
			words = words[:min(len(words), room)]
			if free := t.room() - len(opening); t.room() >= 0 && free < len(words) {
				if free < 1 {
					return nil, errs.New(errs.Invalid, "image %q: its question has %d tokens, the decoder has room for %d behind the prefix: shorten it, or lower prefix.tokens (now %d)", s.Item.Path, len(opening), t.room(), t.Recipe.Prefix.Tokens)
				}
				words = words[:free]
			}
			all[i] = append(all[i], spoken{opening, words})
		}
		if len(all[i]) == 0 {
			return nil, errs.New(errs.Invalid, "dataset %s: image %q has neither captions nor answers", t.data.Dataset, s.Item.Path)
		}
	}
	return all, nil
}

// room is how many tokens of opening and text fit the decoder's places behind the prefix; -1 where there is no limit.
func (t *Trainer) room() int {
	prefix := t.Recipe.Prefix.Tokens
	if t.parts.Mapped && t.Recipe.Method != tuning.CaptionMap {
		prefix += mapperTokens(t.parts.Mapper)
	}
	return t.parts.Decoder.LongestText(prefix)
}

// answerTokens are a text's tokens as they follow a question: for tokenizers that join a space to the word behind it, those
// of the text with one. Without a question they are the text's alone.
func answerTokens(m *caption.Model, question, text string) ([]int64, error) {
	words, err := plainTokens(m, text)
	if err != nil || question == "" {
		return words, err
	}
	before, err1 := plainTokens(m, question)
	both, err2 := plainTokens(m, question+" "+text)
	if err1 == nil && err2 == nil && len(both) > len(before) && slices.Equal(both[:len(before)], before) {
		return both[len(before):], nil
	}
	return words, nil
}

// plainTokens are a text's ids without special tokens.
func plainTokens(m *caption.Model, text string) ([]int64, error) {
	if text == "" {
		return nil, nil
	}
	tokens, err := m.Tokenizer.Plain(text)
	if err != nil {
		return nil, err
	}
	ids := make([]int64, len(tokens))
	for i, t := range tokens {
		ids[i] = int64(t.ID)
	}
	return ids, nil
}
