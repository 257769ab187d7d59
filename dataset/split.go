package dataset

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/foretoken/foretoken/internal/rng"
)

// SplitBy says who decided which image is in which split.
type SplitBy struct {
	Folders bool   `json:"folders"`
	Seed    uint64 `json:"seed"` // where Folders is false
}

// The parts of each class that CoOp takes where a data set comes without splits
// (Zhou et al. 2022, DatasetBase.split_trainval and OxfordPets.split_data); the rest is
// for training.
const (
	validationPart = 0.2
	testPart       = 0.3
)

// splitNames are the splits in the order of [Selection]'s fields.
var splitNames = []string{Train, Validation, Test}

// splitOrder is a split's place among the splits, -1 for an unknown one.
func splitOrder(split string) int { return slices.Index(splitNames, split) }

// split keeps what folders and files of texts say, unless they say nothing or only "train"; then
// it draws splits by the seed, class by class. Pictures are for training unless folders say else.
func (v *Version) split(seed uint64) {
	v.SplitBy.Folders = slices.ContainsFunc(v.Items, func(it Item) bool { return it.Split != "" && it.Split != Train })
	if v.SplitBy.Folders || v.Kind() == Pictures {
		for i := range v.Items {
			v.Items[i].Split = cmp.Or(v.Items[i].Split, Train)
		}
		return
	}
	v.SplitBy.Seed = seed
	assigned := map[string]string{} // by digest, so that copies of an image stay together
	for _, g := range v.groups() {
		var shas []string
		for _, it := range v.Items {
			if it.Class == g.class && assigned[it.SHA256] == "" {
				assigned[it.SHA256] = Train
				shas = append(shas, it.SHA256)
			}
		}
		slices.Sort(shas)
		rng.New(seed, "split", g.folder).Shuffle(len(shas), func(i, j int) { shas[i], shas[j] = shas[j], shas[i] })
		test, validation := parts(len(shas))
		for i, sha := range shas[:test+validation] {
			assigned[sha] = Test
			if i >= test {
				assigned[sha] = Validation
			}
		}
	}
	for i := range v.Items {
		v.Items[i].Split = assigned[v.Items[i].SHA256]
	}
}

// group is a class by its number and folder.
type group struct {
	class  int
	folder string
}

// groups are what splits and shots are drawn in: the classes, or all items where there are none.
func (v *Version) groups() []group {
	if len(v.Classes) == 0 {
		return []group{{NoClass, ""}}
	}
	var all []group
	for i, c := range v.Classes {
		all = append(all, group{i, c.Folder})
	}
	return all
}

// parts divides a class of n images: one at least for training, then for testing, then for
// validation.
func parts(n int) (test, validation int) {
	part := func(fraction float64, left int) int {
		return min(max(1, int(math.Round(fraction*float64(n)))), max(0, left))
	}
	test = part(testPart, n-1)
	return test, part(validationPart, n-1-test)
}

// findDuplicates reports images that lie in several splits or classes.
func (v *Version) findDuplicates() {
	bySHA := map[string][]Item{}
	for _, it := range v.Items {
		bySHA[it.SHA256] = append(bySHA[it.SHA256], it)
	}
	for _, sha := range sortedKeys(bySHA) {
		d := Duplicate{SHA256: sha}
		splits, classes := map[string]bool{}, map[int]bool{}
		for _, it := range bySHA[sha] {
			if !slices.Contains(d.Paths, it.Path) { // which has an item a question
				d.Paths = append(d.Paths, it.Path)
			}
			splits[it.Split], classes[it.Class] = true, true
		}
		if len(splits) > 1 {
			v.Leaks = append(v.Leaks, d)
		}
		if len(classes) > 1 {
			v.Ambiguous = append(v.Ambiguous, d)
		}
	}
}

// Sizes is the number of items in each split.
func (v *Version) Sizes() ClassCount {
	s := v.All()
	return ClassCount{len(s.Train), len(s.Validation), len(s.Test)}
}

