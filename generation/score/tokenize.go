package score

import (
	"regexp"
	"strings"
)

// Tokenize splits a caption into lower-case tokens without punctuation, near to what pycocoevalcap
// does: Stanford's PTBTokenizer, then dropping punctuation. As there, contractions are split
// (do n't, it 's), words with hyphens are one token, abbreviations keep their periods, symbols
// such as $ and % stay, and brackets become -lrb-, -rrb- and so on. What differs is rare in
// captions; docs/methods.md lists it.
func Tokenize(text string) []string {
	text = straight.Replace(strings.ToLower(text))
	var tokens []string
	for _, t := range token.FindAllString(text, -1) {
		switch {
		case dropped[t]:
		case brackets[t] != "":
			tokens = append(tokens, brackets[t])
		default:
			tokens = append(tokens, splitContraction(t)...)
		}
	}
	return tokens
}

var straight = strings.NewReplacer("’", "'", "‘", "'", "“", `"`, "”", `"`, "…", " ", "–", " - ", "—", " - ")

// token matches, the first that fits: addresses, decades, abbreviations, numbers, words, single
// characters.
var token = regexp.MustCompile(strings.Join([]string{
	`[a-z]+://\S+`,
	`[\p{L}\p{N}._]+@[\p{L}\p{N}.-]+[\p{L}\p{N}]`,
	`[@]\p{L}[\p{L}\p{N}_]*`,
	`'\d\ds\b`,
	`'t(?:was|is)\b`,
	`(?:[a-z]\.){2,}`,
	`ph\.d\.`,
	`(?:mr|mrs|ms|dr|st|jr|sr|vs|etc|prof|mt|ave|co|inc|ltd)\.`,
	`[+-]?\.?\d+(?:[.,:/]\d+)*(?:-?[\p{L}\p{N}]+)*(?:'s\b)?`,
	`[\p{L}\p{N}\p{M}]+(?:[-_/.&'][\p{L}\p{N}\p{M}]+)*`,
	`\S`,
}, "|"))

// dropped are the tokens that do not count; the list is pycocoevalcap's, for single characters.
var dropped = set("'", `"`, "`", ".", "?", "!", ",", ":", "-", ";")

func set(members ...string) map[string]bool {
	m := map[string]bool{}
	for _, s := range members {
		m[s] = true
	}
	return m
}

var brackets = map[string]string{"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}

// joined are words that the Penn Treebank writes as two.
var joined = map[string]int{
	"cannot": 3, "gonna": 3, "gotta": 3, "wanna": 3, "gimme": 3, "lemme": 3, "'twas": 2, "'tis": 2, "y'all": 2,
}

// endings are what is split off a word.
var endings = []string{"n't", "'s", "'m", "'d", "'ll", "'re", "'ve"}

// splitContraction parts do n't, it 's and the like.
func splitContraction(word string) []string {
	if at := joined[word]; at > 0 {
		return []string{word[:at], word[at:]}
	}
	for _, e := range endings {
		if stem, ok := strings.CutSuffix(word, e); ok && stem != "" {
			return append(splitContraction(stem), e)
		}
	}
	return []string{word}
}
