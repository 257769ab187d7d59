package tokenizer

import "unicode"

// newBertNormalizer makes BERT's normalizer: white space and controls cleaned, ideographs set
// apart, accents stripped, letters lowered, each where it is asked for.
func newBertNormalizer(c config) (normalizer, error) {
	s := struct {
		Clean        bool  `json:"clean_text"`
		Ideographs   bool  `json:"handle_chinese_chars"`
		StripAccents *bool `json:"strip_accents"` // as Lowercase, if it isn't given
		Lowercase    bool  `json:"lowercase"`
	}{Clean: true, Ideographs: true, Lowercase: true}
	if err := c.into(&s); err != nil {
		return nil, err
	}
	strip := s.Lowercase
	if s.StripAccents != nil {
		strip = *s.StripAccents
	}
	return func(a *aligned) {
		if s.Clean {
			clean(a)
		}
		if s.Ideographs {
			setApart(a)
		}
		if strip {
			nfd.normalize(a)
			a.remove(func(c rune) bool { return in8(c, unicode.Mn) })
		}
		if s.Lowercase {
			lowercase(a)
		}
	}, nil
}

func clean(a *aligned) {
	a.remove(func(c rune) bool {
		if c == '\t' || c == '\n' || c == '\r' {
			return false
		}
		return c == 0 || c == 0xFFFD || in8(c, unicode.Cc, unicode.Cf, unicode.Co)
	})
	a.each(func(c rune) rune {
		if unicode.IsSpace(c) {
			return ' '
		}
		return c
	})
}

// setApart puts spaces around each ideograph.
func setApart(a *aligned) {
	var edits []edit
	found := false
	for _, c := range a.text {
		if !unicode.Is(ideographs, c) {
			edits = append(edits, edit{c, 0})
			continue
		}
		found = true
		edits = append(edits, edit{' ', 0}, edit{c, 1}, edit{' ', 1})
	}
	if found {
		a.apply(edits, 0)
	}
}

var ideographs = &unicode.RangeTable{
	R16: []unicode.Range16{{Lo: 0x3400, Hi: 0x4DBF, Stride: 1}, {Lo: 0x4E00, Hi: 0x9FFF, Stride: 1}, {Lo: 0xF900, Hi: 0xFAFF, Stride: 1}},
	R32: []unicode.Range32{
		{Lo: 0x20000, Hi: 0x2A6DF, Stride: 1},
		{Lo: 0x2A700, Hi: 0x2B73F, Stride: 1},
		{Lo: 0x2B740, Hi: 0x2B81F, Stride: 1},
		{Lo: 0x2B920, Hi: 0x2CEAF, Stride: 1},
		{Lo: 0x2F800, Hi: 0x2FA1F, Stride: 1},
	},
}
