package dataset

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/foretoken/foretoken/internal/errs"
)

// What texts may cost, besides [Limits].
const (
	maxText  = 8 << 10 // bytes of a caption, question or answer
	maxTexts = 100     // captions of an image, or answers to a question
	maxRows  = 2_000_000
)

// text is what is said about an image in one place: captions, or a question with its answers.
type text struct {
	image    string // the image's name as it is written, "" where id names it
	id       string // the image's number in a COCO or VQA file
	captions []string
	question string
	answers  []string
	split    string // "" where nothing says
}

// reader is what reads a file of texts, by the file's name: nil where it is of no known kind.
func readerOf(name string) func(content []byte) ([]text, error) {
	switch base := strings.ToLower(path.Base(name)); {
	case base == "metadata.jsonl":
		return readJSONL
	case base == "metadata.csv":
		return readCSV
	}
	return nil
}

// decodeUTF8 takes off a byte order mark and refuses what is no UTF-8.
func decodeUTF8(b []byte) ([]byte, error) {
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	if utf8.Valid(b) {
		return b, nil
	}
	line := 1
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			break
		}
		if r == '\n' {
			line++
		}
		b = b[n:]
	}
	return nil, errs.New(errs.Invalid, "line %d is not UTF-8", line)
}

// oneOrMore is a JSON string or a list of them.
type oneOrMore []string

// UnmarshalJSON reads either form; null is none.
func (l *oneOrMore) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var s string
		err := json.Unmarshal(b, &s)
		*l = oneOrMore{s}
		return err
	}
	return json.Unmarshal(b, (*[]string)(l))
}

// described is a row of Hugging Face's imagefolder: the keys that are read.
type described struct {
	FileName string    `json:"file_name"`
	Text     oneOrMore `json:"text"`
	Caption  oneOrMore `json:"caption"`
	Captions oneOrMore `json:"captions"`
	Question string    `json:"question"`
	Answer   oneOrMore `json:"answer"`
	Answers  oneOrMore `json:"answers"`
	Split    string    `json:"split"`
}

func (d described) text() (text, error) {
	if d.FileName == "" {
		return text{}, errs.New(errs.Invalid, `no "file_name"`)
	}
	t := text{image: d.FileName, question: d.Question, split: splitFolders[strings.ToLower(d.Split)]}
	if d.Split != "" && t.split == "" {
		return text{}, errs.New(errs.Invalid, "split %.80q, must be train, validation or test", d.Split)
	}
	t.captions = slices.Concat(d.Text, d.Caption, d.Captions)
	t.answers = slices.Concat(d.Answer, d.Answers)
	err := t.clean()
	return t, err
}

// clean tidies all texts, drops empty ones and refuses what is over a limit.
func (t *text) clean() error {
	for _, list := range []*[]string{&t.captions, &t.answers} {
		if len(*list) > maxTexts {
			return errs.New(errs.TooLarge, "%d texts of image %.200q, limit %d", len(*list), cmp.Or(t.image, t.id), maxTexts)
		}
		var kept []string
		for _, s := range *list {
			s, err := tidy(s)
			if err != nil {
				return err
			}
			if s != "" {
				kept = append(kept, s)
			}
		}
		*list = kept
	}
	var err error
	if t.question, err = tidy(t.question); err != nil {
		return err
	}
	if t.question != "" && len(t.captions) > 0 {
		return errs.New(errs.Invalid, "image %.200q has captions and a question in one row: give each a row", cmp.Or(t.image, t.id))
	}
	if t.question == "" && len(t.answers) > 0 {
		return errs.New(errs.Invalid, "image %.200q has answers without a question", cmp.Or(t.image, t.id))
	}
	return nil
}

// tidy makes each run of white space one space, and refuses control characters and lengths
// over the limit.
func tidy(s string) (string, error) {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxText {
		return "", errs.New(errs.TooLarge, "text of %d bytes, limit %d: %.80q", len(s), maxText, s)
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return "", errs.New(errs.Invalid, "control character in the text %.80q", s)
	}
	return s, nil
}

