package wire

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

var testLimits = Limits{ControlLine: 64, Payload: 32}

// describe parses all of the input and writes down what was found, for comparison.
func describe(l Limits, input string, step int) string {
	var out strings.Builder
	var buf []byte
	var op Op
	for fed := 0; ; {
		n, need, err := l.Next(buf, &op)
		switch {
		case err != nil:
			fmt.Fprintf(&out, "error: %v", err)
			return out.String()
		case n > 0:
			fmt.Fprintf(&out, "%d s=%s r=%s q=%s i=%s m=%d h=%s d=%s\n",
				op.Kind, op.Subject, op.Reply, op.Queue, op.Sid, op.Max, op.Header, op.Data)
			buf = buf[n:]
		case need <= len(buf):
			return fmt.Sprintf("needs %d bytes, has %d", need, len(buf))
		case fed == len(input):
			fmt.Fprintf(&out, "rest: %d", len(buf))
			return out.String()
		default:
			upto := min(fed+step, len(input))
			buf = append(buf[:len(buf):len(buf)], input[fed:upto]...)
			fed = upto
		}
	}
}

func TestNextReadsOperations(t *testing.T) {
	input := "CONNECT {\"a\":1}\r\nPING\r\npub a.b 2\r\nhi\r\nPUB a\t r   0\n\r\nHPUB a r 4 6\r\nHHHHpp\r\n" +
		"hpub a 0 1\r\nx\r\nSUB a q 1\r\nSub a 2\r\nUNSUB 1\r\nUNSUB 1 5\r\nUNSUB 1 x\r\n+OK\r\n-ERR 'x'\r\nINFO {}\r\npong\n"
	want := `1 s= r= q= i= m=0 h= d={"a":1}
6 s= r= q= i= m=0 h= d=
2 s=a.b r= q= i= m=0 h= d=hi
2 s=a r=r q= i= m=0 h= d=
3 s=a r=r q= i= m=0 h=HHHH d=pp
3 s=a r= q= i= m=0 h= d=x
4 s=a r= q=q i=1 m=0 h= d=
4 s=a r= q= i=2 m=0 h= d=
5 s= r= q= i=1 m=0 h= d=
5 s= r= q= i=1 m=5 h= d=
5 s= r= q= i=1 m=-1 h= d=
0 s= r= q= i= m=0 h= d=
0 s= r= q= i= m=0 h= d=
0 s= r= q= i= m=0 h= d=
7 s= r= q= i= m=0 h= d=
rest: 0`
	for step := 1; step <= len(input); step++ {
		if got := describe(testLimits, input, step); got != want {
			t.Fatalf("in steps of %d:\n%s", step, got)
		}
	}
}

func TestNextRejects(t *testing.T) {
	long := strings.Repeat("a", 65)
	for _, tc := range []struct {
		input string
		want  error
	}{
		{"X", ErrUnknownOperation},
		{"PX", ErrUnknownOperation},
		{"PUBX", ErrUnknownOperation},
		{"SUB\r\n", ErrUnknownOperation},
		{"\r\n", ErrUnknownOperation},
		{"PUB a 1\r\nxy", ErrUnknownOperation},
		{"PUB a 1\r\nx\ry", ErrUnknownOperation},
		{"PUB a\r\n", ErrArguments},
		{"PUB a b c 1\r\n", ErrArguments},
		{"PUB a x\r\n", ErrArguments},
		{"PUB a -1\r\n", ErrArguments},
		{"PUB a 1234567890\r\n", ErrArguments},
		{"HPUB a 1\r\n", ErrArguments},
		{"HPUB a 3 2\r\n", ErrArguments},
		{"SUB a\r\n", ErrArguments},
		{"SUB a b c d\r\n", ErrArguments},
		{"UNSUB \r\n", ErrArguments},
		{"PUB a 33\r\n", ErrPayload},
		{"SUB " + long, ErrControlLine},
		{"SUB " + long + "\r\n", ErrControlLine},
	} {
		var op Op
		if _, _, err := testLimits.Next([]byte(tc.input), &op); !errors.Is(err, tc.want) {
			t.Errorf("%q: %v, want %v", tc.input, err, tc.want)
		}
	}
}

func TestNextAllocatesNothing(t *testing.T) {
	buf := []byte("HPUB $KV.bucket.key _INBOX.abc.1 12 16\r\nNATS/1.0\r\n\r\ndata\r\n")
	var op Op
	if n := testing.AllocsPerRun(100, func() {
		if n, _, err := testLimits.Next(buf, &op); n != len(buf) || err != nil {
			t.Fatal(n, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAppendMsg(t *testing.T) {
	hdr := []byte("NATS/1.0\r\n\r\n")
	for want, got := range map[string][]byte{
		"MSG a 1 2\r\nhi\r\n":                        AppendMsg(nil, "a", "1", "", nil, []byte("hi")),
		"MSG a 1 r 0\r\n\r\n":                        AppendMsg(nil, "a", "1", "r", nil, nil),
		"HMSG a 1 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n": AppendMsg(nil, "a", "1", "r", hdr, []byte("hi")),
		"-ERR 'Stale Connection'\r\n":                AppendErr(nil, "Stale Connection"),
	} {
		if string(got) != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if max := MsgSizeMax("a", "1", "r", hdr, make([]byte, 1000)); max < len(AppendMsg(nil, "a", "1", "r", hdr, make([]byte, 1000))) {
		t.Errorf("MsgSizeMax is only %d", max)
	}
}

// FuzzNext holds that the way bytes are split does not matter, and that nothing panics.
func FuzzNext(f *testing.F) {
	f.Add("PUB a.b r 2\r\nhi\r\nPING\r\nSUB a 1\r\n", uint8(3))
	f.Add("HPUB a 4 6\r\nHHHHpp\r\nCONNECT {}\r\nUNSUB 1 2\r\n", uint8(1))
	f.Add("PUB a 1\r\nxyz", uint8(2))
	f.Add("-ERR 'x'\r\n+OK\r\nINFO {\r\n", uint8(7))
	f.Fuzz(func(t *testing.T, input string, step uint8) {
		whole := describe(testLimits, input, len(input)+1)
		split := describe(testLimits, input, int(step)+1)
		if whole != split {
			t.Errorf("whole:\n%s\nin steps of %d:\n%s", whole, int(step)+1, split)
		}
	})
}

func BenchmarkNext(b *testing.B) {
	buf := []byte("PUB $KV.bucket.key-000001 _INBOX.abcdefghijklmnop.12345678 128\r\n" + strings.Repeat("x", 128) + "\r\n")
	l := Limits{ControlLine: 4096, Payload: 1 << 20}
	var op Op
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		if n, _, _ := l.Next(buf, &op); n != len(buf) {
			b.Fatal(n)
		}
	}
}

func BenchmarkAppendMsg(b *testing.B) {
	dst, data := make([]byte, 0, 4096), make([]byte, 128)
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendMsg(dst[:0], "$KV.bucket.key-000001", "12", "$JS.ACK.KV_bucket.c.1.2.3.4.5", nil, data)
	}
}
