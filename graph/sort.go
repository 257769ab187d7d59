package graph

import "fmt"

// inOrder brings a file's nodes into topological order. Files that a converter rewrote
// are not always sorted; those that are keep their order.
func inOrder(nodes []field) ([]field, error) {
	inputs := make([][]string, len(nodes))
	producer := map[string]int{}
	for i, f := range nodes {
		var err error
		if inputs[i], err = nodeNames(f, i, producer); err != nil {
			return nil, err
		}
	}
	s := sorter{inputs: inputs, producer: producer, state: make([]visit, len(nodes))}
	for i := range nodes {
		if err := s.visit(i); err != nil {
			return nil, err
		}
	}
	out := make([]field, len(nodes))
	for i, j := range s.order {
		out[i] = nodes[j]
	}
	return out, nil
}

// nodeNames lists what a node reads and enters what it defines as made by node i.
func nodeNames(f field, i int, producer map[string]int) (inputs []string, err error) {
	err = fields(f.Bytes, f.Offset, func(f field) error {
		switch f.Num {
		case 1:
			inputs = append(inputs, string(f.Bytes))
		case 2:
			if len(f.Bytes) > 0 {
				producer[string(f.Bytes)] = i
			}
		}
		return nil
	})
	return inputs, err
}

type visit uint8

const (
	unseen visit = iota
	open
	done
)

// sorter visits nodes after the nodes that they read from, without recursion: a file may
// hold a chain of any length.
type sorter struct {
	inputs   [][]string
	producer map[string]int
	state    []visit
	order    []int
}

func (s *sorter) visit(root int) error {
	for stack := []int{root}; len(stack) > 0; {
		i := stack[len(stack)-1]
		if s.state[i] == done {
			stack = stack[:len(stack)-1]
			continue
		}
		s.state[i] = open
		waits := false
		for _, name := range s.inputs[i] {
			j, ok := s.producer[name]
			if !ok || s.state[j] == done {
				continue
			}
			if s.state[j] == open {
				return fmt.Errorf("value %q depends on itself", name)
			}
			stack, waits = append(stack, j), true
		}
		if !waits {
			s.state[i] = done
			s.order = append(s.order, i)
			stack = stack[:len(stack)-1]
		}
	}
	return nil
}
