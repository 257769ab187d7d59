package dataset

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/internal/errs"
)

// picture is a small image of its own bytes.
func picture(name string) [2]string { return [2]string{name, "2x2 " + name} }

// said writes an item's path, split and texts on one line.
func said(it Item) string {
	s := it.Path + " " + it.Split
	if it.Captions != nil {
		s += " " + strings.Join(it.Captions, "|")
	}
	if it.Question != "" {
		s += " " + it.Question + " " + strings.Join(it.Answers, "|")
	}
	return s
}

func TestTextsAreReadInTheLayoutsThatPeopleHave(t *testing.T) {
	tests := []struct {
		name  string
		files [][2]string
		kind  Kind
		items []string
		skips []string // paths
	}{
		{
			"imagefolder, JSON lines, a file for each split",
			[][2]string{
				picture("w/train/1.png"), picture("w/train/2.png"), picture("w/test/a/1.png"), picture("w/train/alone.png"),
				{"w/train/metadata.jsonl", "\ufeff" + `{"file_name":"1.png","text":"  a red\n cup ","label":3}` + "\r\n\n" + `{"file_name":"2.png","captions":["two","deux",""]}` + "\n" + `{"file_name":"3.png","text":"gone"}`},
				{"w/test/metadata.jsonl", `{"file_name":"a/1.png","caption":"a blue cup"}`},
			},
			Captions,
			[]string{"test/a/1.png test a blue cup", "train/1.png train a red cup", "train/2.png train two|deux"},
			[]string{"3.png", "train/alone.png"},
		},
		{
			"imagefolder, CSV, captions in several rows, splits in a column",
			[][2]string{
				picture("images/1.png"), picture("images/2.png"), picture("images/3.png"),
				{"metadata.csv", "file_name,caption,split,other\nimages/1.png,\"one, a\",train,x\nimages/2.png,two,val,x\nimages/1.png,one b,train,x\nimages/3.png,three,TEST,\n"},
			},
			Captions,
			[]string{"images/1.png train one, a|one b", "images/2.png validation two", "images/3.png test three"},
			nil,
		},
		{
			"questions in JSON lines",
			[][2]string{
				picture("1.png"), picture("val/2.png"),
				{"metadata.jsonl", `{"file_name":"1.png","question":"how many?","answers":["2","two"]}` + "\n" + `{"file_name":"1.png","question":"what colour?","answer":"red"}` + "\n" +
					`{"file_name":"1.png","question":"how many?","answer":"again"}` + "\n" + `{"file_name":"val/2.png","question":"who?"}`},
			},
			Questions,
			[]string{"1.png train how many? 2|two", "1.png train what colour? red", "val/2.png validation who? "},
			nil,
		},
		{
			"COCO captions, the same names in two folders",
			[][2]string{
				picture("coco/train2017/000000000009.jpg"), picture("coco/val2017/000000000009.jpg"), picture("coco/val2017/000000000010.jpg"),
				{"coco/annotations/captions_train2017.json", `{"info":{},"images":[{"id":9,"file_name":"000000000009.jpg","height":2},{"id":11,"file_name":"000000000011.jpg"}],
					"annotations":[{"image_id":9,"id":1,"caption":"A tree."},{"image_id":9,"id":2,"caption":"A green tree."},{"image_id":11,"id":3,"caption":"missing"}]}`},
				{"coco/annotations/captions_val2017.json", `{"annotations":[{"image_id":10,"id":4,"caption":"A lake."}],"images":[{"id":10,"file_name":"000000000010.jpg"}]}`},
			},
			Captions,
			[]string{"train2017/000000000009.jpg train A tree.|A green tree.", "val2017/000000000010.jpg validation A lake."},
			[]string{"000000000011.jpg", "val2017/000000000009.jpg"},
		},
		{
			"Karpathy's splits",
			[][2]string{
				picture("val2014/COCO_val2014_1.jpg"), picture("train2014/COCO_train2014_2.jpg"), picture("val2014/COCO_val2014_3.jpg"),
				{"dataset_coco.json", `{"images":[{"filepath":"val2014","filename":"COCO_val2014_1.jpg","split":"test","sentences":[{"raw":"one","tokens":["one"]},{"raw":"uno"}]},
					{"filepath":"train2014","filename":"COCO_train2014_2.jpg","split":"train","sentences":[{"raw":"two"}]},
					{"filepath":"val2014","filename":"COCO_val2014_3.jpg","split":"restval","sentences":[{"raw":"three"}]}],"dataset":"coco"}`},
			},
			Captions,
			[]string{"train2014/COCO_train2014_2.jpg train two", "val2014/COCO_val2014_1.jpg test one|uno", "val2014/COCO_val2014_3.jpg train three"},
			nil,
		},
		{
			"VQA v2",
			[][2]string{
				picture("train2014/COCO_train2014_000000000042.jpg"), picture("val2014/COCO_val2014_000000000043.jpg"),
				{"v2_OpenEnded_mscoco_train2014_questions.json", `{"data_subtype":"train2014","questions":[{"image_id":42,"question":"What is it?","question_id":420},{"image_id":42,"question":"Is it red?","question_id":421}]}`},
				{"v2_mscoco_train2014_annotations.json", `{"annotations":[{"question_id":420,"image_id":42,"question_type":"what","answers":[{"answer":"cup","answer_confidence":"yes","answer_id":1},{"answer":"mug"}],"multiple_choice_answer":"cup"}]}`},
				{"v2_OpenEnded_mscoco_val2014_questions.json", `{"questions":[{"image_id":43,"question":"Where?","question_id":430},{"image_id":99,"question":"Which?","question_id":990}]}`},
				{"v2_mscoco_val2014_annotations.json", `{"annotations":[{"question_id":430,"image_id":43,"multiple_choice_answer":"here"}]}`},
			},
			Questions,
			[]string{
				"train2014/COCO_train2014_000000000042.jpg train What is it? cup|mug", "train2014/COCO_train2014_000000000042.jpg train Is it red? ",
				"val2014/COCO_val2014_000000000043.jpg validation Where? here",
			},
			[]string{"number 99"},
		},
		{
			"texts beside the images",
			[][2]string{
				picture("10_mug/1.png"),
				{"10_mug/1.txt", "a mug\non a table\n\n"},
				picture("10_mug/2.jpg"),
				{"10_mug/2.caption", "sks mug, white"},
				picture("10_mug/3.png"), picture("10_mug/4.png"),
				{"10_mug/4.txt", " \n"},
				picture("10_mug/5.png"),
				{"10_mug/5.txt", "\xff"},
				{"10_mug/readme.txt", "hello"},
				picture("10_mug/6.png"),
				{"10_mug/6.txt", "the text"},
				{"10_mug/6.caption", "the other"},
			},
			Captions,
			[]string{"10_mug/1.png a mug|on a table", "10_mug/2.jpg sks mug, white", "10_mug/6.png the text"},
			[]string{"10_mug/3.png", "10_mug/4.png", "10_mug/5.png"},
		},
		{
			"texts beside the images, with splits",
			[][2]string{picture("train/1.png"), {"train/1.txt", "one"}, picture("test/1.png"), {"test/1.txt", "uno"}},
			Captions,
			[]string{"test/1.png test uno", "train/1.png train one"},
			nil,
		},
		{
			"class folders with some texts",
			[][2]string{picture("cat/1.png"), {"cat/1.txt", "a cat"}, picture("cat/2.png"), picture("dog/1.png")},
			Classes,
			[]string{"cat/1.png a cat", "cat/2.png", "dog/1.png"},
			nil,
		},
		{"pictures", [][2]string{picture("1.png"), picture("2.png"), {"notes.json", "{}"}}, Pictures, []string{"1.png train", "2.png train"}, nil},
		{"pictures in a folder", [][2]string{picture("mug/1.png"), picture("mug/2.png")}, Pictures, []string{"mug/1.png train", "mug/2.png train"}, nil},
		{"pictures in split folders", [][2]string{picture("train/1.png"), picture("test/2.png")}, Pictures, []string{"test/2.png test", "train/1.png train"}, nil},
		{
			"detection boxes are no captions",
			[][2]string{picture("cat/1.png"), picture("dog/1.png"), {"instances.json", `{"images":[{"id":1,"file_name":"1.png"}],"annotations":[{"image_id":1,"bbox":[1,2,3,4]}]}`}, {"broken.json", `{"images":[`}},
			Classes,
			[]string{"cat/1.png", "dog/1.png"},
			nil,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, m := mustImport(t, tt.files)
			if v.Kind() != tt.kind {
				t.Errorf("kind %s, want %s", v.Kind(), tt.kind)
			}
			for i, it := range v.Items {
				got := said(it)
				if i < len(tt.items) && !v.SplitBy.Folders && v.Kind() != Pictures {
					got = strings.Replace(got, " "+it.Split, "", 1) // drawn by the seed
				}
				if i >= len(tt.items) || got != tt.items[i] {
					t.Errorf("item %d: %q", i, got)
				}
				if (it.Class == NoClass) != (tt.kind != Classes) {
					t.Errorf("item %d has the class %d", i, it.Class)
				}
			}
			if len(v.Items) != len(tt.items) {
				t.Errorf("%d items, want %d", len(v.Items), len(tt.items))
			}
			var skips []string
			for _, s := range v.Skipped {
				skips = append(skips, s.Path)
			}
			if !slices.Equal(skips, tt.skips) {
				t.Errorf("left out %q, want %q", v.Skipped, tt.skips)
			}
			loaded, err := Load(t.Context(), m, "pets", v.Digest)
			if err != nil || !reflect.DeepEqual(loaded, v) {
				t.Errorf("loaded as %+v, %v", loaded, err)
			}
			backwards := slices.Clone(tt.files)
			slices.Reverse(backwards)
			if again, _ := mustImport(t, backwards); again.Digest != v.Digest {
				t.Errorf("in another order the digest is %s, not %s", again.Digest, v.Digest)
			}
			dir, err := ImportDir(t.Context(), newMemory(), writeDir(t, tt.files), options())
			if err != nil || dir.Digest != v.Digest {
				t.Errorf("as a folder: %+v, %v", dir, err)
			}
		})
	}
}

