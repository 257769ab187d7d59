package dataset

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// classes makes files of classes with the given numbers of images.
func classes(sizes ...int) [][2]string {
	var files [][2]string
	for c, n := range sizes {
		for i := range n {
			files = append(files, [2]string{fmt.Sprintf("c%d/%03d.png", c, i), fmt.Sprintf("2x2 class %d image %d", c, i)})
		}
	}
	return files
}

func TestASplitIsStratified(t *testing.T) {
	v, _ := mustImport(t, classes(1, 2, 3, 10, 100))
	want := []ClassCount{{1, 0, 0}, {1, 0, 1}, {1, 1, 1}, {5, 2, 3}, {50, 20, 30}}
	if got := v.Counts(); !slices.Equal(got, want) {
		t.Errorf("counts %v, want %v", got, want)
	}
	if v.SplitBy != (SplitBy{Seed: 1}) || len(v.Leaks) > 0 {
		t.Errorf("split by %+v, leaks %v", v.SplitBy, v.Leaks)
	}
}

func TestASplitFollowsItsSeed(t *testing.T) {
	files := classes(30, 30)
	a, _ := mustImport(t, files)
	b, _ := mustImport(t, files)
	o := options()
	o.Seed = 2
	c, _, err := importFiles(t, files, o)
	if err != nil {
		t.Fatal(err)
	}
	if a.All().Hash != b.All().Hash || a.Digest != b.Digest {
		t.Error("one seed, two splits")
	}
	if a.All().Hash == c.All().Hash || a.Digest == c.Digest {
		t.Error("two seeds, one split")
	}
}

func TestCopiesOfAnImageStayInOneSplit(t *testing.T) {
	files := classes(20, 20)
	for i := range 20 {
		files = append(files, [2]string{fmt.Sprintf("c1/copy%d.png", i), fmt.Sprintf("2x2 class 0 image %d", i)})
	}
	v, _ := mustImport(t, files)
	if len(v.Leaks) > 0 || len(v.Ambiguous) != 20 {
		t.Errorf("leaks %v, %d ambiguous", v.Leaks, len(v.Ambiguous))
	}
	if got := v.Counts()[0]; got != (ClassCount{10, 4, 6}) {
		t.Errorf("the first class has %+v, no longer its own parts", got)
	}
}

func TestASplitIsOfImagesNotOfTheirPaths(t *testing.T) {
	files := classes(20, 20)
	v, _ := mustImport(t, files)
	for i := range files {
		dir, name, _ := strings.Cut(files[i][0], "/")
		files[i][0] = fmt.Sprintf("%s/%d-%s", dir, (7*i)%40, name)
	}
	renamed, _ := mustImport(t, files)
	if v.All().Hash != renamed.All().Hash || v.Digest == renamed.Digest {
		t.Errorf("split %s became %s", v.All().Hash, renamed.All().Hash)
	}
}

func TestFewShotDrawsEquallyOfEachClass(t *testing.T) {
	v, _ := mustImport(t, classes(4, 40, 60))
	s := v.FewShot(8, 3)
	count := func(items []int) []int {
		n := make([]int, len(v.Classes))
		for _, i := range items {
			n[v.Items[i].Class]++
		}
		return n
	}
	if got := count(s.Train); !slices.Equal(got, []int{2, 8, 8}) {
		t.Errorf("training images by class %v", got)
	}
	if got := count(s.Validation); !slices.Equal(got, []int{1, 4, 4}) {
		t.Errorf("validation images by class %v", got)
	}
	if !slices.Equal(s.Test, v.All().Test) {
		t.Error("the test split is not whole")
	}
	for split, items := range map[string][]int{Train: s.Train, Validation: s.Validation, Test: s.Test} {
		if !slices.IsSorted(items) {
			t.Errorf("%s is not in order: %v", split, items)
		}
		for _, i := range items {
			if v.Items[i].Split != split {
				t.Errorf("item %d of %s drawn for %s", i, v.Items[i].Split, split)
			}
		}
	}
}

func TestFewShotFollowsItsSeedAndFewerAreAPartOfMore(t *testing.T) {
	v, _ := mustImport(t, classes(40, 40))
	four := v.FewShot(4, 3)
	if again := v.FewShot(4, 3); again.Hash != four.Hash || !slices.Equal(again.Train, four.Train) {
		t.Error("one seed, two draws")
	}
	if other := v.FewShot(4, 4); other.Hash == four.Hash || slices.Equal(other.Train, four.Train) {
		t.Error("two seeds, one draw")
	}
	eight := v.FewShot(8, 3)
	for _, i := range four.Train {
		if !slices.Contains(eight.Train, i) {
			t.Errorf("item %d is in 4 shots, not in 8", i)
		}
	}
	if none := v.FewShot(0, 3); len(none.Train) != 0 {
		t.Errorf("no shots: %v", none.Train)
	}
}

func TestHalvesHoldOutTheSecond(t *testing.T) {
	v, _ := mustImport(t, classes(9, 9, 9, 9, 9))
	base, novel := v.Halves()
	if !slices.Equal(base, []int{0, 1, 2}) || !slices.Equal(novel, []int{3, 4}) {
		t.Errorf("base %v, novel %v", base, novel)
	}
	all := v.All()
	kept := v.Keep(all, novel)
	if len(kept.Train) != 2*len(all.Train)/5 || len(kept.Test) != 2*len(all.Test)/5 || kept.Hash == all.Hash {
		t.Errorf("kept %+v of %+v", kept, all)
	}
	for _, i := range kept.Test {
		if v.Items[i].Class < 3 {
			t.Errorf("item %d is of class %d", i, v.Items[i].Class)
		}
	}
}
