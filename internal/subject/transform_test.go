package subject

import "testing"

func TestTransform(t *testing.T) {
	for _, c := range []struct{ source, dest, in, want string }{
		{"$KV.a.>", "$KV.b.>", "$KV.a.x.y", "$KV.b.x.y"},
		{">", "r.>", "x.y", "r.x.y"},
		{"", "r.>", "x", "r.x"},
		{"r.>", ">", "r.x.y", "x.y"},
		{"a.*.*", "b.$2.$1", "a.x.y", "b.y.x"},
		{"a.*.*", "b.{{wildcard(2)}}", "a.x.y", "b.y"},
		{"a.*", "b", "a.x", "b"},
		{"a.b", "c.d", "a.b", "c.d"},
		{"a.b", "c.d", "a.c", ""},
		{"*", "x.{{left(1, 2)}}.{{right(1,2)}}", "abcde", "x.ab.de"},
		{"*", "{{split(1,-)}}", "-a-b--c-", "a.b.c"},
		{"*", "{{splitFromLeft(1,2)}}", "abcde", "ab.cde"},
		{"*", "{{SplitFromRight(1,2)}}", "abcde", "abc.de"},
		{"*", "{{sliceFromLeft(1,2)}}", "abcde", "ab.cd.e"},
		{"*", "{{ sliceFromRight(1,2) }}", "abcde", "a.bc.de"},
		{"*", "p.{{partition(10,1)}}", "abcde", "p.6"},
		{"*.>", "p.{{partition(1)}}.>", "a.b.c", "p.0.b.c"},
	} {
		tr, err := NewTransform(c.source, c.dest)
		if err != nil {
			t.Errorf("%s -> %s: %v", c.source, c.dest, err)
			continue
		}
		if got, _ := tr.Apply(c.in, 1); got != c.want {
			t.Errorf("%s -> %s: %s becomes %q, want %q", c.source, c.dest, c.in, got, c.want)
		}
	}
}

func TestTransformErrors(t *testing.T) {
	for _, c := range []struct{ source, dest, want string }{
		{"zzz..*", "x.$1", "invalid subject zzz..*"},
		{"zzz.*", "x.$1.$2", "invalid mapping destination: wildcard index out of range in $2: [2]"},
		{"*", "x.{{foo(1)}}", "invalid mapping destination: unknown function in {{foo(1)}}"},
		{"*", "x.{{split(1)}}", "invalid mapping destination: not enough arguments passed to the function in {{split(1)}}"},
		{"*", "x.{{left(1,2,3)}}", "invalid mapping destination: too many arguments passed to the function in {{left(1,2,3)}}"},
		{"*", "x.{{left(1,b)}}", "invalid mapping destination: function argument is invalid or in the wrong format in {{left(1,b)}}"},
		{"A", "x.>", "invalid mapping destination: a full wildcard must end both subjects or none"},
		{"A.>", "x", "invalid mapping destination: a full wildcard must end both subjects or none"},
		{"A", "x..y", "invalid mapping destination: invalid subject in "},
		{"A.*", "x.*", "invalid mapping destination: invalid subject in *"},
	} {
		_, err := NewTransform(c.source, c.dest)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s -> %s: %v, want %s", c.source, c.dest, err, c.want)
		}
	}
}

func TestRandomFollowsSalt(t *testing.T) {
	tr, err := NewTransform("*", "{{random(1000)}}")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for salt := range uint64(100) {
		a, _ := tr.Apply("x", salt)
		b, _ := tr.Apply("x", salt)
		if a != b {
			t.Fatalf("salt %d gives %s and %s", salt, a, b)
		}
		seen[a] = true
	}
	if len(seen) < 50 {
		t.Errorf("100 draws of 1000 gave only %d values", len(seen))
	}
}
