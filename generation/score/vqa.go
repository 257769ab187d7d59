package score

import (
	"regexp"
	"slices"
	"strings"
)

// VQAAccuracy is the accuracy of an answer among those that people gave, in 0..1: over the people,
// the mean of min(1, agreeing others / 3) (Antol et al. 2015). Where people differ all answers
// are normalised first ([NormalizeAnswer]); where they agree they are compared as they are, as
// the challenge's script has it. It is made for ten people. With fewer than four it can't reach
// 1, and one person leaves no others: then it is [ExactAnswer].
func VQAAccuracy(answer string, people []string) float64 {
	if len(people) == 1 {
		return ExactAnswer(answer, people)
	}
	answer = oneLine(answer)
	given := make([]string, len(people))
	for i, p := range people {
		given[i] = oneLine(p)
	}
	if slices.ContainsFunc(given, func(g string) bool { return g != given[0] }) {
		answer = NormalizeAnswer(answer)
		for i := range given {
			given[i] = NormalizeAnswer(given[i])
		}
	}
	agree := 0
	for _, g := range given {
		if g == answer {
			agree++
		}
	}
	sum := 0.0
	for _, g := range given {
		others := agree
		if g == answer {
			others--
		}
		sum += min(1, float64(others)/3)
	}
	return sum / float64(max(1, len(given)))
}

// ExactAnswer is 1 where an answer, normalised, is one of people's, else 0.
func ExactAnswer(answer string, people []string) float64 {
	answer = NormalizeAnswer(oneLine(answer))
	if slices.ContainsFunc(people, func(p string) bool { return NormalizeAnswer(oneLine(p)) == answer }) {
		return 1
	}
	return 0
}

// NormalizeAnswer brings an answer to the form in which the VQA challenge compares them: lower
// case, no punctuation and no articles, digits for numbers up to ten, apostrophes where
// contractions lack one (GT-Vision-Lab/VQA, vqaEval.py).
func NormalizeAnswer(answer string) string {
	var words []string
	for _, w := range strings.Fields(strings.ToLower(dropPunctuation(answer))) {
		if digits, ok := numbers[w]; ok {
			w = digits
		}
		if w == "a" || w == "an" || w == "the" {
			continue
		}
		if c, ok := contractions[w]; ok {
			w = c
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

func oneLine(s string) string {
	return strings.TrimSpace(strings.NewReplacer("\n", " ", "\t", " ").Replace(s))
}

// punctuation is what answers lose; a period only where no digit follows.
const punctuation = `;/[]"{}()=+\_-><@` + "`,?!"

var commaInNumber = regexp.MustCompile(`\d,\d`)

// dropPunctuation drops a mark that stands beside a space, and all of them where the answer has a
// number with a comma; else a space takes its place. The script stops after 32 periods.
func dropPunctuation(s string) string {
	number := commaInNumber.MatchString(s)
	out := s
	for _, r := range punctuation {
		p := string(r)
		with := " "
		if number || strings.Contains(s, p+" ") || strings.Contains(s, " "+p) {
			with = ""
		}
		out = strings.ReplaceAll(out, p, with)
	}
	var kept strings.Builder
	dropped := 0
	for i := range len(out) {
		followed := i+1 < len(out) && out[i+1] >= '0' && out[i+1] <= '9'
		if out[i] == '.' && !followed && dropped < 32 {
			dropped++
			continue
		}
		kept.WriteByte(out[i])
	}
	return kept.String()
}

var numbers = map[string]string{
	"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5",
	"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}

// contractions maps each contraction that lacks one of its apostrophes to the whole. The list is
// that of the challenge's script: others, "I'll" for one, stay as they are written.
var contractions = missingApostrophes(strings.Fields(`
	ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
	how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've o'clock oughtn't
	'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
	someone's something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're they've
	'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's
	who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've`))

func missingApostrophes(whole []string) map[string]string {
	m := map[string]string{"somebody'd": "somebodyd"} // the script has it the other way round
	for _, w := range whole {
		for i := range len(w) {
			if w[i] == '\'' {
				m[w[:i]+w[i+1:]] = w
			}
		}
	}
	return m
}