func TestHostileTextsAreRefused(t *testing.T) {
	long := strings.Repeat("x", maxText+1)
	jsonl := func(s string) [][2]string {
		return [][2]string{picture("1.png"), {"metadata.jsonl", `{"file_name":"1.png","text":"good"}` + "\n" + s}}
	}
	csv := func(s string) [][2]string { return [][2]string{picture("1.png"), {"metadata.csv", s}} }
	vqa := func(s string) [][2]string { return [][2]string{picture("1.png"), {"q.json", s}} }
	tests := []struct {
		name  string
		files [][2]string
		kind  errs.Kind
		says  string
	}{
		{"a line that is no JSON", jsonl("{"), errs.Invalid, `"metadata.jsonl": line 2`},
		{"a line that is a list", jsonl("[1]"), errs.Invalid, "line 2"},
		{"a text that is a number", jsonl(`{"file_name":"1.png","text":7}`), errs.Invalid, "line 2"},
		{"a row without a file", jsonl(`{"text":"who"}`), errs.Invalid, `line 2: no "file_name"`},
		{"bytes that are no UTF-8", jsonl("{\"file_name\":\"1.png\",\"text\":\"\xc3\x28\"}"), errs.Invalid, "line 2 is not UTF-8"},
		{"a control character", jsonl(`{"file_name":"1.png","text":"a\u001b[2J"}`), errs.Invalid, "control character"},
		{"a long text", jsonl(`{"file_name":"1.png","text":"` + long + `"}`), errs.TooLarge, "text of 8193 bytes, limit 8192"},
		{"many texts", jsonl(`{"file_name":"1.png","text":[` + strings.Repeat(`"a",`, maxTexts) + `"a"]}`), errs.TooLarge, "101 texts"},
		{"an unknown split", jsonl(`{"file_name":"1.png","text":"a","split":"dev"}`), errs.Invalid, `split "dev"`},
		{"an answer without a question", jsonl(`{"file_name":"1.png","answer":"a"}`), errs.Invalid, "without a question"},
		{"a caption and a question", jsonl(`{"file_name":"1.png","question":"a","text":"b"}`), errs.Invalid, "captions and a question"},
		{"two files for one folder", append(jsonl(""), [2]string{"metadata.csv", "file_name,text\n1.png,a\n"}), errs.Invalid, "describe the same folder"},
		{"no texts for any image", [][2]string{picture("1.png"), {"metadata.jsonl", `{"file_name":"2.png","text":"a"}`}}, errs.Invalid, `the first, "1.png": has no texts`},
		{"an empty CSV", csv(""), errs.Invalid, "column names"},
		{"a CSV without file names", csv("image,text\n1.png,a\n"), errs.Invalid, `no column "file_name"; there are ["image" "text"]`},
		{"a column twice", csv("file_name,text,text\n1.png,a,b\n"), errs.Invalid, "two columns"},
		{"a row that is too short", csv("file_name,text\n1.png,a\n1.png\n"), errs.Invalid, "line 3"},
		{"an open quote", csv("file_name,text\n1.png,\"a\n"), errs.Invalid, "line"},
		{"COCO that breaks off", vqa(`{"annotations":[{"image_id":1,"caption":"a"},`), errs.Invalid, "at byte"},
		{"a question number twice", vqa(`{"questions":[{"image_id":1,"question":"a","question_id":1},{"image_id":1,"question":"b","question_id":1}]}`), errs.Invalid, "question_id 1 is there twice"},
		{"answers that are no list", vqa(`{"questions":[{"image_id":1,"question":"a","question_id":1}],"annotations":[{"question_id":1,"answers":7}]}`), errs.Invalid, "answers"},
		{"a nested list", vqa(`{"questions":[{"image_id":1,"question":"a","question_id":1},` + strings.Repeat("[", 20000)), errs.Invalid, "at byte"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := importFiles(t, tt.files, options())
			if errs.Of(err) != tt.kind || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want %v saying %q", err, tt.kind, tt.says)
			}
		})
	}
	o := options()
	o.Limits.TextBytes = 100
	_, _, err := importFiles(t, jsonl(`{"file_name":"1.png","text":"a text that is long enough to be over the limit of a hundred bytes"}`), o)
	if errs.Of(err) != errs.TooLarge || !strings.Contains(err.Error(), "limit 100") {
		t.Errorf("texts over the limit: %v", err)
	}
}