// readJSONL reads a metadata.jsonl: a JSON object a line, as Hugging Face's imagefolder has it.
func readJSONL(b []byte) ([]text, error) {
	var texts []text
	line := 0
	for rest := range bytes.Lines(b) {
		line++
		rest = bytes.TrimSpace(rest)
		if len(rest) == 0 {
			continue
		}
		var d described
		if err := json.Unmarshal(rest, &d); err != nil {
			return nil, errs.New(errs.Invalid, "line %d: %w", line, err)
		}
		t, err := d.text()
		if err != nil {
			return nil, errs.New(errs.Of(err), "line %d: %w", line, err)
		}
		if texts = append(texts, t); len(texts) > maxRows {
			return nil, errTooManyRows
		}
	}
	return texts, nil
}

var errTooManyRows = errs.New(errs.TooLarge, "more than %d texts", maxRows)

// readCSV reads a metadata.csv: the first row names the columns, as imagefolder has it.
func readCSV(b []byte) ([]text, error) {
	r := csv.NewReader(bytes.NewReader(b))
	header, err := r.Read()
	if err != nil {
		return nil, errs.New(errs.Invalid, "the row of column names: %w", err)
	}
	seen := map[string]bool{}
	for _, name := range header {
		if seen[name] {
			return nil, errs.New(errs.Invalid, "two columns are called %.80q", name)
		}
		seen[name] = true
	}
	if !seen["file_name"] {
		return nil, errs.New(errs.Invalid, `no column "file_name"; there are %.300q`, header)
	}
	var texts []text
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return texts, nil
		}
		if err != nil {
			return nil, errs.New(errs.Invalid, "%w", err) // says its line
		}
		line, _ := r.FieldPos(0)
		t, err := fromColumns(header, row).text()
		if err != nil {
			return nil, errs.New(errs.Of(err), "line %d: %w", line, err)
		}
		if texts = append(texts, t); len(texts) > maxRows {
			return nil, errTooManyRows
		}
	}
}

func fromColumns(header, row []string) (d described) {
	for i, name := range header {
		one := oneOrMore{row[i]}
		switch name {
		case "file_name":
			d.FileName = row[i]
		case "text":
			d.Text = one
		case "caption":
			d.Caption = one
		case "captions":
			d.Captions = one
		case "question":
			d.Question = row[i]
		case "answer":
			d.Answer = one
		case "answers":
			d.Answers = one
		case "split":
			d.Split = row[i]
		}
	}
	return d
}

// coco gathers the JSON files of COCO captions, of Karpathy's splits and of VQA v2, whose parts may lie in several
// files: images with numbers, captions by an image's number, questions, and answers by a
// question's number.
type coco struct {
	names     map[string][2]string // an image's number: its file's name and its split
	texts     []text               // captions, and questions
	questions map[string]int       // a question's number: its index in texts
	answers   map[string][]string  // by a question's number
	rows      int
}

func newCOCO() *coco {
	return &coco{names: map[string][2]string{}, questions: map[string]int{}, answers: map[string][]string{}}
}

// cocoRow has the keys of an image, an annotation and a question together.
type cocoRow struct {
	ID       json.RawMessage `json:"id"`
	FileName string          `json:"file_name"`

	// Karpathy's splits of COCO and Flickr: captions within the images.
	Filename  string `json:"filename"`
	Filepath  string `json:"filepath"`
	Split     string `json:"split"`
	Sentences []struct {
		Raw string `json:"raw"`
	} `json:"sentences"`

	ImageID    json.RawMessage `json:"image_id"`
	Caption    string          `json:"caption"`
	QuestionID json.RawMessage `json:"question_id"`
	Question   string          `json:"question"`
	Answers    json.RawMessage `json:"answers"`
	Answer     string          `json:"multiple_choice_answer"`
}

