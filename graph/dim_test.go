package graph

import "testing"

func TestDimArithmeticIsCanonical(t *testing.T) {
	b, n := Sym("b"), Sym("n")
	tests := []struct {
		name string
		got  Dim
		want string
	}{
		{"constants add", Known(3).Add(Known(4)), "7"},
		{"terms collect", b.Add(n).Add(b), "n+b*2"},
		{"terms cancel", b.Mul(n).Sub(n.Mul(b)), "0"},
		{"products distribute", b.Mul(n.Add(Known(4))), "b*n+b*4"},
		{"a symbol divides out", b.Mul(n).Mul(Known(48)).Div(n.Mul(Known(12))), "b*4"},
		{"a sum divides by itself", n.Add(Known(4)).Div(n.Add(Known(4))), "1"},
		{"floors of constants", Known(7).Div(Known(2)), "3"},
		{"a quotient that is not exact is opaque", n.Add(Known(1)).Div(Known(2)), "(n+1)/(2)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.got.String(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