func TestManyMissingImagesAreCounted(t *testing.T) {
	var lines strings.Builder
	for i := range maxMissing + 500 {
		fmt.Fprintf(&lines, "{\"file_name\":\"%04d.png\",\"text\":\"a\"}\n", i)
	}
	v, _ := mustImport(t, [][2]string{picture("0007.png"), {"metadata.jsonl", lines.String()}})
	if len(v.Items) != 1 || len(v.Skipped) != maxMissing+1 {
		t.Fatalf("%d items, %d left out", len(v.Items), len(v.Skipped))
	}
	if last := v.Skipped[0]; last.Path != "..." || !strings.Contains(last.Reason, "499 more images") {
		t.Errorf("left out %v", last)
	}
}

func TestTheManifestOfTextsIsAsItWas(t *testing.T) {
	v, m := mustImport(t, [][2]string{
		picture("train/1.png"), picture("test/1.png"),
		{"metadata.csv", "file_name,caption,question,answers\ntrain/1.png,a cup,,\ntrain/1.png,,what is it?,cup\ntest/1.png,\"a \"\"jug\"\"\",,\n"},
	})
	manifest := m.blobs[ManifestKey("pets", v.Digest)]
	isGolden(t, manifest, "testdata/manifest_texts.json")
}

func TestQuestionsAboutAnImageStayTogether(t *testing.T) {
	var files [][2]string
	var lines strings.Builder
	for i := range 20 {
		name := fmt.Sprintf("%02d.png", i)
		files = append(files, picture(name))
		for _, q := range []string{"what?", "who?", "where?"} {
			fmt.Fprintf(&lines, "{\"file_name\":%q,\"question\":%q,\"answer\":\"a\"}\n", name, q)
		}
	}
	v, _ := mustImport(t, append(files, [2]string{"metadata.jsonl", lines.String()}))
	splits := map[string]string{}
	for _, it := range v.Items {
		if s := splits[it.Path]; s != "" && s != it.Split {
			t.Errorf("%s lies in %s and %s", it.Path, s, it.Split)
		}
		splits[it.Path] = it.Split
	}
	if want := (ClassCount{Train: 30, Validation: 12, Test: 18}); v.Sizes() != want {
		t.Errorf("sizes %+v, want %+v", v.Sizes(), want)
	}
	if v.Images() != 20 || len(v.Items) != 60 || len(v.Leaks) > 0 {
		t.Errorf("%d images, %d items, leaks %v", v.Images(), len(v.Items), v.Leaks)
	}
	few := v.FewShot(4, 1)
	if len(few.Train) != 4 || len(few.Validation) != 4 || len(few.Test) != 18 {
		t.Errorf("four shots are %d, %d and %d items", len(few.Train), len(few.Validation), len(few.Test))
	}
	if all := v.All(); all.Hash == few.Hash || all.Hash != v.All().Hash {
		t.Errorf("hashes %s and %s", all.Hash, few.Hash)
	}
	if it := v.Items[0]; v.ClassName(it) != "" {
		t.Errorf("class name %q of an item without one", v.ClassName(it))
	}
}