// ClassCount is how many images a class has in each split.
type ClassCount struct {
	Train, Validation, Test int
}

// Counts returns the number of images of each class, in the order of Classes; see [Version.Sizes]
// for versions without.
func (v *Version) Counts() []ClassCount {
	counts := make([]ClassCount, len(v.Classes))
	for _, it := range v.Items {
		if it.Class == NoClass {
			continue
		}
		c := &counts[it.Class]
		*[]*int{&c.Train, &c.Validation, &c.Test}[splitOrder(it.Split)]++
	}
	return counts
}

// Selection is which items a run trains on, validates on and is tested on: indexes into a
// version's Items, ascending.
type Selection struct {
	Train, Validation, Test []int
	// Hash is the SHA-256 over which image of which class, or with which question, is in which split. Runs with equal
	// hashes can be compared.
	Hash string
}

// All selects every item.
func (v *Version) All() Selection {
	var s Selection
	for i, it := range v.Items {
		list := []*[]int{&s.Train, &s.Validation, &s.Test}[splitOrder(it.Split)]
		*list = append(*list, i)
	}
	return v.hashed(s)
}

// validationShots is how many images of a class CoOp validates on in few-shot training.
const validationShots = 4

// FewShot draws the given number of training images of each class, or all where there are
// fewer, and up to 4 for validation, as CoOp does; the test split stays whole. Without classes it
// draws the number of items. The draw
// for fewer shots is part of the draw for more.
func (v *Version) FewShot(shots int, seed uint64) Selection {
	all := v.All()
	return v.hashed(Selection{
		Train:      v.draw(all.Train, shots, seed, "few-shot train"),
		Validation: v.draw(all.Validation, min(shots, validationShots), seed, "few-shot validation"),
		Test:       all.Test,
	})
}

// draw takes up to n of the items of each class.
func (v *Version) draw(items []int, n int, seed uint64, purpose string) []int {
	byClass := map[int][]int{}
	for _, i := range items {
		c := v.Items[i].Class
		byClass[c] = append(byClass[c], i)
	}
	var drawn []int
	for _, g := range v.groups() {
		list := byClass[g.class]
		rng.New(seed, purpose, g.folder).Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		drawn = append(drawn, list[:max(0, min(n, len(list)))]...)
	}
	slices.Sort(drawn)
	return drawn
}

// Halves divides the classes into base classes, which are trained on, and novel ones, which
// are held out: the first half by order, the larger where the number is odd, is base
// (CoCoOp, Zhou et al. 2022).
func (v *Version) Halves() (base, novel []int) {
	half := (len(v.Classes) + 1) / 2
	for c := range v.Classes {
		if c < half {
			base = append(base, c)
		} else {
			novel = append(novel, c)
		}
	}
	return base, novel
}

// Keep is the part of a selection whose items are of the given classes.
func (v *Version) Keep(s Selection, classes []int) Selection {
	of := func(items []int) []int {
		return slices.DeleteFunc(slices.Clone(items), func(i int) bool { return !slices.Contains(classes, v.Items[i].Class) })
	}
	return v.hashed(Selection{Train: of(s.Train), Validation: of(s.Validation), Test: of(s.Test)})
}

func (v *Version) hashed(s Selection) Selection {
	var lines []string
	for split, items := range [][]int{s.Train, s.Validation, s.Test} {
		for _, i := range items {
			it := v.Items[i]
			about := it.Question
			if it.Class != NoClass {
				about = v.Classes[it.Class].Folder
			}
			lines = append(lines, fmt.Sprintf("%s  %s  %s\n", splitNames[split], it.SHA256, about))
		}
	}
	slices.Sort(lines)
	h := sha256.New()
	io.WriteString(h, strings.Join(lines, ""))
	s.Hash = hex.EncodeToString(h.Sum(nil))
	return s
}