// read takes in one JSON file. It says false where the file is of another kind, which is no
// error; a file that begins like one of these and then breaks is.
func (c *coco) read(name string, b []byte) (bool, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return false, nil
	}
	known := false
	for d.More() {
		key, err := d.Token()
		if err == nil {
			switch key {
			case "images", "annotations", "questions":
				err = c.list(d, key.(string), splitIn(name), &known)
			default:
				err = d.Decode(new(json.RawMessage))
			}
		}
		if err != nil && known {
			return true, errs.New(errs.Or(err, errs.Invalid), "at byte %d: %w", d.InputOffset(), err)
		}
		if err != nil {
			return false, nil
		}
	}
	return known, nil
}

// list reads the rows under one key. They are known by what the first of them has.
func (c *coco) list(d *json.Decoder, key, split string, known *bool) error {
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return errs.New(errs.Invalid, "%q is no list", key)
	}
	for d.More() {
		var row cocoRow
		if err := d.Decode(&row); err != nil {
			return fmt.Errorf("%q: %w", key, err)
		}
		if c.rows++; c.rows > maxRows {
			return errTooManyRows
		}
		used, err := c.take(key, row, split)
		if err != nil {
			return err
		}
		*known = *known || used
	}
	_, err := d.Token()
	return err
}

// take keeps one row, and says whether it is of captions or questions.
func (c *coco) take(key string, row cocoRow, split string) (bool, error) {
	image, question := number(row.ImageID), number(row.QuestionID)
	switch {
	case key == "images" && row.FileName != "":
		c.names[number(row.ID)] = [2]string{row.FileName, split}
	case key == "questions" && question != "":
		if _, twice := c.questions[question]; twice {
			return true, errs.New(errs.Invalid, "question_id %.40s is there twice", question)
		}
		c.questions[question] = len(c.texts)
		return true, c.add(text{id: image, question: row.Question, split: split})
	case key == "annotations" && question != "":
		answers, err := vqaAnswers(row)
		c.answers[question] = answers
		return true, err
	case key == "annotations" && row.Caption != "":
		return true, c.add(text{id: image, captions: []string{row.Caption}, split: split})
	case key == "images" && len(row.Sentences) > 0:
		t := text{image: path.Join(row.Filepath, row.Filename), split: splitFolders[row.Split]}
		if row.Split == "restval" { // the part of COCO's validation images that is trained on
			t.split = Train
		}
		for _, s := range row.Sentences {
			t.captions = append(t.captions, s.Raw)
		}
		return true, c.add(t)
	}
	return false, nil
}

func (c *coco) add(t text) error {
	err := t.clean()
	c.texts = append(c.texts, t)
	return err
}

// vqaAnswers are the answers of ten people, or the one that is given.
func vqaAnswers(row cocoRow) ([]string, error) {
	var answers []string
	if row.Answers != nil {
		var list []struct {
			Answer string `json:"answer"`
		}
		if err := json.Unmarshal(row.Answers, &list); err != nil {
			return nil, errs.New(errs.Invalid, "answers: %w", err)
		}
		for _, a := range list {
			answers = append(answers, a.Answer)
		}
	} else if row.Answer != "" {
		answers = []string{row.Answer}
	}
	t := text{question: "?", answers: answers}
	err := t.clean()
	return t.answers, err
}

// number is an identifier as it is written, without quotes.
func number(raw json.RawMessage) string { return strings.Trim(string(raw), `"`) }

// join puts names to captions and answers to questions.
func (c *coco) join() []text {
	for question, i := range c.questions {
		c.texts[i].answers = c.answers[question]
	}
	for i := range c.texts {
		if name, ok := c.names[c.texts[i].id]; ok {
			c.texts[i].image = name[0]
			c.texts[i].split = cmp.Or(c.texts[i].split, name[1])
		}
	}
	return c.texts
}

// splitWord finds a split's name in that of a file such as captions_val2017.json.
var splitWord = regexp.MustCompile(`(?i)(?:^|[^a-z])(train|val|valid|validation|test)(?:20\d\d)?(?:[^a-z0-9]|$)`)

// splitIn is the split that a name has in it, "" for none or more than one.
func splitIn(name string) string {
	found := splitWord.FindAllStringSubmatch(path.Base(name), -1)
	if len(found) != 1 {
		return ""
	}
	return splitFolders[strings.ToLower(found[0][1])]
}