func FuzzTexts(f *testing.F) {
	f.Add("metadata.jsonl", []byte(`{"file_name":"1.png","captions":["a","b"],"split":"val"}`+"\n"+`{"file_name":"2.png","question":"a?","answer":"b"}`))
	f.Add("metadata.csv", []byte("file_name,text\n1.png,\"a, b\"\n"))
	f.Add("captions_val2017.json", []byte(`{"images":[{"id":1,"file_name":"1.png"}],"annotations":[{"image_id":1,"caption":"a"}]}`))
	f.Add("questions.json", []byte(`{"questions":[{"image_id":2,"question":"a","question_id":1}],"annotations":[{"question_id":1,"answers":[{"answer":"b"}]}]}`))
	f.Add("dataset.json", []byte(`{"images":[{"filename":"1.png","split":"restval","sentences":[{"raw":"a"}]}]}`))
	f.Add("1.txt", []byte("a\nb\r\n\xff"))
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		m := newMemory()
		m.blobs["upload"] = zipOf(t, [][2]string{picture("1.png"), picture("test/2.png"), {name, string(content)}})
		o := options()
		o.Limits = Limits{Entries: 100, Bytes: 1 << 20, ImageBytes: 1 << 16, TextBytes: 1 << 18}
		v, err := ImportZip(t.Context(), m, "upload", o)
		if err != nil {
			if errs.Of(err) == errs.Internal {
				t.Fatalf("an error without a kind: %v", err)
			}
			return
		}
		loaded, err := Load(t.Context(), m, v.ID, v.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(loaded, v) {
			t.Fatalf("loaded as %+v, made as %+v", loaded, v)
		}
	})
}
